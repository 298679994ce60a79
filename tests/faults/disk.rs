//! A real disk that fails to write: the kernel reports the error only once, so it must not get lost.
//!
//! Needs root, to mount, and e2fsprogs. The disk is an ext4 image in a full tmpfs, so blocks that were never
//! written before cannot be written.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailspool::testing::accept::Acceptor;
use mailspool::testing::disk::Disk;
use mailspool::testing::message::Entrance;
use mailspool::testing::spool::Spool;
use tempfile::TempDir;

use super::world::{limits, request, text};

struct Mount {
    dir: TempDir,
    mounted: Vec<PathBuf>,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?} (needs root): {said}"
    );
}

impl Mount {
    fn new(journal: &str) -> Mount {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (back, top, image) = (path("back"), path("top"), path("back/image"));
        fs::create_dir(&back).unwrap();
        fs::create_dir(&top).unwrap();
        let mut disk = Mount {
            dir,
            mounted: Vec::new(),
        };
        run("mount", &["-t", "tmpfs", "-o", "size=24m", "none", &back]);
        disk.mounted.push(back.into());
        File::create(&image).unwrap().set_len(200 << 20).unwrap();
        // Blocks have the size of a tmpfs page. Several smaller blocks would share a page, and find room in
        // an allocated one.
        let made = [
            "-b",
            "4096",
            "-E",
            "lazy_itable_init=0,nodiscard",
            "-N",
            "4096",
        ];
        run(
            "mkfs.ext4",
            &[&["-q", "-O", journal][..], &made, &[&image]].concat(),
        );
        run("mount", &["-o", "loop,errors=continue", &image, &top]);
        disk.mounted.push(top.into());
        disk
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    /// From here on, no new block can be written.
    fn fill(&self) {
        let mut file = File::create(self.dir.path().join("back/ballast")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.dir.path().join("back/ballast")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        while let Some(path) = self.mounted.pop() {
            // Lazy, because a command that another thread is starting may still have it open.
            let _ = Command::new("umount").arg("--lazy").arg(path).status();
        }
    }
}

fn accept(spool: &Spool) -> Result<(), String> {
    let to = ["a@ok.test"];
    let acceptor = Acceptor::new(spool.clone(), limits());
    let accepted = acceptor.accept(
        request(Entrance::Active, "s@sender.test", &to),
        &text("m")[..],
    );
    accepted.map(drop).map_err(|error| error.to_string())
}

#[test]
fn nothing_is_accepted_that_a_real_disk_did_not_take() {
    for journal in ["^has_journal", "has_journal"] {
        let disk = Mount::new(journal);
        let spool = Spool::create(&disk.top().join("spool")).unwrap();
        // From here on, every block except data is allocated.
        accept(&spool).unwrap();
        run("sync", &["-f", &disk.top().display().to_string()]);
        disk.fill();
        let error = accept(&spool).unwrap_err();
        println!("{journal}: {error}");
        let active = spool
            .ids_in(mailspool::testing::spool::Queue::Active)
            .unwrap();
        assert_eq!(active.len(), 1);
        disk.empty();
        drop(spool);
    }
}

/// Every block except data is allocated, so no other write fails. One of the files is not written to.
#[test]
fn a_barrier_reports_what_write_back_was_told() {
    let mount = Mount::new("^has_journal");
    let disk = Disk::open(&mount.top(), None).unwrap();
    let files = ["a", "b", "c"].map(|name| disk.create(Path::new(name)).unwrap());
    let files = files.each_ref();
    disk.durable(&files, &[Path::new(".")]).unwrap();
    run("sync", &["-f", &mount.top().display().to_string()]);
    mount.fill();
    for file in &files[..2] {
        disk.write_all(file, &vec![1; 1 << 20]).unwrap();
    }
    let error = disk.durable(&files, &[]).unwrap_err();
    println!("{error}");
    mount.empty();
}
