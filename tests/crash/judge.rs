//! Judges the recovery from a state that a power cut left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use mailspool::testing::message::QueueId;
use mailspool::testing::operator::act;
use mailspool::testing::queue::{Action, History, Hold, QueueUntil, Status, What};
use mailspool::testing::spool::{BucketQueue, Queue, Spool};

use super::explore::Case;
use super::forge::forge;
use super::log::Step;
use super::repair::{findings, is_leftover, problems, repair, said, strays};
use super::shared::{Clock, is_whole, tempdir, text};
use super::stage::{by, submit};
use super::story::{Story, UNRECORDED};
use super::tree::Tree;
use super::world::{Calm, Delivery, Known, Ledger, Site, folding};

/// The end of a message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    /// The sender got one notice.
    Told,
    /// It was delivered, and the sender got one success notice.
    Heard,
    /// It was delivered, after the sender got one delay notice.
    Warned,
    /// It was delivered, and the sender got one failure notice: the power cut took the record of the delivery, and
    /// then an operator bounced the message.
    Both,
    /// It is in `frozen/never/`, and the history says why.
    Frozen,
    /// It is in `corrupt/`.
    Corrupt,
    /// It was neither delivered nor bounced, and it is gone.
    Gone,
}

/// The permitted ends of a message for a recipient, before and after the story's action is reported as done.
#[derive(Clone)]
pub struct Fate {
    pub name: &'static str,
    pub to: &'static str,
    pub before: Vec<End>,
    pub after: Vec<End>,
    /// Minutes after the beginning before which it must not be delivered. Applies once the action is reported as
    /// done, once the history says that an answer was lost, and once the history must say so durably.
    pub held: Option<i64>,
}

impl Fate {
    fn may(&self, end: End) -> bool {
        self.before.contains(&end) || self.after.contains(&end)
    }
}

/// The times at which the story begins and the power is cut.
#[derive(Clone, Copy)]
pub struct Times {
    pub start: Timestamp,
    pub cut: Timestamp,
}

/// Minutes after the beginning of a story at which the operator thaws what is held because an answer was lost.
pub const LOOKED_AT: i64 = 120;

/// Title prefix of the stories that resume a suspension. Once that is reported, nothing is suspended.
pub const RESUMED: &str = "resumed";

/// Upper limit of passes per case; a case that needs more is a violation.
const MAX_PASSES: usize = 16;

/// Opens the spool, runs passes until nothing is left to do, and returns what is wrong. If `repaired`, a repair
/// comes before the first run.
pub fn judge(story: &Story, case: &Case, repaired: bool) -> Vec<String> {
    let _calm = Calm::for_mail_to(story.fates.iter().map(|fate| fate.to));
    let dir = tempdir();
    case.tree.write(dir.path());
    let forged = forge(case, dir.path());
    let spool = match Spool::open(&dir.path().join("spool")) {
        Ok(spool) if story.folds => folding(spool),
        Ok(spool) => spool,
        Err(error) => return vec![format!("the spool cannot be opened: {error}")],
    };
    let mut wrong = Vec::new();
    wrong.extend(missing(case));
    if story.title.starts_with(RESUMED)
        && case.known.did
        && !spool.suspended().is_ok_and(|all| all.is_empty())
    {
        wrong.push("what was resumed is suspended".to_owned());
    }
    // A reader may look into the Maildir before the recovery.
    wrong.extend(torn_copies(&case.tree));
    if case.killed {
        // A kill loses nothing, so it may leave no leftover.
        let before = strays(&story.base);
        let new = strays(&case.tree).into_iter();
        let new = new.filter(|stray| !before.contains(stray));
        wrong.extend(new.map(|stray| format!("a kill leaves {}", stray.display())));
    }
    if repaired {
        let found = repair(&spool, dir.path()).into_iter();
        wrong.extend(found.filter(|what| !is_for_a_person(story, what)));
    }
    let ledger = Ledger::default();
    let mut known = case.known.clone();
    // In every second case the submission is repeated before the recovery, and in all cases after it.
    if case.number.is_multiple_of(2) {
        wrong.extend(repeat(story, &spool, &mut known));
    }
    let work_off = |now| work_off(dir.path(), &spool, &ledger, story, now, case.killed);
    let (cut, worked) = work_off(case.known.now);
    wrong.extend(worked);
    let late = repeat(story, &spool, &mut known);
    if story.key.is_some() {
        wrong.extend(late);
        let (_, worked) = work_off(Some(cut));
        wrong.extend(worked);
    }
    let end = Tree::read(dir.path());
    let mut seen = Seen {
        spool: &spool,
        known: &known,
        got: ledger.all(),
        boxed: copies(&end),
        wrong: torn_copies(&end),
    };
    seen.bodies();
    seen.repeats();
    for fate in &story.fates {
        if story.key == Some(fate.name) {
            seen.once(fate);
        }
        seen.fate(fate);
        if known.did || known.is_put_off(fate) || answer_is_lost(&case.tree, fate) {
            seen.held(fate, story.times.start);
        }
    }
    seen.rest(&end, &story.fates);
    wrong.append(&mut seen.wrong);
    wrong.extend(findings(&spool));
    if let (Some(forged), Some(first)) = (forged, wrong.first_mut()) {
        *first = format!("with {forged}: {first}");
    }
    wrong
}

/// Whether a finding is the expected one of its story, which no repair can settle.
fn is_for_a_person(story: &Story, what: &str) -> bool {
    story.title == UNRECORDED && what.contains("an outcome could not be recorded")
}

/// Submits the message with the key once more: it must get the first id, unless it is now the first.
fn repeat(story: &Story, spool: &Spool, known: &mut Known) -> Option<String> {
    let name = story.key?;
    let fate = story.fates.iter().find(|fate| fate.name == name)?;
    let id = match submit(spool, name, fate.to, None) {
        Ok(id) => id,
        Err(error) => return Some(format!("{name} is not taken again: {error}")),
    };
    let first = *known.acked.entry(name).or_insert(id);
    (first != id).then(|| format!("{name} was accepted as {first}, and again as {id}"))
}

/// Returns the acknowledged messages that have no name although they are not forgotten.
fn missing(case: &Case) -> Vec<String> {
    let named = |id: &QueueId| {
        let id = id.to_string();
        let mut names = case.tree.names();
        let beside = ["spool/info", "spool/history", "spool/requests"];
        let beside = |path: &Path| beside.iter().any(|dir| path.starts_with(dir));
        names.any(|(path, _)| path.ends_with(&id) && !beside(path))
    };
    let acked = case.known.acked.iter();
    let lost = acked.filter(|(_, id)| !case.known.forgotten.contains(id) && !named(id));
    lost.map(|(name, _)| format!("{name} is lost")).collect()
}

/// Runs passes, moving the clock to the next due time, until nothing is due. Returns the time at the end and
/// what went wrong.
pub fn work_off(
    dir: &Path,
    spool: &Spool,
    ledger: &Ledger,
    story: &Story,
    now: Option<Timestamp>,
    killed: bool,
) -> (Timestamp, Vec<String>) {
    let clock = Clock::at(now.unwrap_or(story.times.cut));
    let forward = |minutes| {
        clock.forward(minutes);
        if let Some(recorder) = &story.recorder {
            recorder.mark(Step::Clock(clock.now()));
        }
    };
    // A restart takes a while.
    forward(1);
    let site = Site {
        dir,
        ledger,
        clock: &clock,
        start: story.times.start,
        recorder: story.recorder.as_ref().map(|recorder| (recorder, 0)),
        folds: story.folds,
    };
    let runner = site.runner(spool.clone());
    let may_be_corrupt = story.fates.iter().any(|fate| fate.may(End::Corrupt));
    let mut wrong = Vec::new();
    let mut looked_at = false;
    for number in 0..MAX_PASSES {
        match runner.pass() {
            Ok(summary) if summary.trouble == 0 && (summary.corrupt == 0 || may_be_corrupt) => {}
            other => wrong.push(format!("a pass ended with {other:?}")),
        }
        if number == 0 {
            let mut found = problems(spool, false);
            // Destinations are down only in the stories that say so.
            let may_be_down = story.title.starts_with("move to the probe's bucket")
                || story.title.contains("suspen")
                || story.title.starts_with(RESUMED)
                || story
                    .fates
                    .iter()
                    .any(|fate| fate.to.ends_with("@dead.test"));
            // A power cut may take the record of a deferral and keep the move to its bucket.
            if killed && !may_be_down {
                wrong.extend(put_off(spool));
            }
            // A run does not settle the two names of a message that is not due yet.
            found.retain(|finding| {
                !is_leftover(finding) && !finding.what.starts_with("one file with names")
            });
            found.retain(|finding| !is_for_a_person(story, &finding.what));
            let after = |one| said("check finds after a pass", one);
            wrong.extend(found.into_iter().map(after));
        }
        let all = BucketQueue::ALL.iter().flat_map(|kept| {
            let buckets = spool.buckets(*kept).unwrap();
            buckets
                .into_iter()
                .map(|bucket| (kept.queue(bucket), bucket.due()))
        });
        let mut dues: Vec<Timestamp> = Vec::new();
        for (queue, due) in all {
            if !spool.ids_in(queue).unwrap().is_empty() {
                dues.extend(due);
            }
        }
        let queues = [
            Queue::New,
            Queue::Staged,
            Queue::Incoming,
            Queue::Active,
            Queue::Done,
        ];
        let busy = queues
            .iter()
            .any(|queue| !spool.ids_in(*queue).unwrap().is_empty());
        match dues.iter().min() {
            Some(due) if *due > clock.now() => {
                let minutes = due.duration_since(clock.now()).as_secs() / 60 + 1;
                forward(minutes);
            }
            Some(_) => forward(1),
            None if busy => {}
            None if !looked_at && story.is_looked_at() => {
                looked_at = true;
                let end = story.times.start + SignedDuration::from_mins(LOOKED_AT);
                let left = end.duration_since(clock.now()).as_secs() / 60 + 1;
                forward(left.max(1));
                thaw(spool, clock.now());
            }
            None => return (clock.now(), wrong),
        }
    }
    wrong.push(format!("still at work after {MAX_PASSES} passes"));
    (clock.now(), wrong)
}

/// An operator thaws what is held because an answer was lost.
fn thaw(spool: &Spool, now: Timestamp) {
    let held = |(_, queue): &(QueueId, Queue)| matches!(queue, Queue::Frozen(_));
    let ids = spool.listing().messages.into_iter().filter(held);
    let ids: Vec<QueueId> = ids.map(|(id, _)| id).collect();
    act(spool, &ids, &Action::Thaw(by()), now).unwrap();
}

/// Returns the copies in the Maildir's `new/`: for each its message, its recipient, and the content below the
/// delivery's header fields.
fn copies(tree: &Tree) -> Vec<(String, String, Vec<u8>)> {
    let mut copies = Vec::new();
    for (path, bytes) in tree.files() {
        if !path.starts_with("box/new") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy();
        let id = name.split_once(".Q").unwrap().1;
        let id = id.split_once('R').unwrap().0.to_owned();
        let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
        let to = lines.by_ref().nth(1).unwrap_or_default();
        let to = String::from_utf8_lossy(to);
        let to = to.strip_prefix("Delivered-To: ").unwrap_or_default();
        let (to, rest) = (to.to_owned(), lines.next().unwrap_or_default());
        copies.push((id, to, rest.to_vec()));
    }
    copies
}

/// Returns the copies in the Maildir's `new/` that are torn. There must never be any.
fn torn_copies(tree: &Tree) -> Vec<String> {
    let copies = copies(tree).into_iter();
    let torn = copies.filter(|(_, _, bytes)| {
        let content = String::from_utf8_lossy(bytes);
        let subject = content
            .lines()
            .find_map(|line| line.strip_prefix("Subject: "));
        !subject.is_some_and(|subject| is_whole(bytes, &text(subject)))
    });
    torn.map(|(id, ..)| format!("{id} is torn in the Maildir"))
        .collect()
}

/// Returns the messages that are due before their bucket is. `check` accepts up to an hour of that, because it
/// is also how a message waits for a destination that is down.
fn put_off(spool: &Spool) -> Vec<String> {
    let listing = spool.listing();
    let mut wrong = Vec::new();
    for (id, queue) in &listing.messages {
        let view = spool.view(*id, *queue, &listing).unwrap().unwrap();
        let Ok(content) = view.content else { continue };
        let due = content.state.next_due();
        if let (Queue::Deferred(_), Hold::None, Some(due)) = (view.queue, &content.state.hold, due)
            && Queue::from(QueueUntil::Deferred(due)) < view.queue
        {
            wrong.push(format!(
                "{id} is due at {due} and is in {}",
                view.queue.dir().display()
            ));
        }
    }
    wrong
}

/// Whether a history says that the answer for this recipient was lost, recorded by the process that waited for
/// it. A process that finds an interrupted attempt records no transport.
fn answer_is_lost(tree: &Tree, fate: &Fate) -> bool {
    let histories = tree
        .files()
        .filter(|(path, _)| path.starts_with("spool/history"));
    let mut events =
        histories.flat_map(|(_, bytes)| History::parse(bytes).unwrap_or_default().events);
    events.any(|event| match event.what {
        What::Outcome {
            transport: Some(_),
            results,
            ..
        } => results
            .iter()
            .any(|result| result.status == Status::Unknown && result.recipient.as_str() == fate.to),
        _ => false,
    })
}

struct Seen<'a> {
    spool: &'a Spool,
    known: &'a Known,
    got: Vec<Delivery>,
    boxed: Vec<(String, String, Vec<u8>)>,
    wrong: Vec<String>,
}

impl Seen<'_> {
    /// Every delivery must be whole.
    fn bodies(&mut self) {
        for one in &self.got {
            let subject = one.fields("Subject:").first().cloned().unwrap_or_default();
            let notice = !one.fields("X-Mailspool-Id:").is_empty() && one.null_sender;
            let end = one.bytes.trim_ascii_end();
            let whole = if notice {
                end.ends_with(b"--") && !one.bytes.contains(&0)
            } else {
                is_whole(&one.bytes, &text(&subject))
            };
            if !whole {
                let id = one.id;
                self.wrong.push(format!("{id} was delivered torn"));
            }
        }
    }

    /// Without another cut no recipient gets a message twice, and none gets a message that is settled for it.
    fn repeats(&mut self) {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for one in &self.got {
            *counts.entry((one.id, one.to.clone())).or_default() += 1;
        }
        for (recipient, count) in counts {
            if count > 1 {
                self.wrong.push(format!("{recipient:?} {count} times"));
            }
            if self.known.settled.contains(&recipient) {
                self.wrong
                    .push(format!("{recipient:?} again, though settled"));
            }
        }
    }

    /// Of the messages under one key only one is delivered, whichever id was acknowledged.
    fn once(&mut self, fate: &Fate) {
        let now = self.got.iter().map(|one| (one.id, &one.to));
        let before = self.known.delivered.iter().map(|(id, to)| (*id, to));
        let all = now.chain(before).filter(|(_, to)| *to == fate.to);
        let ids: BTreeSet<QueueId> = all.map(|(id, _)| id).collect();
        if ids.len() > 1 {
            self.wrong.push(format!("{} as {ids:?}", fate.name));
        }
    }

    fn fate(&mut self, fate: &Fate) {
        let Fate { name, to, .. } = fate;
        let Some(id) = self.known.acked.get(name) else {
            return;
        };
        let may = if self.known.did {
            &fate.after
        } else {
            &fate.before
        };
        let recipient = (*id, (*to).to_owned());
        let text = id.to_string();
        let now = self.got.iter().any(|one| one.id == *id && one.to == *to);
        let boxed = self.boxed.iter().any(|one| one.0 == text && one.1 == *to);
        let delivered = now || boxed || self.known.delivered.contains(&recipient);
        let mut told: BTreeSet<_> = self.known.told.clone();
        for step in self.got.iter().flat_map(Delivery::steps) {
            if let Step::Told(notice, origin, to) = step {
                told.insert((notice, origin, to));
            }
        }
        let notices = |what: &str| {
            let about = format!("{what}{to}");
            told.iter()
                .filter(|(_, origin, to)| *origin == text && *to == about)
                .count()
        };
        let (heard, warned, notices) = (notices("delivered "), notices("delayed "), notices(""));
        let queue = self.spool.locate(*id).unwrap().queue();
        let end = match (delivered, notices, queue) {
            _ if heard > 1 || warned > 1 || heard + warned > 0 && may.contains(&End::Gone) => None,
            (true, 0, None) if heard == 1 => Some(End::Heard),
            (true, 0, None) if warned == 1 && !may.contains(&End::Delivered) => Some(End::Warned),
            (true, 0, None) => Some(End::Delivered),
            (false, 1, None) => Some(End::Told),
            (true, 1, None) => Some(End::Both),
            (false, 0, None) => Some(End::Gone),
            (false, 0, Some(Queue::Frozen(_))) => Some(End::Frozen),
            (false, 0, Some(Queue::Corrupt)) => Some(End::Corrupt),
            // The message may be held there for its other recipients.
            (true, 0, Some(Queue::Frozen(_))) if may.contains(&End::Delivered) => {
                Some(End::Delivered)
            }
            _ => None,
        };
        if !end.is_some_and(|end| may.contains(&end)) {
            let what = format!(
                "delivered: {delivered}, notices: {notices}, of success {heard}, of delay {warned}, is \
                 in {queue:?}"
            );
            self.wrong
                .push(format!("{name} for {to} should be {may:?}, but {what}"));
        }
    }

    /// What is held is not delivered before its time.
    fn held(&mut self, fate: &Fate, start: Timestamp) {
        let Some(minutes) = fate.held else { return };
        let until = start + SignedDuration::from_mins(minutes);
        let acked = self.known.acked.get(fate.name);
        let mut theirs = self.got.iter();
        if theirs.any(|one| Some(&one.id) == acked && one.to == fate.to && one.at < until) {
            self.wrong.push(format!("{} too early", fate.to));
        }
    }

    /// No message is left but those that a fate keeps, and the history of each says why.
    fn rest(&mut self, end: &Tree, fates: &[Fate]) {
        let listing = self.spool.listing();
        for (id, queue) in &listing.messages {
            let name = self.known.acked.iter().find(|(_, acked)| *acked == id);
            let may = |end: End| {
                name.is_some_and(|(name, _)| {
                    fates.iter().any(|fate| fate.name == *name && fate.may(end))
                })
            };
            let view = self.spool.view(*id, *queue, &listing).unwrap();
            let content = view.and_then(|view| view.content.ok());
            let held = content.is_some_and(|content| content.state.hold != Hold::None);
            let may_stay = match queue {
                Queue::Frozen(_) => held && may(End::Frozen),
                Queue::Corrupt => may(End::Corrupt),
                _ => false,
            };
            if !may_stay {
                self.wrong
                    .push(format!("{id} is left in {queue:?}, held: {held}"));
            }
        }
        for (path, _) in end.names() {
            // Reasons, and what a repair took for a leftover, may be in `corrupt/`. A message that was moved
            // there wrongly does not meet its fate.
            let dir = path.parent().unwrap();
            let empty = ["spool/new", "spool/staged", "spool/done"];
            if empty.iter().any(|empty| dir == Path::new(empty)) {
                self.wrong.push(format!("{} is left", path.display()));
            }
        }
    }
}
