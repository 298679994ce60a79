//! The output of a delivery program and its exit status: codes, texts, and their meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::text::shortened;
use mailspool::testing::message::{EnhancedCode, Reply, printable};
use mailspool::testing::queue::outcome::Exit;
use mailspool::testing::queue::{Outcome, Status};

fuzz_target!(|input: &[u8]| {
    let [end, bytes] = help::parts(input);
    let output = String::from_utf8_lossy(bytes);
    // `75` is a status, `-9` a signal.
    let number: i32 = String::from_utf8_lossy(end).parse().unwrap_or(0);
    let by_signal = number < 0;
    let exit = if by_signal {
Exit::Signal(number.saturating_neg())
} else {
Exit::Code(number)
};
    let Outcome { status, reply, .. } = Outcome::of_exit(exit, &output);
    assert!(reply.text.len() <= Reply::MAX_TEXT);
    assert_printable(&reply.to_string());
    let class = reply.enhanced.expect("there is always a code").class;
    assert_eq!(status == Status::Delivered, exit == Exit::Code(0));
    match status {
        Status::Delivered => assert_eq!(class, 2),
        Status::Failed => assert!(class == 5 && !by_signal),
        Status::Deferred | Status::Unknown => assert_eq!(class, 4),
    }
    let json = serde_json::to_string(&reply).unwrap();
    assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), reply);
    let _ = serde_json::from_slice::<Reply>(bytes);

    if let Ok(code) = output.parse::<EnhancedCode>() {
        assert_eq!(code.to_string().parse(), Ok(code));
    }
    if let Some((code, rest)) = EnhancedCode::at_start_of(&output) {
        assert!([2, 4, 5].contains(&code.class) && output.ends_with(rest));
    }
    let clean = printable(&output);
    assert_printable(&clean);
    assert_eq!(printable(&clean), clean);
    let max = end.len() * 7 + '…'.len_utf8();
    let short = shortened(clean.clone(), max);
    assert!(short.len() <= max && (short == clean || short.ends_with('…')));
});

fn assert_printable(text: &str) {
    assert!(!text.chars().any(|c| c.is_control()), "{text:?}");
    assert!(!text.contains("  ") && text.trim() == text, "{text:?}");
}
