use super::*;

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
