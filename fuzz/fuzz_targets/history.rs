//! `history`: torn ends, what events mean, and where a message goes from there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::message::RecipientDsn;
use mailspool::queue::{Event, History, State, What};

fuzz_target!(|bytes: &[u8]| {
    let Ok(history) = History::parse(bytes) else {
        return;
    };
    assert!(history.whole <= bytes.len());
    // What is behind the torn place is cut off; what is left says the same.
    let kept = History::parse(&bytes[..history.whole]).expect("a part of what could be read");
    assert_eq!(kept, history);
    let written: Vec<u8> = history.events.iter().flat_map(Event::line).collect();
    let again = History::parse(&written).expect("what we write we can read");
    assert_eq!(again.events, history.events);
    assert_eq!(again.whole, written.len());

    for sender in ["", "a@example.org"] {
        // Some who are named in the history, one who is not, and one who is named twice.
        let mut envelope = help::envelope(sender, &["b@example.net", "c@x", "d@y", "c@x"]);
        // Of one nothing is to be told, of another everything.
        let wishes = ["never", "success,failure,delay"].map(|words| RecipientDsn {
            notify: words.parse().ok(),
            original: None,
        });
        envelope.submission.dsn.recipients = wishes.to_vec();
        let mut state = State::new(help::id(), &envelope);
        for event in &history.events {
            state.apply(event);
            let known = |one: &mailspool::message::Address| {
                state
                    .recipients
                    .iter()
                    .any(|recipient| recipient.address == *one)
            };
            if let What::Outcome { results, .. } = &event.what {
                for result in results.iter().filter(|result| known(&result.recipient)) {
                    let n = state
                        .recipients
                        .iter()
                        .position(|r| r.address == result.recipient);
                    assert!(state.recipients[n.unwrap()].attempts > 0);
                }
            }
        }
        assert_eq!(
            state,
            State::with_history(help::id(), &envelope, &history.events)
        );
        assert_eq!(state.recipients.len(), 3);
        let _ = state.last_error();
        help::follow_steps(state, help::now());
    }
});
