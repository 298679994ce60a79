//! Making a spool.

use std::path::Path;
use std::sync::Arc;

use mailspool::disk::{Method, Seam};
use mailspool::message::Door;
use mailspool::operator::Level;
use mailspool::spool::{Error, Spool};

use super::explore::{Case, cases, run};
use super::log::{Recorder, Step};
use super::model::Model;
use super::shared::{accept, findings, tempdir};
use super::tree::Tree;
use super::world::Known;

fn judge(case: &Case) -> Vec<String> {
    let dir = tempdir();
    case.tree.write(dir.path());
    let path = dir.path().join("above/spool");
    let mut wrong = Vec::new();
    match (Spool::open(&path), case.known.did) {
        (Ok(_), _) | (Err(Error::Missing(_)), false) => {}
        (Err(error), _) => wrong.push(format!("made, and yet: {error}")),
    }
    match Spool::create(&path, None) {
        Err(error) => wrong.push(format!("it cannot be made: {error}")),
        Ok(spool) => {
            let mut found = findings(&spool);
            found.retain(|one| one.level > Level::Note);
            wrong.extend(found.into_iter().map(|one| format!("{one:?}")));
            accept(&spool, Door::Active, "m", "s@sender.test", &["a@ok.test"]);
        }
    }
    wrong
}

#[test]
fn making() {
    for method in [Method::Each, Method::SyncExt] {
        let dir = tempdir();
        let path = dir.path().join("above/spool");
        let recorder = Arc::new(Recorder::new(dir.path(), &path, method));
        let seam: Arc<dyn Seam> = recorder.clone();
        Spool::create(&path, Some(seam)).unwrap();
        recorder.mark(Step::Did);
        let base = Tree::default();
        let mut model = Model::of(&base);
        let (cuts, cases) = cases(&base, &Known::default(), &recorder.steps(), &mut model);
        assert_eq!(model.now().numbered(), Tree::read(Path::new(dir.path())));
        let tally = run(cuts, &cases, usize::MAX, judge);
        let title = format!("make a spool, {method:?}");
        tally.print(&title);
        tally.assert_none(&title);
    }
}
