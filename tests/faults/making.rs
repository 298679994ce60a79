//! Creating a spool under faults.

use std::sync::{Arc, Barrier};

use mailspool::testing::disk::Seam;
use mailspool::testing::message::Entrance;
use mailspool::testing::operator::Level;
use mailspool::testing::spool::Spool;

use super::explore::explore;
use super::inject::{Case, Injector, all_cases, sample};
use super::world::{accept, findings, tempdir};

fn judge(case: &Case) -> String {
    let dir = tempdir();
    let path = dir.path().join("above/spool");
    let seam: Arc<dyn Seam> = Injector::new(*case);
    let first = Spool::create_through(&path, Some(seam)).is_ok();
    // A half-made spool does not open.
    assert!(!first || Spool::open(&path).is_ok());
    let spool = Spool::create(&path).unwrap();
    let found = findings(&spool);
    assert!(
        found.iter().all(|finding| finding.level == Level::Note),
        "{found:?}"
    );
    accept(
        &spool,
        Entrance::Active,
        "m",
        "s@sender.test",
        &["a@ok.test"],
    );
    match (first, found.is_empty()) {
        (true, _) => "made",
        (false, true) => "made by the second",
        (false, false) => "made by the second, a leftover noted",
    }
    .to_owned()
}

#[test]
fn making_a_spool() {
    let dir = tempdir();
    let seam = Injector::new(Case::clean());
    let through: Arc<dyn Seam> = seam.clone();
    Spool::create_through(&dir.path().join("above/spool"), Some(through)).unwrap();
    let seen = seam.seen();
    let cases = sample(all_cases(&seen, None), 300);
    let tally = explore("make", &cases, judge);
    tally.print(&format!("make, {} calls", seen.len()));
}

#[test]
fn any_number_make_a_spool_at_once() {
    const AT_ONCE: usize = 4;
    const ROUNDS: usize = 40;
    for _ in 0..ROUNDS {
        let dir = tempdir();
        let path = dir.path().join("spool");
        let start = Barrier::new(AT_ONCE);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    start.wait();
                    let spool = Spool::create(&path).unwrap();
                    accept(
                        &spool,
                        Entrance::Active,
                        "m",
                        "s@sender.test",
                        &["a@ok.test"],
                    );
                });
            }
        });
        let spool = Spool::open(&path).unwrap();
        assert_eq!(findings(&spool), []);
        assert_eq!(spool.listing().messages.len(), AT_ONCE);
    }
    println!("make at once: {ROUNDS} times by {AT_ONCE} threads");
}
