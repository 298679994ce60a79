//! `history`: torn ends, the meaning of events, and the next steps of the message, whatever its block says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::{Address, RecipientDsn};
use mailspool::testing::queue::{Event, History, State, What};

fuzz_target!(|bytes: &[u8]| {
    let Ok(history) = History::parse(bytes) else {
        return;
    };
    assert!(history.whole <= bytes.len());
    // Everything from the torn line on is cut off; the rest reads the same.
    let kept = History::parse(&bytes[..history.whole]).expect("a prefix of a readable history");
    assert_eq!(kept, history);
    let written: Vec<u8> = history.events.iter().flat_map(Event::line).collect();
    let again = History::parse(&written).expect("what we write we can read");
    assert_eq!(again.events, history.events);
    assert_eq!(again.whole, written.len());
    // A power cut may leave a shorter file, or zeroes. Every event that is read then was written.
    for end in [written.len() / 3, written.len() - written.len() / 5] {
        let mut torn = written[..end].to_vec();
        let cut = History::parse(&torn).expect("a torn end is no damage");
        assert!(history.events.starts_with(&cut.events));
        torn.resize(written.len(), 0);
        let zeroed = History::parse(&torn).expect("zeroes are no damage");
        assert_eq!(zeroed, cut);
    }

    for sender in ["", "a@example.org"] {
        // The history names some of the recipients, and one not.
        let mut envelope = help::envelope(sender, &["b@example.net", "c@x", "d@y"]);
        // No notices for one recipient, all for another.
        let parameters = ["never", "success,failure,delay"].map(|words| RecipientDsn {
            notify: words.parse().ok(),
            original: None,
        });
        envelope.submission.dsn.recipients = parameters.to_vec();
        let mut block = help::block(&envelope);
        let state = assert_folded(State::new(help::id(), &envelope), &history.events);
        assert_eq!(state, State::read(&block, &history.events));
        assert_eq!(state.recipients.len(), 3);
        let _ = state.last_error();
        help::follow_steps(state, help::now());

        // The octets, the state line and the bit count, whatever the history says or has lost.
        block.finished[1] = true;
        block.mark.interrupted = 2;
        let mut state = State::read(&block, &history.events);
        assert!(state.recipients[1].is_finished());
        assert_eq!(state.interrupted, 2);
        state.in_use = true;
        help::follow_steps(state, help::now());
        block.mark.done = true;
        let state = State::read(&block, &history.events);
        assert_eq!(help::next(&state), mailspool::testing::queue::Step::Finish);
    }
});

/// Returns the state after all events, applied one by one.
fn assert_folded(mut state: State, events: &[Event]) -> State {
    for event in events {
        state.apply(event);
        let known = |address: &Address| state.recipient(address).is_some();
        if let What::Outcome { results, .. } = &event.what {
            assert!(state.attempts > 0);
            for result in results.iter().filter(|result| known(&result.recipient)) {
                assert!(state.recipient(&result.recipient).unwrap().attempts > 0);
            }
        }
    }
    state
}
