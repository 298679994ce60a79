//! A sync that fails: every sync of a story in turn. The code goes on as it does then, and the
//! octets that the sync covered may be lost even if a later one succeeds.
//!
//! Behind the failure the power is cut behind every call, as in every story. What was
//! acknowledged, or reported as done, is judged like everywhere.

use mailspool::disk::Method;

use super::explore::explore_all;
use super::judge::End::{Delivered, Told};
use super::log::Step;
use super::proof;
use super::stage::Stage;
use super::stories::{A, NO};
use super::story::{Story, fate};

type Deed = fn(&Stage);

/// Tells a story once for each sync in it, that one failing; in the ordinary run for one in three.
fn tell(title: &str, method: Method, fates: &[super::judge::Fate], prepare: Deed, deed: Deed) {
    let mut all = Vec::new();
    for number in 0.. {
        let title = format!("{title}, sync {number} fails");
        let story = Story::record(&title, method, fates.to_vec(), prepare, |stage| {
            stage.recorder().fail_sync(number);
            deed(stage);
        });
        if !story
            .steps
            .iter()
            .any(|step| matches!(step, Step::Failed(_)))
        {
            break;
        }
        all.push(story);
    }
    assert!(!all.is_empty(), "no sync in {title}");
    let step = if proof::long() { 1 } else { 3 };
    explore_all(all.into_iter().step_by(step).collect());
}

/// The message is there or it is not, whatever happened.
#[test]
fn accepting() {
    let fates = [fate("one", A, Delivered), fate("one", NO, Told)];
    for method in [Method::Each, Method::SyncExt] {
        let deed: Deed = |stage| stage.send("one", &[A, NO]);
        tell("accept", method, &fates, |_| {}, deed);
    }
}
