//! Whether what a power cut left is worked off as it must be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use mailspool::operator::{Finding, Level, check};
use mailspool::queue::Hold;
use mailspool::spool::{Kept, Place, Spool};

use super::shared::{Clock, is_whole, tempdir, text};
use super::tree::Tree;
use super::world::{Delivery, Known, Ledger, runner};

/// What may become of a message for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Delivered,
    /// The sender got one notice.
    Told,
    /// Stands in `frozen/never/`, and the history says why.
    Frozen,
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
}

/// When the story begins and when the power goes off, by the clock.
#[derive(Clone, Copy)]
pub struct Times {
    pub start: Timestamp,
    pub cut: Timestamp,
}

/// More passes than any story needs.
const MOST_PASSES: usize = 12;

/// Opens the spool, works it off to the end, and says what is wrong. The first to look at it is
/// a run or an operator who has it mended.
pub fn judge(
    tree: &Tree,
    known: &Known,
    fates: &[Fate],
    times: Times,
    mended: bool,
) -> Vec<String> {
    let dir = tempdir();
    tree.write(dir.path());
    let path = dir.path().join("spool");
    let spool = match Spool::open(&path) {
        Ok(spool) => spool,
        Err(error) => return vec![format!("the spool cannot be opened: {error}")],
    };
    if mended {
        problems(&spool, true);
    }
    let ledger = Ledger::default();
    let (_, mut wrong) = work_off(&spool, &ledger, times);
    let mut seen = Seen {
        spool: &spool,
        known,
        got: ledger.all(),
        wrong: Vec::new(),
    };
    seen.bodies();
    seen.repeats();
    fates.iter().for_each(|fate| seen.fate(fate));
    seen.rest(&path, fates);
    wrong.append(&mut seen.wrong);
    wrong.extend(findings(&spool));
    wrong
}

/// Passes, as long as something is due at some time. Says when that was over, and what went
/// wrong.
pub fn work_off(spool: &Spool, ledger: &Ledger, times: Times) -> (Timestamp, Vec<String>) {
    let clock = Clock::at(times.cut);
    let runner = runner(spool.clone(), ledger, &clock, times.start);
    let mut wrong = Vec::new();
    for number in 0..MOST_PASSES {
        match runner.pass() {
            Ok(summary) if (summary.corrupt, summary.trouble) == (0, 0) => {}
            other => wrong.push(format!("a pass ended with {other:?}")),
        }
        if number == 0 {
            let mut found = problems(spool, false);
            // Two names of a message that is not due are nobody's business yet.
            found.retain(|one| !is_leftover(one) && !one.what.starts_with("one file with names"));
            wrong.extend(
                found
                    .into_iter()
                    .map(|one| said("check finds after a pass", one)),
            );
        }
        let all = Kept::ALL.iter().flat_map(|kept| {
            let buckets = spool.buckets(*kept).unwrap();
            buckets
                .into_iter()
                .map(|bucket| (kept.place(bucket), bucket.due()))
        });
        let mut dues: Vec<Timestamp> = Vec::new();
        for (place, due) in all {
            if !spool.ids_in(place).unwrap().is_empty() {
                dues.extend(due);
            }
        }
        let busy = [Place::New, Place::Incoming, Place::Active, Place::Done]
            .iter()
            .any(|place| !spool.ids_in(*place).unwrap().is_empty());
        match dues.iter().min() {
            Some(due) if *due > clock.now() => {
                let minutes = due.duration_since(clock.now()).as_secs() / 60 + 1;
                clock.forward(minutes);
            }
            Some(_) => clock.forward(1),
            None if busy => {}
            None => return (clock.now(), wrong),
        }
    }
    wrong.push(format!("still at work after {MOST_PASSES} passes"));
    (clock.now(), wrong)
}

struct Seen<'a> {
    spool: &'a Spool,
    known: &'a Known,
    got: Vec<Delivery>,
    wrong: Vec<String>,
}

impl Seen<'_> {
    /// Nothing torn is ever delivered.
    fn bodies(&mut self) {
        for one in &self.got {
            let subject = one.fields("Subject:").first().cloned().unwrap_or_default();
            let notice = !one.fields("X-Mailspool-Id:").is_empty() && one.null_sender;
            let end = one.bytes.trim_ascii_end();
            let whole = match notice {
                true => end.ends_with(b"--") && !one.bytes.contains(&0),
                false => is_whole(&one.bytes, &text(&subject)),
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

    fn fate(&mut self, fate: &Fate) {
        let Fate { name, to, .. } = fate;
        let Some(id) = self.known.acked.get(name) else {
            return;
        };
        let may = match self.known.did {
            true => &fate.after,
            false => &fate.before,
        };
        let whom = (*id, (*to).to_owned());
        let now = self.got.iter().any(|one| one.id == *id && one.to == *to);
        let delivered = now || self.known.delivered.contains(&whom);
        let mut told: std::collections::BTreeSet<_> = self.known.told.clone();
        for step in self.got.iter().flat_map(Delivery::steps) {
            if let super::log::Step::Told(notice, origin, to) = step {
                told.insert((notice, origin, to));
            }
        }
        let notices = told
            .iter()
            .filter(|(_, origin, about)| *origin == id.to_string() && about == to)
            .count();
        let place = self.spool.locate(*id).unwrap();
        let end = match (delivered, notices, place) {
            (true, 0, None) => Some(End::Delivered),
            (false, 1, None) => Some(End::Told),
            (false, 0, None) => Some(End::Gone),
            (false, 0, Some(Place::Frozen(_))) => Some(End::Frozen),
            // Others of its recipients may hold it there.
            (true, 0, Some(Place::Frozen(_))) if may.contains(&End::Delivered) => {
                Some(End::Delivered)
            }
            _ => None,
        };
        if !end.is_some_and(|end| may.contains(&end)) {
            let what = format!("delivered: {delivered}, notices: {notices}, stands in {place:?}");
            self.wrong
                .push(format!("{name} for {to} should be {may:?}, but {what}"));
        }
    }

    /// Nothing is left but what must be, and that says why.
    fn rest(&mut self, path: &Path, fates: &[Fate]) {
        let listing = self.spool.listing().unwrap();
        for (id, place) in &listing.messages {
            let name = self.known.acked.iter().find(|(_, acked)| *acked == id);
            let may_stay = name.is_some_and(|(name, _)| {
                let frozen = |fate: &Fate| {
                    fate.name == *name
                        && [&fate.before, &fate.after]
                            .iter()
                            .any(|ends| ends.contains(&End::Frozen))
                };
                fates.iter().any(frozen)
            });
            let view = self.spool.view(*id, *place, &listing).unwrap();
            let content = view.and_then(|view| view.content.ok());
            let held = content.is_some_and(|content| content.state.hold != Hold::None);
            if !(may_stay && held && matches!(place, Place::Frozen(_))) {
                self.wrong
                    .push(format!("{id} is left in {place:?}, held: {held}"));
            }
        }
        for dir in ["new", "corrupt", "done"] {
            for entry in fs::read_dir(path.join(dir)).unwrap() {
                let name = entry.unwrap().file_name();
                let name = name.to_string_lossy().into_owned();
                // What a repair took for a leftover; if it was none, a fate is not met.
                if dir == "corrupt" && name.contains('.') && !name.ends_with(".reason") {
                    continue;
                }
                self.wrong.push(format!("{dir}/{name} is left"));
            }
        }
    }
}

/// What the operator would see: nothing but `info/` files without a message, and nothing any
/// more when that is mended.
fn findings(spool: &Spool) -> Vec<String> {
    let found = problems(spool, false);
    if found.is_empty() {
        return Vec::new();
    }
    let found = found.into_iter().filter(|one| !is_leftover(one));
    let mut wrong: Vec<String> = found.map(|one| said("check finds", one)).collect();
    problems(spool, true);
    let after = problems(spool, false).into_iter();
    wrong.extend(after.map(|one| said("check still finds", one)));
    wrong
}

fn problems(spool: &Spool, repair: bool) -> Vec<Finding> {
    let mut found = check(spool, repair).unwrap();
    found.retain(|one| one.level == Level::Problem);
    found
}

/// Of a message that was never acknowledged, or is forgotten.
fn is_leftover(one: &Finding) -> bool {
    one.path.starts_with("info") && one.what == "belongs to no message"
}

fn said(when: &str, one: Finding) -> String {
    format!("{when}: {}: {}", one.path.display(), one.what)
}
