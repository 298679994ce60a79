//! `requests`: an operator's action that waits in a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailspool::testing::queue::{Action, Event, History, State, What};

fuzz_target!(|bytes: &[u8]| {
    let Ok(action) = serde_json::from_slice::<Action>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&action).unwrap();
    let again: Action = serde_json::from_slice(&written).expect("what we write we can read");
    assert_eq!(again, action);
    // A served request becomes a line of the history.
    let event = Event {
        at: help::now(),
        what: What::Action(action),
    };
    let history = History::parse(&event.line()).expect("one line");
    assert_eq!(history.events, [event]);
    // An action that is done twice, as after a crash, changes nothing more.
    for sender in ["", "a@example.org"] {
        let envelope = help::envelope(sender, &["b@example.net", "c@x"]);
        let once = State::read(&help::block(&envelope), &history.events);
        let mut twice = once.clone();
        twice.apply(&history.events[0]);
        assert_eq!(twice, once);
        help::follow_steps(once, help::now());
    }
});
