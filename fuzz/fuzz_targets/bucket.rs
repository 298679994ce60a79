//! The names of buckets, and the bucket of every possible time.
#![no_main]

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use mailspool::testing::queue::Bucket;

fuzz_target!(|text: &str| {
    if let Ok(bucket) = text.parse::<Bucket>() {
        assert_eq!(bucket.to_string(), text, "one bucket has one name");
        if let Some(due) = bucket.due() {
            assert_eq!(Bucket::for_time(due), bucket);
        }
    }
    // Seconds since the epoch, with or without a fraction, or a time of RFC 3339.
    let seconds: Option<f64> = text.parse().ok();
    let time = seconds.and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok());
    let time = time.and_then(|time| Timestamp::from_duration(time).ok());
    let Some(time) = time.or_else(|| text.parse().ok()) else {
        return;
    };
    let bucket = Bucket::for_time(time);
    let name = bucket.to_string();
    assert_eq!(name.parse(), Ok(bucket), "{name}");
    let due = bucket.due().expect("a time has a bucket with a time");
    let within = SignedDuration::from_mins(1);
    if time > Timestamp::UNIX_EPOCH && due < Timestamp::MAX - within {
        assert!(
            due >= time && due.duration_since(time) < within,
            "{time}: {due}"
        );
    }
    assert!(bucket.is_open(due, within), "what is due is open");
});
