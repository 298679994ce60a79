//! The orders that `spool-layout.md` relies on, undone one by one in the logs. Each undone order must cause a
//! violation, or state here why nothing is lost.

use mailspool::testing::message::Entrance;

use super::judge::RESUMED;
use super::log::Step;
use super::model::Renames;
use super::proof;
use super::stories::{self, mail, operate, repair};
use super::story::{Story, lies_in};
use super::teeth::{MAX_STATES, bite, left};

/// Returns the log with all steps that match `what` and come before the first step that matches `anchor` moved
/// to directly after that step.
pub fn later(
    steps: &[Step],
    what: impl Fn(&Step) -> bool,
    anchor: impl Fn(&Step) -> bool,
) -> Vec<Step> {
    let at = steps
        .iter()
        .position(anchor)
        .expect("nothing to move after");
    let (moved, mut kept): (Vec<Step>, Vec<Step>) = steps[..at].iter().cloned().partition(&what);
    assert!(!moved.is_empty(), "nothing to move");
    kept.push(steps[at].clone());
    kept.extend(moved);
    kept.extend_from_slice(&steps[at + 1..]);
    kept
}

/// An order, undone.
struct Undone {
    order: &'static str,
    steps: Vec<Step>,
    /// Why nothing is lost; none if a violation must be found.
    harmless: Option<&'static str>,
}

fn undone(order: &'static str, steps: Vec<Step>) -> Undone {
    Undone {
        order,
        steps,
        harmless: None,
    }
}

fn written(dir: &'static str) -> impl Fn(&Step) -> bool {
    move |step| matches!(step, Step::Write(path, _) if lies_in(path, dir))
}

fn renamed(from: &'static str, to: &'static str) -> impl Fn(&Step) -> bool {
    move |step| matches!(step, Step::Rename(a, b) if lies_in(a, from) && lies_in(b, to))
}

fn unlinked(dir: &'static str) -> impl Fn(&Step) -> bool {
    move |step| matches!(step, Step::Unlink(path) if lies_in(path, dir))
}

fn synced(dir: &'static str) -> impl Fn(&Step) -> bool {
    move |step| match step {
        Step::SyncFile(path) | Step::SyncDir(path) => lies_in(path, dir),
        _ => false,
    }
}

/// Matches all steps on a file, including its creation and its syncs.
fn touched(dir: &'static str) -> impl Fn(&Step) -> bool {
    move |step| match step {
        Step::Create(path) => lies_in(path, dir),
        other => written(dir)(other) || synced(dir)(other),
    }
}

/// Returns the story with a title that begins with `title`.
fn told<'a>(all: &'a [Story], title: &str) -> &'a Story {
    let named = |story: &&Story| story.title.starts_with(title);
    all.iter().find(named).expect("no such story")
}

fn reported(step: &Step) -> bool {
    matches!(step, Step::Acked(..) | Step::Did)
}

fn check(story: &Story, all: Vec<Undone>) {
    let left = left(story);
    let (count, mut found) = (all.len(), 0);
    let mut wrong = Vec::new();
    for Undone {
        order,
        steps,
        harmless,
    } in all
    {
        let most = if proof::long() {
            usize::MAX
        } else {
            MAX_STATES
        };
        // The common prefix leaves the same states as the story.
        let mut both = steps.iter().zip(&story.steps);
        let from = both.position(|(one, other)| one != other);
        let from = from.expect("nothing is undone");
        let (states, violation) = bite(story, &steps, from, &left, most);
        match (violation, harmless) {
            (Some(violation), _) => {
                found += 1;
                println!("not {order}, after {states} states: {violation}");
            }
            (None, Some(why)) => println!("not {order}, nothing in {states} states: {why}"),
            (None, None) => wrong.push(format!("not {order}: nothing in {states} states")),
        }
    }
    proof::count("mutations", count);
    proof::count("mutations found", found);
    assert!(wrong.is_empty(), "{}: {}", story.title, wrong.join("\n"));
}

#[test]
fn accepting() {
    let story = mail::accept(Entrance::Active);
    let steps = &story.steps;
    let whole = |step: &Step| matches!(step, Step::SyncFile(path) if lies_in(path, "new"));
    check(
        &story,
        vec![
            undone(
                "the message file is the first to exist",
                later(steps, touched("new"), written("info/sender")),
            ),
            undone(
                "a message is durable before it leaves new/",
                later(steps, whole, renamed("new", "active")),
            ),
            undone(
                "its new name is durable before the report",
                later(steps, synced("active"), reported),
            ),
        ],
    );
}

#[test]
fn an_outcome() {
    let story = mail::defer();
    let steps = &story.steps;
    check(
        &story,
        vec![
            undone(
                "a delivery is recorded before the message rests",
                later(steps, synced("active"), renamed("active", "deferred")),
            ),
            undone(
                "a bucket's name is durable before the first rename into it",
                later(
                    steps,
                    |step| matches!(step, Step::SyncDir(path) if path.ends_with("deferred")),
                    renamed("active", "deferred"),
                ),
            ),
        ],
    );
    let all = stories::in_parts();
    let twins = told(&all, "what one host puts off goes to the next");
    let next = |step: &Step| matches!(step, Step::Delivered(_, to) if to == stories::TWINS[1]);
    check(
        twins,
        vec![undone(
            "a delivery is recorded before another recipient is tried",
            later(&twins.steps, synced("active"), next),
        )],
    );
    let story = mail::due_again();
    let gone = |step: &Step| matches!(step, Step::Rmdir(_));
    let emptied = |step: &Step| matches!(step, Step::SyncDir(path) if lies_in(path, "deferred") && !path.ends_with("deferred"));
    check(
        &story,
        vec![undone(
            "a bucket is durably empty before it is removed",
            later(&story.steps, emptied, gone),
        )],
    );
}

#[test]
fn a_notice() {
    let all = mail::bounce();
    // The origin stays queued, so it could send a second notice.
    let story = &all[1];
    let steps = &story.steps;
    let told = |step: &Step| super::moments::noted_notice(step);
    let at = steps.iter().position(told).unwrap();
    // The syncs before the notice's file is created cover the cause; those after its record cover the record.
    let begun = steps
        .iter()
        .position(|step| matches!(step, Step::Create(path) if lies_in(path, "new")));
    let begun = begun.unwrap();
    let staged = steps[begun..at].iter().position(Step::is_sync).unwrap() + begun;
    let mut record_first = steps[..staged].to_vec();
    let released = steps
        .iter()
        .position(|step| renamed("staged", "active")(step))
        .unwrap();
    record_first.extend_from_slice(&steps[at..released]);
    record_first.extend_from_slice(&steps[staged..at]);
    record_first.extend_from_slice(&steps[released..]);
    let mut cause_last = Vec::new();
    let (causes, rest): (Vec<Step>, Vec<Step>) = steps[..begun]
        .iter()
        .cloned()
        .partition(|step| synced("history")(step));
    cause_last.extend(rest);
    cause_last.extend_from_slice(&steps[begun..at]);
    cause_last.extend(causes);
    cause_last.extend_from_slice(&steps[at..]);
    let mut record_last = steps[..at + 1].to_vec();
    let (records, rest): (Vec<Step>, Vec<Step>) = steps[at + 1..released]
        .iter()
        .cloned()
        .partition(Step::is_sync);
    let forgotten = steps
        .iter()
        .position(|step| unlinked("done")(step))
        .unwrap();
    record_last.extend(rest);
    record_last.extend_from_slice(&steps[released..=forgotten]);
    record_last.extend(records);
    record_last.extend_from_slice(&steps[forgotten + 1..]);
    check(
        story,
        vec![
            undone(
                "the cause is durable before the notice is staged",
                cause_last,
            ),
            undone("a notice is staged before it is recorded", record_first),
            undone("a notice is recorded before it may be gone", record_last),
        ],
    );
}

#[test]
fn an_operators_action() {
    let all = operate::hold();
    let (frozen, thawed, bounced) = (&all[0], &all[1], &all[3]);
    check(
        frozen,
        vec![undone(
            "a freeze is in the history before the rename",
            later(
                &frozen.steps,
                synced("history"),
                renamed("deferred", "frozen"),
            ),
        )],
    );
    let rename_last = |story: &Story| {
        let moved = |step: &Step| {
            renamed("frozen", "active")(step) || synced("frozen")(step) || synced("active")(step)
        };
        // The current state is made durable before that.
        let said = story.steps.iter().position(written("history")).unwrap();
        let (before, after) = story.steps.split_at(said);
        let (moved, mut steps): (Vec<Step>, Vec<Step>) = before.iter().cloned().partition(moved);
        let durable =
            |step: &Step| matches!(step, Step::SyncFile(path) if lies_in(path, "history"));
        let durable = after.iter().position(durable).unwrap() + 1;
        steps.extend_from_slice(&after[..durable]);
        steps.extend(moved);
        steps.extend_from_slice(&after[durable..]);
        steps
    };
    let order = "a released message is moved before the release is in the history";
    check(thawed, vec![undone(order, rename_last(thawed))]);
    check(bounced, vec![undone(order, rename_last(bounced))]);
    let away = &operate::throw_away()[0];
    check(
        away,
        vec![Undone {
            order: "a discard is in the history before the rename",
            steps: later(
                &away.steps,
                synced("history"),
                renamed("deferred", "discarded"),
            ),
            harmless: Some("not reported yet, and a run opens the bucket when it is due"),
        }],
    );
}

#[test]
fn a_request() {
    let all = operate::ask();
    let story = &all[0];
    let steps = &story.steps;
    let part = |step: &Step| matches!(step, Step::SyncFile(path) if lies_in(path, "requests"));
    check(
        story,
        vec![
            undone(
                "a request is whole before it has its name",
                later(steps, part, reported),
            ),
            undone(
                "a request is durable before it is reported",
                later(steps, synced("requests"), reported),
            ),
            undone("a request is unlinked after it has been handled", {
                let served = |step: &Step| {
                    unlinked("requests")(step) && !super::teeth::named(step).ends_with(".part")
                };
                let at = steps.iter().position(served).unwrap();
                let reported = steps.iter().position(reported).unwrap();
                let mut early = steps[..=reported].to_vec();
                early.extend_from_slice(&steps[at..at + 3]);
                early.extend_from_slice(&steps[reported + 1..at]);
                early.extend_from_slice(&steps[at + 3..]);
                early
            }),
        ],
    );
}

#[test]
fn forgetting() {
    let mut story = mail::deliver();
    story.renames = Renames::Atomic;
    let steps = &story.steps;
    let first = steps
        .iter()
        .position(|step| unlinked("info")(step) || unlinked("history")(step))
        .unwrap();
    let barrier = steps[..first]
        .iter()
        .rposition(|step| step.is_cut() && !step.is_sync())
        .unwrap()
        + 1;
    let last = steps
        .iter()
        .position(|step| unlinked("done")(step))
        .unwrap();
    let mut unlinks_first = steps[..barrier].to_vec();
    unlinks_first.extend_from_slice(&steps[first..=last]);
    unlinks_first.extend_from_slice(&steps[barrier..first]);
    unlinks_first.extend_from_slice(&steps[last + 1..]);
    let mut message_first = steps[..first].to_vec();
    message_first.push(steps[last].clone());
    message_first.extend_from_slice(&steps[first..last]);
    message_first.extend_from_slice(&steps[last + 1..]);
    check(
        &story,
        vec![
            undone("the barrier is before the unlinks", unlinks_first),
            undone("the message file is unlinked last", message_first),
        ],
    );
}

/// A message comes back without its history: what its block says must be durable by then.
#[test]
fn a_history_that_vanishes() {
    let all = stories::forgetting();
    // The log has the open file under the name by which it was opened.
    let file = |step: &Step| matches!(step, Step::SyncFile(path) if lies_in(path, "deferred"));
    let finished = |step: &Step| super::moments::said_done(step) || file(step);
    let story = told(&all, "a history vanishes that had told the sender");
    // An earlier unlink in `done/` is the notice's.
    let mut rest = (story.steps.iter()).skip_while(|step| !unlinked("history")(step));
    let last = rest.find(|step| unlinked("done")(step)).unwrap();
    let gone = |step: &Step| step == last;
    check(
        story,
        vec![undone(
            "a message's block says done before the message is in done/",
            later(&story.steps, finished, gone),
        )],
    );
}

#[test]
fn quarantine() {
    let story = repair::quarantine();
    let steps = &story.steps;
    let reason = |step: &Step| {
        matches!(step, Step::Create(path) if lies_in(path, "corrupt")) || written("corrupt")(step)
    };
    let removed = |step: &Step| unlinked("corrupt")(step);
    let left = steps
        .iter()
        .position(|step| renamed("corrupt", "active")(step))
        .unwrap();
    let unlink = steps[left..].iter().position(removed).unwrap() + left;
    let mut removed_first = steps[..left].to_vec();
    removed_first.push(steps[unlink].clone());
    removed_first.extend_from_slice(&steps[left..unlink]);
    removed_first.extend_from_slice(&steps[unlink + 1..]);
    check(
        &story,
        vec![
            undone(
                "the reason is there before the message",
                later(steps, reason, renamed("active", "corrupt")),
            ),
            undone("the reason goes after the message", removed_first),
        ],
    );
}

#[test]
fn a_maildir() {
    let story = mail::boxed();
    let steps = &story.steps;
    let data = |step: &Step| matches!(step, Step::SyncFile(path) if path.starts_with("box"));
    let named = |step: &Step| matches!(step, Step::Rename(_, to) if to.starts_with("box/new"));
    let name = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("box/new"));
    let forgotten = |step: &Step| unlinked("done")(step);
    check(
        &story,
        vec![
            undone(
                "a copy is durable before it has its name",
                later(steps, data, named),
            ),
            undone(
                "the name is durable before the message is forgotten",
                later(steps, name, forgotten),
            ),
        ],
    );
}

#[test]
fn sweeping() {
    let all = stories::accepting();
    let story = told(&all, "killed with a message sealed");
    check(
        story,
        vec![undone(
            "a message that was not accepted loses its view before its name",
            later(&story.steps, unlinked("info"), unlinked("new")),
        )],
    );
}

#[test]
fn a_key() {
    let all = stories::under_a_key();
    let first = told(&all, "submit under a key");
    let steps = &first.steps;
    let named = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("active"));
    let kept = renamed("keys/new", "keys");
    check(
        first,
        vec![
            undone(
                "a key's record is durable before the report",
                later(steps, synced("keys"), reported),
            ),
            undone(
                "a key's record is durable before its message is accepted",
                later(steps, synced("keys"), renamed("new", "active")),
            ),
            undone(
                "a key's record counts by itself only when its message is accepted",
                later(steps, named, &kept),
            ),
        ],
    );
    // In a spool that an older version made.
    let made = told(&all, "submit under the first key");
    let durable = |step: &Step| matches!(step, Step::SyncDir(_));
    let locks = |step: &Step| matches!(step, Step::Mkdir(path) if lies_in(path, "keys/lock"));
    check(
        made,
        vec![undone(
            "keys/lock/ is made when the others are durable",
            later(&made.steps, durable, locks),
        )],
    );
    let forgotten = told(&all, "killed with a key kept, and swept");
    let bucket = |step: &Step| {
        matches!(step, Step::SyncDir(path) if lies_in(path, "keys") && !path.ends_with("keys")
            && !path.ends_with("keys/new"))
    };
    check(
        forgotten,
        vec![undone(
            "a key's bucket is durable before its message is forgotten",
            later(&forgotten.steps, bucket, unlinked("done")),
        )],
    );
    let repeated = told(&all, "killed with a key entered, and repeated");
    check(
        repeated,
        vec![undone(
            "the name of a message is durable before another submission gets its id",
            later(&repeated.steps, named, reported),
        )],
    );
    let swept = told(&all, "killed with a key entered, and swept");
    check(
        swept,
        vec![undone(
            "the name of a message is durable before a run moves its key to its bucket",
            later(&swept.steps, named, &kept),
        )],
    );
}

#[test]
fn a_suspension() {
    let all = stories::suspending();
    let part = |step: &Step| matches!(step, Step::SyncFile(path) if lies_in(path, "suspended"));
    let linked = |step: &Step| matches!(step, Step::Link(_, to) if lies_in(to, "suspended"));
    let durable = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("spool") || lies_in(path, "suspended"));
    let (first, anew) = (&all[0], &all[1]);
    check(
        first,
        vec![
            undone(
                "a suspension is whole before it has its name",
                later(&first.steps, part, linked),
            ),
            undone(
                "a suspension is durable before it is reported",
                later(&first.steps, durable, reported),
            ),
        ],
    );
    check(
        anew,
        vec![undone(
            "a suspension is whole before it replaces another one",
            later(&anew.steps, part, renamed("suspended", "suspended")),
        )],
    );
    let resumed = all.iter().find(|story| story.title.starts_with(RESUMED));
    let resumed = resumed.unwrap();
    check(
        resumed,
        vec![undone(
            "a resumption is durable before it is reported",
            later(&resumed.steps, durable, reported),
        )],
    );
}

#[test]
fn a_history_that_is_written_anew() {
    let all = operate::hold();
    let story = told(&all, "bounce what is frozen");
    check(
        story,
        vec![undone(
            "a history is whole before it replaces the old one",
            later(
                &story.steps,
                |step| matches!(step, Step::SyncFile(path) if path.extension().is_some()),
                renamed("history", "history"),
            ),
        )],
    );
}

#[test]
fn a_fold() {
    let all = stories::folding();
    let deferred = told(&all, "fold at a deferral");
    check(
        deferred,
        vec![undone(
            "a folded history is whole before it replaces the old one",
            later(
                &deferred.steps,
                super::moments::rewritten_durably,
                super::moments::replaced,
            ),
        )],
    );
    let frozen = told(&all, "fold at a freeze");
    check(
        frozen,
        vec![undone(
            "a freeze is in the folded history before the rename",
            later(
                &frozen.steps,
                synced("history"),
                renamed("deferred", "frozen"),
            ),
        )],
    );
    let delayed = told(&all, "fold at a notice of a delay");
    let named = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("history"));
    check(
        delayed,
        vec![undone(
            "a notice is in the folded history before it may be gone",
            later(&delayed.steps, named, unlinked("done")),
        )],
    );
}

#[test]
fn for_later() {
    let all = stories::for_later();
    let story = &all[0];
    let acked = |step: &Step| matches!(step, Step::Acked(..));
    let named = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("deferred"));
    check(
        story,
        vec![undone(
            "the name of a release's bucket is durable before the report",
            later(&story.steps, named, acked),
        )],
    );
}

#[test]
fn an_answer_that_is_lost() {
    let all = stories::losing_answers();
    let story = told(&all, "an answer is lost, and it is frozen");
    let unknown = |step: &Step| matches!(step, Step::Write(_, bytes) if String::from_utf8_lossy(bytes).contains("unknown"));
    check(
        story,
        vec![undone(
            "the freeze is written before the lost answer",
            later(&story.steps, super::moments::noted_freeze, unknown),
        )],
    );
}
