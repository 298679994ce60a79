//! Whether what a power cut left is worked off as it must be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use mailspool::message::QueueId;
use mailspool::operator::act;
use mailspool::queue::{Action, History, Hold, QueueUntil, Status, What};
use mailspool::spool::{BucketQueue, Queue, Spool};

use super::explore::Case;
use super::forge::forge;
use super::log::Step;
use super::repair::{findings, is_leftover, problems, repair, said, strays};
use super::shared::{Clock, is_whole, tempdir, text};
use super::stage::{by, submit};
use super::story::{Story, UNRECORDED};
use super::tree::Tree;
use super::world::{Calm, Delivery, Known, Ledger, Site};

/// What may become of a message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    /// The sender got one notice.
    Told,
    /// It was delivered, and the sender got one notice that says so.
    Heard,
    /// It was delivered, and before that the sender got one notice that it takes long.
    Warned,
    /// The sender got one notice all the same: an operator gave it up when it was delivered
    /// already and the power cut took the record.
    Both,
    /// Stands in `frozen/never/`, and the history says why.
    Frozen,
    /// Stands in `corrupt/`.
    Corrupt,
    /// Nobody got it, and it is no more.
    Gone,
}

/// What must become of a message for a recipient, before what is done to it is reported as
/// done and after.
#[derive(Clone)]
pub struct Fate {
    pub name: &'static str,
    pub to: &'static str,
    pub before: Vec<End>,
    pub after: Vec<End>,
    /// Once it is reported as done, or the history says that an answer was lost, or must say so durably, not
    /// before so many minutes after the beginning.
    pub held: Option<i64>,
}

impl Fate {
    fn may(&self, end: End) -> bool {
        self.before.contains(&end) || self.after.contains(&end)
    }
}

/// When the story begins and when the power goes off, by the clock.
#[derive(Clone, Copy)]
pub struct Times {
    pub start: Timestamp,
    pub cut: Timestamp,
}

/// So many minutes after the beginning of a story somebody looks at what is held because an answer
/// was lost.
pub const LOOKED_AT: i64 = 120;

/// How the titles of stories begin in which something is resumed: once that is reported, nothing
/// is suspended.
pub const RESUMED: &str = "resumed";

/// More passes than any story needs.
const MAX_PASSES: usize = 16;

/// Opens the spool, works it off to the end, and says what is wrong. The first to look at it is
/// a run or an operator who has it mended.
pub fn judge(story: &Story, case: &Case, repaired: bool) -> Vec<String> {
    let _calm = Calm::for_mail_to(story.fates.iter().map(|fate| fate.to));
    let dir = tempdir();
    case.tree.write(dir.path());
    let forged = forge(case, dir.path());
    let spool = match Spool::open(&dir.path().join("spool")) {
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
    // A reader of the Maildir may be there at once.
    wrong.extend(torn_copies(&case.tree));
    if case.killed {
        // Nothing was lost, so no leftover has an excuse.
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
    // Before anything else is done, or when everything is.
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

/// Whether what was found is what a story is about, and no repair can mend.
fn is_for_a_person(story: &Story, what: &str) -> bool {
    story.title == UNRECORDED && what.contains("an outcome could not be recorded")
}

/// Hands the message in once more that has the key: it is the same, or now it is the first.
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

/// What was acknowledged has a name, until it is forgotten.
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

/// Passes, as long as something is due at some time. Says when that was over, and what went
/// wrong.
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
    // Whoever switches it on again needs a while.
    forward(1);
    let site = Site {
        dir,
        ledger,
        clock: &clock,
        start: story.times.start,
        recorder: story.recorder.as_ref().map(|recorder| (recorder, 0)),
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
            // Nobody's destination is down, but in the stories that say so.
            let may_be_down = story.title.starts_with("move to the probe's bucket")
                || story.title.contains("suspen")
                || story.title.starts_with(RESUMED)
                || story
                    .fates
                    .iter()
                    .any(|fate| fate.to.ends_with("@dead.test"));
            // A power cut may take the record of a deferral, and leave the message where it was put.
            if killed && !may_be_down {
                wrong.extend(put_off(spool));
            }
            // Two names of a message that is not due are nobody's business yet.
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

/// A person lets go what is held because an answer was lost.
fn thaw(spool: &Spool, now: Timestamp) {
    let held = |(_, queue): &(QueueId, Queue)| matches!(queue, Queue::Frozen(_));
    let ids = spool.listing().messages.into_iter().filter(held);
    let ids: Vec<QueueId> = ids.map(|(id, _)| id).collect();
    act(spool, &ids, &Action::Thaw(by()), now).unwrap();
}

/// The copies in the Maildir's `new/`: for each its message, its recipient, and what is below
/// the fields of its delivery.
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

/// Nothing torn is ever in the Maildir's `new/`.
fn torn_copies(tree: &Tree) -> Vec<String> {
    let copies = copies(tree).into_iter();
    let torn = copies.filter(|(_, _, bytes)| {
        let content = String::from_utf8_lossy(bytes);
        let subject = content
            .lines()
            .find_map(|line| line.strip_prefix("Subject: "));
        !subject.is_some_and(|subject| is_whole(bytes, &text(subject)))
    });
    torn.map(|(id, ..)| format!("{id} stands torn in the Maildir"))
        .collect()
}

/// Messages that are due before their bucket is. Within an hour `check` takes that for somebody
/// whose destination is down.
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
                "{id} is due at {due} and stands in {}",
                view.queue.dir().display()
            ));
        }
    }
    wrong
}

/// Whether some history says that the answer about this recipient was lost, as whoever waited for it
/// wrote down. Whoever finds an interrupted attempt names no transport.
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
    /// Nothing torn is ever delivered.
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

    /// Without a further cut nobody gets anything twice, and never what is settled.
    fn repeats(&mut self) {
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for one in &self.got {
            *counts.entry((one.id, one.to.clone())).or_default() += 1;
        }
        for (whom, count) in counts {
            if count > 1 {
                self.wrong.push(format!("{whom:?} {count} times"));
            }
            if self.known.settled.contains(&whom) {
                self.wrong.push(format!("{whom:?} again, though settled"));
            }
        }
    }

    /// Of messages under one key one is delivered, whoever was told of it.
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
        let whom = (*id, (*to).to_owned());
        let text = id.to_string();
        let now = self.got.iter().any(|one| one.id == *id && one.to == *to);
        let boxed = self.boxed.iter().any(|one| one.0 == text && one.1 == *to);
        let delivered = now || boxed || self.known.delivered.contains(&whom);
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
            // Others of its recipients may hold it there.
            (true, 0, Some(Queue::Frozen(_))) if may.contains(&End::Delivered) => {
                Some(End::Delivered)
            }
            _ => None,
        };
        if !end.is_some_and(|end| may.contains(&end)) {
            let what = format!(
                "delivered: {delivered}, notices: {notices}, of success {heard}, of delay {warned}, stands \
                 in {queue:?}"
            );
            self.wrong
                .push(format!("{name} for {to} should be {may:?}, but {what}"));
        }
    }

    /// Nobody gets what is held before its time.
    fn held(&mut self, fate: &Fate, start: Timestamp) {
        let Some(minutes) = fate.held else { return };
        let until = start + SignedDuration::from_mins(minutes);
        let acked = self.known.acked.get(fate.name);
        let mut theirs = self.got.iter();
        if theirs.any(|one| Some(&one.id) == acked && one.to == fate.to && one.at < until) {
            self.wrong.push(format!("{} too early", fate.to));
        }
    }

    /// Nothing is left but what must be, and that says why.
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
            // What a repair took for a leftover, and reasons, may be in `corrupt/`; who was moved
            // there wrongly does not meet his fate.
            let dir = path.parent().unwrap();
            let empty = ["spool/new", "spool/staged", "spool/done"];
            if empty.iter().any(|empty| dir == Path::new(empty)) {
                self.wrong.push(format!("{} is left", path.display()));
            }
        }
    }
}
