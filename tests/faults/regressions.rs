//! What was found by faults or by reading, each by its name.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use mailspool::disk::{Call, Seam, Verdict};
use mailspool::message::Door;
use mailspool::operator::{Acted, act};
use mailspool::queue::{Action, By, Outcome, Routes};
use mailspool::runner::Runner;
use mailspool::spool::Spool;
use mailspool::transport::Relay;
use nix::errno::Errno;

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

/// An error of the scan dropped the attempts in hand: delivered, and not recorded.
#[test]
fn what_is_in_hand_is_finished_when_the_scan_fails() {
    let dir = tempdir();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path, None).unwrap();
    accept(&spool, Door::Active, "m", "s@sender.test", &["a@ok.test"]);
    // A bucket that is due and empty: it is removed at the end of the scan, by which time the
    // delivery has begun.
    std::fs::create_dir(path.join("deferred/2026-01-01T0000Z")).unwrap();
    let (begun, delivery) = channel();
    let seam = FailsRmdir {
        delivery: Mutex::new(delivery),
    };
    let spool = Spool::open_through(&path, Some(Arc::new(seam))).unwrap();
    let relay = Relay::new(move |_, _| {
        begun.send(()).unwrap();
        // Long enough for the scan to fail meanwhile; if it does not, nothing is shown.
        std::thread::sleep(Duration::from_millis(100));
        vec![Outcome::delivered("taken")]
    });
    let runner = Runner::new(spool, HOST)
        .transport("relay", relay)
        .routes(Routes::all_by("relay"));
    let error = runner.pass().unwrap_err();
    assert!(error.to_string().starts_with("rmdir"), "{error}");
    assert_eq!(files(&path), Vec::<std::path::PathBuf>::new());
}

/// Fails to remove directories, once a delivery is under way.
struct FailsRmdir {
    delivery: Mutex<Receiver<()>>,
}

impl Seam for FailsRmdir {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Rmdir { .. } => {
                self.delivery.lock().unwrap().recv().unwrap();
                Verdict::Fail(Errno::EIO)
            }
            _ => Verdict::Pass,
        }
    }
}
