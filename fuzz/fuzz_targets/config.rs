//! `config.toml`: every mistake is an error that names its line; a configuration that is read can be used.
#![no_main]

use jiff::SignedDuration;
use libfuzzer_sys::fuzz_target;
use mailspool::testing::config::Config;
use mailspool::testing::message::{Address, EnhancedCode, ReversePath};
use mailspool::testing::queue::{FailedAttempt, Outcome, RetryPolicy};

fuzz_target!(|text: &str| {
    let config = match Config::parse(text, "config.toml") {
        Ok(config) => config,
        Err(error) => return assert_names_its_line(&error.to_string(), text),
    };
    assert!(config.run.jobs > 0);
    let recipient = Address::parse("b@example.net").unwrap();
    if let Some(name) = config.routes.transport_for(&ReversePath::Null, &recipient) {
        assert!(config.transports.contains_key(name), "a route to nowhere");
    }
    assert!(config.postmaster.as_str().contains('@'));
    let (now, id, longest) = (help::now(), help::id(), config.retry.longest_delay());
    for attempts in [1, 2, 3, 100] {
        for age in [0, 1, 60, 3600, 100_000, 10_000_000] {
            let now = now + SignedDuration::from_secs(age);
            let outcome = Outcome::deferred(EnhancedCode::new(4, 2, 2), "greylisted");
            let failed = FailedAttempt {
                id,
                begin: id.accepted(),
                sender: &ReversePath::Null,
                recipient: &recipient,
                transport: config.routes.transport_for(&ReversePath::Null, &recipient),
                attempts,
                status: outcome.status,
                reply: &outcome.reply,
                now,
            };
            if let Some(next) = config.retry.next_attempt(&failed) {
                assert!(next > now, "{next} is not after {now}");
                assert!(
                    next.duration_since(now) <= longest,
                    "{next} is too far from {now}"
                );
            }
        }
    }
});

fn assert_names_its_line(error: &str, text: &str) {
    let line = error
        .strip_prefix("config.toml:")
        .and_then(|rest| rest.split_once(": "));
    let (line, words) = line.unwrap_or_else(|| panic!("names no line: {error}"));
    let line: usize = line
        .parse()
        .unwrap_or_else(|_| panic!("names no line: {error}"));
    assert!(
        (1..=text.matches('\n').count() + 1).contains(&line),
        "{error}"
    );
    assert!(!words.trim().is_empty(), "says nothing: {error}");
    assert!(
        !error.chars().any(char::is_control),
        "not one line for a terminal: {error:?}"
    );
}
