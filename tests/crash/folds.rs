//! A fold leaves the old history or the new one, whole, in every state.

use std::collections::HashSet;
use std::path::Path;

use super::explore::Cases;
use super::log::Step;
use super::model::Renames;
use super::moments::rewritten;
use super::stories::fold;

#[test]
fn the_old_history_or_the_folded_one() {
    for renames in [Renames::Loose, Renames::Atomic] {
        for story in [fold::deferral(), fold::delay(), fold::held()] {
            let id = story.known.acked["one"];
            let path = Path::new("spool/history").join(id.to_string());
            let old = story.base.files().find(|(name, _)| *name == path);
            let old = old.unwrap().1.to_vec();
            let folded = |step: &Step| match step {
                Step::Overwrite(_, 0, bytes) if rewritten(step) => Some(bytes.clone()),
                _ => None,
            };
            let folded: Vec<_> = story.steps.iter().filter_map(folded).collect();
            let [new] = &folded[..] else {
                panic!("{}: {} folds", story.title, folded.len());
            };
            let mut seen = HashSet::new();
            for case in Cases::of(&story.base, &story.known, &story.steps, renames) {
                let found = case.tree.files().find(|(name, _)| *name == path);
                let found = found.map(|(_, bytes)| bytes.to_vec());
                let is_whole = found == Some(old.clone()) || found.as_ref() == Some(new);
                let text = found.as_deref().map(String::from_utf8_lossy);
                assert!(is_whole, "{}: after {}: {text:?}", story.title, case.last);
                seen.insert(found);
            }
            assert_eq!(seen.len(), 2, "{}", story.title);
        }
    }
}
