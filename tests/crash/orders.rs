//! The orders that `spool-layout.md` relies on, undone one by one in the logs: each must be found,
//! or it is said here why nothing is lost.

use mailspool::disk::Method;
use mailspool::message::Door;

use super::judge::RESUMED;
use super::log::Step;
use super::proof;
use super::stories::{self, mail, mend, operate};
use super::story::{Story, lies_in};
use super::teeth::{MOST_STATES, bite, left};

/// The log with those steps that are of one kind and come before the first of another kind moved
/// right behind it.
pub fn later(
    steps: &[Step],
    what: impl Fn(&Step) -> bool,
    behind: impl Fn(&Step) -> bool,
) -> Vec<Step> {
    let at = steps
        .iter()
        .position(behind)
        .expect("nothing to move behind");
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
    /// Why nothing is lost, if that is so.
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

/// Everything that is done to a file, its making and its syncs included.
fn touched(dir: &'static str) -> impl Fn(&Step) -> bool {
    move |step| match step {
        Step::Create(path) => lies_in(path, dir),
        other => written(dir)(other) || synced(dir)(other),
    }
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
            MOST_STATES
        };
        let (states, violation) = bite(story, &steps, 0, &left, most);
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
    let story = mail::accept(Method::Each, Door::Active);
    let steps = &story.steps;
    let info = |step: &Step| synced("info")(step) || synced("new")(step);
    check(
        &story,
        vec![
            undone(
                "the message file is the first to exist",
                later(steps, touched("new"), written("info/sender")),
            ),
            undone(
                "the barrier is before the rename",
                later(steps, info, renamed("new", "active")),
            ),
            undone(
                "the barrier is before the report",
                later(steps, info, reported),
            ),
            Undone {
                order: "the seal is written last",
                steps: later(steps, written("info/sender"), written("info/transport")),
                harmless: Some("it is a checksum, not a flag: without the rest it fits nothing"),
            },
        ],
    );
}

#[test]
fn an_outcome() {
    let story = mail::defer(Method::Each);
    let steps = &story.steps;
    check(
        &story,
        vec![
            undone(
                "an outcome is recorded before the message rests",
                later(steps, synced("history"), renamed("active", "deferred")),
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
    let story = mail::due_again(Method::Each);
    let gone = |step: &Step| matches!(step, Step::Rmdir(_));
    let emptied = |step: &Step| matches!(step, Step::SyncDir(path) if lies_in(path, "deferred") && !path.ends_with("deferred"));
    check(
        &story,
        vec![undone(
            "a bucket's emptiness is durable before it is removed",
            later(&story.steps, emptied, gone),
        )],
    );
}

#[test]
fn a_notice() {
    let all = mail::bounce(Method::Each);
    // The origin stays, so that it could tell again.
    let story = &all[1];
    let steps = &story.steps;
    let told = |step: &Step| super::moments::noted_notice(step);
    let at = steps.iter().position(told).unwrap();
    // What is synced before the notice is begun is the cause, what behind its record the record.
    let begun = steps
        .iter()
        .position(|step| matches!(step, Step::Create(path) if lies_in(path, "new")));
    let begun = begun.unwrap();
    let staged = steps[begun..at].iter().position(Step::is_sync).unwrap() + begun;
    let mut record_first = steps[..staged].to_vec();
    let released = steps
        .iter()
        .position(|step| renamed("new", "active")(step))
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
fn an_operators_word() {
    let all = operate::hold(Method::Each);
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
        later(&story.steps, moved, |step| {
            synced("history")(step) && matches!(step, Step::SyncFile(_))
        })
    };
    let order = "what is let go is moved before that is in the history";
    check(thawed, vec![undone(order, rename_last(thawed))]);
    check(bounced, vec![undone(order, rename_last(bounced))]);
    let away = &operate::throw_away(Method::Each)[0];
    check(
        away,
        vec![Undone {
            order: "a discard is in the history before the rename",
            steps: later(
                &away.steps,
                synced("history"),
                renamed("deferred", "discarded"),
            ),
            harmless: Some("not reported yet, and the bucket is looked into when its time comes"),
        }],
    );
}

#[test]
fn a_request() {
    let all = operate::ask(Method::Each);
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
            undone("it is unlinked when it has been served", {
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
    let story = mail::life(Method::Each);
    let steps = &story.steps;
    let first = steps
        .iter()
        .position(|step| unlinked("info/transport")(step))
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
    let mut sender_first = steps[..first].to_vec();
    sender_first.push(steps[last - 1].clone());
    sender_first.extend_from_slice(&steps[first..last - 1]);
    sender_first.extend_from_slice(&steps[last..]);
    check(
        &story,
        vec![
            undone("the barrier is before the unlinks", unlinks_first),
            undone("the message file is unlinked last", message_first),
            Undone {
                order: "the sender is unlinked last of info/",
                steps: sender_first,
                harmless: Some("only who asks at that moment whether it exists would be misled"),
            },
        ],
    );
}

#[test]
fn quarantine() {
    let story = mend::quarantine(Method::Each);
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
    let story = mail::boxed(Method::Each);
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
fn moving_on() {
    let all = stories::accepting(Method::Each);
    let story = &all[0];
    let barrier = |step: &Step| synced("new")(step) || synced("info")(step);
    check(
        story,
        vec![undone(
            "what is moved on is made durable before",
            later(&story.steps, barrier, renamed("new", "active")),
        )],
    );
}

#[test]
fn a_key() {
    let all = stories::under_a_key(Method::Each);
    let told = |title: &str| all.iter().find(|story| story.title.starts_with(title));
    let first = told("submit under a key,").unwrap();
    let steps = &first.steps;
    let barrier = |step: &Step| ["new", "info", "keys"].iter().any(|dir| synced(dir)(step));
    let kept = renamed("keys/new", "keys");
    check(
        first,
        vec![
            undone(
                "a key's record is durable before the report",
                later(steps, synced("keys"), reported),
            ),
            undone(
                "a key's record counts by itself behind the barrier only",
                later(steps, barrier, &kept),
            ),
            Undone {
                order: "a key's record is in its bucket before the message leaves new/",
                steps: later(steps, &kept, renamed("new", "active")),
                harmless: Some("in keys/new/ it counts as long as its message is there"),
            },
        ],
    );
    // In a spool that an older program made.
    let made = told("submit under the first key,").unwrap();
    let durable = |step: &Step| matches!(step, Step::SyncDir(_));
    let locks = |step: &Step| matches!(step, Step::Mkdir(path) if lies_in(path, "keys/lock"));
    check(
        made,
        vec![undone(
            "keys/lock/ is made when the others are durable",
            later(&made.steps, durable, locks),
        )],
    );
    let forgotten = told("killed with a key kept, and swept,").unwrap();
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
    let anew = told("killed with a key durable, and repeated,").unwrap();
    let whole = |step: &Step| matches!(step, Step::SyncFile(path) if lies_in(path, "new"));
    let killed = anew
        .steps
        .iter()
        .position(|step| matches!(step, Step::Killed));
    let (before, behind) = anew.steps.split_at(killed.unwrap());
    let behind = later(behind, whole, renamed("new", "info/transport"));
    check(
        anew,
        vec![Undone {
            order: "what is written anew is whole before it has the old one's name",
            steps: [before, behind.as_slice()].concat(),
            harmless: Some("nobody was told yet, and the barrier comes before anybody is"),
        }],
    );
}

#[test]
fn a_suspension() {
    let all = stories::suspending(Method::Each);
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
            "a suspension is whole before it takes another one's place",
            later(&anew.steps, part, renamed("suspended", "suspended")),
        )],
    );
    let resumed = all.iter().find(|story| story.title.starts_with(RESUMED));
    let resumed = resumed.unwrap();
    check(
        resumed,
        vec![
            undone(
                "that it is resumed is durable before it is reported",
                later(&resumed.steps, durable, reported),
            ),
            // Somebody was delivered to, and the message does not rest where its history says.
            undone(
                "a history is whole before it takes the old one's place",
                later(
                    &resumed.steps,
                    |step| matches!(step, Step::SyncFile(path) if lies_in(path, "history")),
                    renamed("history", "history"),
                ),
            ),
        ],
    );
}

#[test]
fn for_later() {
    let all = stories::for_later(Method::Each);
    let story = &all[0];
    let acked = |step: &Step| matches!(step, Step::Acked(..));
    let named = |step: &Step| matches!(step, Step::SyncDir(path) if path.ends_with("deferred"));
    check(
        story,
        vec![undone(
            "the bucket of a release has its name durably before the report",
            later(&story.steps, named, acked),
        )],
    );
}

#[test]
fn an_answer_that_is_lost() {
    let all = stories::losing_answers(Method::Each);
    let told = |story: &&Story| {
        story
            .title
            .starts_with("an answer is lost, and it is frozen")
    };
    let story = all.iter().find(told).unwrap();
    let unknown = |step: &Step| matches!(step, Step::Write(_, bytes) if String::from_utf8_lossy(bytes).contains("unknown"));
    check(
        story,
        vec![undone(
            "that it is frozen is written before that its answer was lost",
            later(&story.steps, super::moments::noted_freeze, unknown),
        )],
    );
}
