//! Mutation tests of this bench: with a mistake, the exploration must find a schedule that fails.
//!
//! The code under test is unchanged. A seam below the hands makes the file system lie to it, with the same effect
//! as the mistake.

use std::fs;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use mailspool::testing::disk::{Call, Seam, Verdict};
use mailspool::testing::queue::{Action, QueueUntil, Then};
use nix::errno::Errno;

use super::attempts::staged;
use super::explore::Bound;
use super::programs::{order, pass, pass_to, showing};
use super::stage::{Case, End, Pair, Said, Stage, by};
use super::views::unseen;

/// Returns the seam of a mistake, for a spool.
type Mistake = fn(&Path) -> Arc<dyn Seam>;

/// Asserts that a schedule fails with the mistake in both processes.
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

/// Every process gets any lock.
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

/// After a lock, the name still seems to lead to the opened file: the file gets this name too, during the second
/// `stat` after the lock.
struct NoSecondLook {
    spool: PathBuf,
    /// The locked path, and the number of `stat` calls on it since.
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
                // The first `stat` is of the open file, the second of its name.
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
fn without_a_second_look_after_the_lock() {
    let stage = sent("a@first.test");
    let judge = one_end("a@first.test", End::Delivered);
    let pair = Pair::new("no second look", &stage, [pass(1), pass(20)], judge);
    bites(pair, |spool| Arc::new(NoSecondLook::new(spool)));
}

/// A rename into a removed bucket fails with an error that is not retried.
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

/// The files of a directory seem not to exist.
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
fn without_a_look_for_requests_after_the_lock() {
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

/// No message seems to have a history while `staged/` is swept.
#[derive(Default)]
struct NoOrigin {
    /// The last locked file is in `staged/`.
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

/// A sweep that ignores a notice's origin moves the notice on although the origin has not recorded it, and the
/// origin's holder sends another one.
#[test]
fn without_asking_for_the_origin_of_a_notice() {
    let stage = staged();
    let judge = one_end("a@no.test", End::Told);
    let pair = Pair::new("no origin", &stage, [pass(1), pass(1)], judge);
    bites(pair, |_| Arc::new(NoOrigin::default()));
}

/// Without the message's lock, a view may be written again after the message is gone.
#[test]
fn without_a_lock_for_the_view() {
    let stage = unseen("a@ok.test");
    let judge = one_end("a@ok.test", End::Delivered);
    let pair = Pair::new("no lock for the view", &stage, [showing(), pass(1)], judge);
    bites(pair, |spool| Arc::new(NoLocks(spool.to_owned())));
}

/// The in-use bit cannot be set, so interruptions are not counted.
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
