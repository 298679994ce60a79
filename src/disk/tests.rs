use std::sync::atomic::AtomicUsize;

use super::*;

/// Answers this many calls with `ESTALE`.
struct Stale(AtomicUsize);

impl Seam for Stale {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let is_left = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        match call {
            Call::OpenRoot { .. } => Verdict::Pass,
            _ if self.0.fetch_update(order, order, is_left).is_ok() => Verdict::Fail(Errno::ESTALE),
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn what_is_stale_is_looked_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = Path::new("x");
    let disk = |times| {
        let stale = Arc::new(Stale(AtomicUsize::new(times)));
        Disk::open(dir.path(), Some(stale)).unwrap()
    };
    assert!(disk(3).stat(path).unwrap().is_none());
    assert!(disk(3).list(Path::new(".")).unwrap().is_empty());
    assert!(disk(3).open_read(path).unwrap_err().is_absent());
    // Without an end, or where the effect of the call is not known, it is an error.
    let stale = disk(1000).stat(path).unwrap_err();
    assert!(stale.is(Errno::ESTALE), "{stale}");
    let stale = disk(1).unlink(path).unwrap_err();
    assert!(stale.is(Errno::ESTALE), "{stale}");
}

/// A child process has copies of all descriptors until its `exec`.
#[test]
fn dropping_a_file_releases_its_lock_although_the_descriptor_has_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), None).unwrap();
    let path = Path::new("x");
    let file = disk.create(path).unwrap();
    assert!(disk.try_lock(&file).unwrap());
    let copy = file.file.try_clone().unwrap();
    let other = disk.open_rw(path).unwrap();
    assert!(!disk.try_lock(&other).unwrap());
    // Dropping a file that does not hold the lock releases no lock.
    drop(other);
    let other = disk.open_rw(path).unwrap();
    assert!(!disk.try_lock(&other).unwrap());
    drop(file);
    assert!(disk.try_lock(&other).unwrap());
    drop(copy);
}
