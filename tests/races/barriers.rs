//! Two processes accept at once, and one may make the barrier of both (`src/spool/together.rs`).
//!
//! Who waits for the other's barrier looks again and again. That goes on in vain as long as the
//! other does nothing, so the turn goes to him behind each look (see `stage::follow`).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use mailspool::disk::{Call, Method, Seam, Verdict};
use mailspool::message::Door;
use nix::errno::Errno;

use super::explore::Bound;
use super::programs::accepting;
use super::stage::{Case, End, Pair, Said, Stage};
use super::touch::Sees;
use super::trace::Trace;
use super::turns::Choice;

const TO: &[&str] = &["a@ok.test"];

/// Longer than anything here lasts.
const LONG: Duration = Duration::from_secs(3600);

const SYNCS: [Sees; 2] = [Sees {
    locks: false,
    syncs: true,
}; 2];

/// Barriers are shared.
struct Together {
    patience: Duration,
    /// Tickets are counted when the barrier is over, in this spool.
    late: Option<PathBuf>,
    /// It was over everything, but for the fsync that belongs to it.
    begun: AtomicBool,
}

impl Together {
    fn new(patience: Duration, late: Option<&Path>) -> Arc<Together> {
        Arc::new(Together {
            patience,
            late: late.map(Path::to_owned),
            begun: AtomicBool::new(false),
        })
    }
}

impl Seam for Together {
    fn before(&self, _: &Call<'_>) -> Verdict {
        Verdict::Pass
    }

    fn after(&self, call: &Call<'_>, _: Option<Errno>) {
        let Some(spool) = &self.late else { return };
        match call {
            Call::SyncFs => self.begun.store(true, SeqCst),
            Call::SyncDir { .. } if self.begun.load(SeqCst) => {
                let queue = spool.join("state/sync");
                let queue = OpenOptions::new().write(true).open(queue).unwrap();
                let tickets = queue.metadata().unwrap().len();
                let head = format!("{tickets:020} {tickets:020}\n");
                queue.write_all_at(head.as_bytes(), 0).unwrap();
            }
            _ => {}
        }
    }

    fn method(&self) -> Option<Method> {
        Some(Method::SyncExt)
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.patience)
    }
}

/// Everything that a process wrote of its message was covered before it said so: by a barrier,
/// whosever, that began behind its last write and was over before the message left `new/`.
fn covered(trace: &Trace, process: usize) -> Result<bool, String> {
    let calls: Vec<(usize, &str)> = trace
        .steps
        .iter()
        .filter(|step| matches!(step.choice, Choice::Go(_)))
        .map(|step| (step.process(), step.call()))
        .collect();
    let last = |begin: &str| {
        let is = |(who, call): &(usize, &str)| *who == process && call.starts_with(begin);
        calls.iter().rposition(is)
    };
    let (Some(written), Some(left)) = (last("write info/transport/"), last("rename new/")) else {
        return Err("it was not accepted".to_owned());
    };
    let between = &calls[written..left];
    let by = |who: usize| {
        let of = |name: &str| {
            let is = |(one, call): &(usize, &str)| *one == who && call.starts_with(name);
            between.iter().position(is)
        };
        match of("syncfs") {
            // One fsync is a part of it.
            Some(at) => between[at..]
                .iter()
                .any(|(one, call)| *one == who && call.starts_with("fsync")),
            None => false,
        }
    };
    match (by(process), by(1 - process)) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err("its files were in no barrier".to_owned()),
    }
}

fn judge(case: &Case<'_>, said: &[Said; 2]) -> usize {
    let mut served = 0;
    for (process, one) in said.iter().enumerate() {
        let Said::Accepted(id) = one else { continue };
        let by_other = covered(case.trace(), process).unwrap_or_else(|why| panic!("{why}"));
        served += usize::from(by_other);
        assert!(case.place(*id).is_some());
    }
    let accepted = said.iter().filter_map(|one| match one {
        Said::Accepted(id) => Some((*id, TO[0], &[End::Delivered][..])),
        _ => None,
    });
    case.ends(said, &accepted.collect::<Vec<_>>());
    served
}

fn two_accept(name: &str, patience: Duration) -> usize {
    let stage = Stage::new(|_| {});
    let served = std::cell::Cell::new(0);
    let programs = [accepting(Door::Active, TO), accepting(Door::Incoming, TO)];
    let pair = Pair::new(name, &stage, programs, |case, said| {
        served.set(served.get() + judge(case, said));
    });
    let below =
        |_: usize, _: &Path| -> Option<Arc<dyn Seam>> { Some(Together::new(patience, None)) };
    Pair {
        below: &below,
        sees: SYNCS,
        ..pair
    }
    .holds(Bound::of(2).kills(1));
    served.get()
}

#[test]
fn one_waits_for_the_other() {
    let served = two_accept("barrier, barrier", LONG);
    println!("served by the other's barrier: {served}");
    assert!(served > 0 || std::env::var_os("MAILSPOOL_RACE").is_some());
}

#[test]
fn nobody_has_patience() {
    two_accept("barrier, impatient", Duration::ZERO);
}

/// Tickets counted behind the barrier: who drew one meanwhile is told that he is served.
#[test]
fn with_tickets_counted_too_late() {
    let stage = Stage::new(|_| {});
    let programs = [accepting(Door::Active, TO), accepting(Door::Incoming, TO)];
    let mut pair = Pair::new("late tickets", &stage, programs, |case, said| {
        judge(case, said);
    });
    pair.sees = SYNCS;
    super::teeth::bites(pair, |spool| Together::new(LONG, Some(spool)));
}
