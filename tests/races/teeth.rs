//! What this bench is worth: with a mistake in it, the exploration finds a schedule that fails.
//!
//! The code under test stays as it is. A seam behind the hands makes the file system lie to it, in
//! a way that has the effect of the mistake.

use std::fs;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use mailspool::disk::{Call, Seam, Verdict};
use mailspool::queue::{Action, QueueUntil, Then};
use nix::errno::Errno;

use super::attempts::staged;
use super::explore::Bound;
use super::programs::{order, pass, pass_to, showing};
use super::stage::{Case, End, Pair, Said, Stage, by};
use super::views::unseen;

/// The seam of a mistake, for a spool.
type Mistake = fn(&Path) -> Arc<dyn Seam>;

/// With the mistake in both processes a schedule fails, and without it none of those does.
fn bites(pair: Pair<'_>, mistake: Mistake) {
    bites_with(pair, Bound::of(2), mistake);
}

fn bites_with(pair: Pair<'_>, bound: Bound, mistake: Mistake) {
    let below = move |_: usize, spool: &Path| Some(mistake(spool));
    let mistaken = Pair {
        below: &below,
        ..pair
    };
    let explored = mistaken.explore(bound);
    let failure = explored.failure.unwrap_or_else(|| {
        panic!("{}: nothing in {}", mistaken.name, explored.schedules);
    });
    let why = failure.lines().next().unwrap_or_default();
    let why: String = why.chars().take(160).collect();
    println!("after {} schedules: {why}", explored.schedules);
}

fn sent(to: &'static str) -> Stage {
    Stage::new(|stage| {
        stage.send(&[to]);
    })
}

fn one_end(to: &'static str, end: End) -> impl Fn(&Case<'_>, &[Said; 2]) {
    move |case, said| case.ends(said, &[(case.stage.ids[0], to, &[end])])
}

/// Whoever wants a lock gets it.
struct NoLocks(PathBuf);

impl Seam for NoLocks {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if let Call::Lock { path } = call {
            let name = path.file_name();
            let ours = |path: &PathBuf| path.starts_with(&self.0) && path.file_name() == name;
            for fd in fs::read_dir("/proc/self/fd").unwrap().flatten() {
                if fs::read_link(fd.path()).is_ok_and(|path| ours(&path)) {
                    let number: RawFd = fd.file_name().to_str().unwrap().parse().unwrap();
                    unlock(number);
                }
            }
        }
        Verdict::Pass
    }
}

#[allow(unsafe_code)]
fn unlock(fd: RawFd) {
    // SAFETY: no memory is passed; a descriptor that was closed meanwhile is an error, no more.
    let _ = unsafe { libc::flock(fd, libc::LOCK_UN) };
}

#[test]
fn without_locks() {
    let stage = sent("a@ok.test");
    let judge = one_end("a@ok.test", End::Delivered);
    let pair = Pair::new("no locks", &stage, [pass(1), pass(1)], judge);
    bites(pair, |spool| Arc::new(NoLocks(spool.to_owned())));
}

/// Behind a lock, the name still seems to lead to the file that was opened by it: it has this
/// name, too, as long as somebody looks.
struct NoSecondLook {
    spool: PathBuf,
    /// What was locked, and how many looks ago.
    locked: Mutex<Option<(PathBuf, usize)>>,
    made: Mutex<Option<PathBuf>>,
}

impl NoSecondLook {
    fn new(spool: &Path) -> NoSecondLook {
        NoSecondLook {
            spool: spool.to_owned(),
            locked: Mutex::default(),
            made: Mutex::default(),
        }
    }

    fn elsewhere(&self, name: &Path) -> Option<PathBuf> {
        let places = ["active", "deferred", "frozen"].map(|place| self.spool.join(place));
        let buckets = places[1..]
            .iter()
            .flat_map(|place| fs::read_dir(place).unwrap().flatten())
            .map(|bucket| bucket.path());
        let mut dirs: Vec<PathBuf> = buckets.collect();
        dirs.push(places[0].clone());
        dirs.into_iter()
            .map(|dir| dir.join(name))
            .find(|path| path.exists())
    }
}

impl Seam for NoSecondLook {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut locked = self.locked.lock().unwrap();
        match (call, &mut *locked) {
            (Call::Lock { path }, locked) => *locked = Some((path.to_path_buf(), 0)),
            (Call::Stat { path }, Some((at, looks))) if path == at => {
                *looks += 1;
                let name = self.spool.join(path);
                // The first look is at the open file, the second at its name.
                if *looks == 2
                    && !name.exists()
                    && let Some(other) = self.elsewhere(Path::new(path.file_name().unwrap()))
                {
                    fs::hard_link(other, &name).unwrap();
                    *self.made.lock().unwrap() = Some(name);
                }
            }
            _ => {}
        }
        Verdict::Pass
    }

    fn after(&self, _: &Call<'_>, _: Option<Errno>) {
        if let Some(made) = self.made.lock().unwrap().take() {
            fs::remove_file(made).unwrap();
        }
    }
}

#[test]
fn without_a_second_look_behind_the_lock() {
    let stage = sent("a@first.test");
    let judge = one_end("a@first.test", End::Delivered);
    let pair = Pair::new("no second look", &stage, [pass(1), pass(20)], judge);
    bites(pair, |spool| Arc::new(NoSecondLook::new(spool)));
}

/// A rename into a bucket that is gone fails for good.
struct NoRepetition(PathBuf);

impl Seam for NoRepetition {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Rename { to, .. } if !self.0.join(to.parent().unwrap()).exists() => {
                Verdict::Fail(Errno::EIO)
            }
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn without_repeating_for_a_bucket_that_went() {
    let stage = Stage::new(|stage| {
        stage.send(&["a@first.test"]);
        stage.bucket(QueueUntil::Deferred(stage.at(30)));
    });
    let programs = [pass_to(1, 30), pass_to(40, 90)];
    let judge = one_end("a@first.test", End::Delivered);
    let pair = Pair::new("no repetition", &stage, programs, judge);
    bites(pair, |spool| Arc::new(NoRepetition(spool.to_owned())));
}

/// Things seem not to be there.
struct Blind(&'static str);

impl Seam for Blind {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Stat { path } if path.parent() == Some(Path::new(self.0)) => {
                Verdict::Fail(Errno::ENOENT)
            }
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn without_a_look_for_requests_behind_the_lock() {
    let stage = sent("a@first.test");
    let freeze = Action::Freeze {
        by: by(),
        until: None,
        then: Then::Thaw,
    };
    let programs = [pass(1), order(freeze)];
    let pair = Pair::new("no look for requests", &stage, programs, |case, _| {
        case.nothing_asked();
    });
    bites(pair, |_| Arc::new(Blind("requests")));
}

/// To a sweeper of `staged/` no message seems to have a history.
#[derive(Default)]
struct NoOrigin {
    /// What was locked last is in `staged/`.
    sweeps: AtomicBool,
}

impl Seam for NoOrigin {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Lock { path } => self.sweeps.store(path.starts_with("staged"), SeqCst),
            Call::Open { path, .. } if path.starts_with("history") && self.sweeps.load(SeqCst) => {
                return Verdict::Fail(Errno::ENOENT);
            }
            _ => {}
        }
        Verdict::Pass
    }
}

/// A sweeper that does not ask for a notice's origin moves it on although the origin has not
/// recorded it, and the origin's holder tells again.
#[test]
fn without_asking_for_the_origin_of_a_notice() {
    let stage = staged();
    let judge = one_end("a@no.test", End::Told);
    let pair = Pair::new("no origin", &stage, [pass(1), pass(1)], judge);
    bites(pair, |_| Arc::new(NoOrigin::default()));
}

/// A view that is written again without the message's lock is written after the message is gone.
#[test]
fn without_a_lock_for_the_view() {
    let stage = unseen("a@ok.test");
    let judge = one_end("a@ok.test", End::Delivered);
    let pair = Pair::new("no lock for the view", &stage, [showing(), pass(1)], judge);
    bites(pair, |spool| Arc::new(NoLocks(spool.to_owned())));
}

/// The mark of a message in use that no process sees: interruptions go uncounted.
struct NoMark;

impl Seam for NoMark {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match call {
            Call::Chmod { .. } => Verdict::Fail(Errno::EOPNOTSUPP),
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn without_the_mark_of_a_message_in_use() {
    let stage = sent("a@ok.test");
    let pair = Pair::new("no mark", &stage, [pass(1), pass(2)], |case, said| {
        super::marks::is_counted(case, said);
        case.ends(said, &[(case.stage.ids[0], "a@ok.test", &[End::Delivered])]);
    });
    bites_with(pair, Bound::of(1).kills(1), |_| Arc::new(NoMark));
}
