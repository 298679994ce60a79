//! What was found by faults or by reading, each by its name.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use mailspool::message::Door;
use mailspool::operator::{Acted, act};
use mailspool::queue::{Action, By, Outcome, Routes};
use mailspool::runner::Runner;
use mailspool::spool::Spool;
use mailspool::transport::Relay;

use super::world::{HOST, accept, files, tempdir};

fn by() -> By {
    By {
        by: "operator".into(),
        reason: None,
    }
}

/// The request was carried out on the message in `done/`, which brought it back into the queue
/// while its envelope was being removed.
#[test]
fn a_request_does_not_bring_back_what_was_delivered_meanwhile() {
    let freeze = Action::Freeze {
        by: by(),
        until: None,
    };
    for action in [Action::Retry(by()), freeze] {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let spool = Spool::create(&path, None).unwrap();
        accept(&spool, Door::Active, "m", "s@sender.test", &["a@ok.test"]);
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (asked, there) = (Arc::clone(&answers), spool.clone());
        let relay = Relay::new(move |message, _| {
            let acted = act(&there, &[message.id], &action, Timestamp::now()).unwrap();
            asked.lock().unwrap().extend(acted);
            vec![Outcome::delivered("taken")]
        });
        let runner = Runner::new(spool.clone(), HOST)
            .transport("relay", relay)
            .routes(Routes::all_by("relay"));
        let summary = runner.pass().unwrap();
        assert_eq!((summary.delivered, summary.corrupt), (1, 0));
        runner.pass().unwrap();
        let answers = answers.lock().unwrap();
        assert!(
            matches!(answers.as_slice(), [(_, Acted::Requested)]),
            "{answers:?}"
        );
        assert_eq!(files(&path), Vec::<std::path::PathBuf>::new());
    }
}
