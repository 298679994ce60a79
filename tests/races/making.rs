//! Two processes make the same spool.

use std::path::PathBuf;

use mailspool::testing::message::Entrance;
use mailspool::testing::spool::Spool;

use super::explore::Bound;
use super::shared::{accept, files};
use super::stage::{Pair, Program, Said, Stage};

fn make() -> Program {
    Box::new(|case, seam| {
        let made = Spool::create_through(&case.path, Some(seam));
        made.map(|_| Said::Made).map_err(|error| error.to_string())
    })
}

#[test]
fn two_make_a_spool() {
    let stage = Stage::new(|_| {});
    let mut pair = Pair::new("make, make", &stage, [make(), make()], |case, _| {
        let left = files(&case.path);
        let staged = |path: &PathBuf| path.extension().is_some_and(|part| part == "part");
        assert!(left.iter().all(staged), "{left:?}");
        let spool = Spool::create(&case.path).unwrap();
        case.nothing_wrong();
        accept(
            &spool,
            Entrance::Active,
            "m",
            "s@sender.test",
            &["a@ok.test"],
        );
    });
    pair.empty = true;
    pair.holds(Bound::of(2).kills(0));
}
