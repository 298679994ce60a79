//! One barrier for several processes.
//!
//! Where a barrier is over the whole file system, the one that another process makes serves us
//! too, if it begins after our last write. `state/sync` is how we learn of it:
//!
//! - Who has written everything and finds the lock on the file taken adds one octet to it: the
//!   size of the file is his ticket.
//! - Who has the lock looks at the size, makes his barrier, and, if that succeeded, writes the
//!   size into the head of the file: all tickets up to it are served. Whoever drew one of them
//!   had written everything before the barrier began.
//!
//! Who is alone writes nothing. Nobody depends on anybody: who is not served within
//! a quarter of a second, because the other was stopped, or failed, or the file was deleted, makes his own
//! barrier. Who is served asks his own files for errors, as a barrier reports them only to its
//! maker.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Spool;
use crate::disk::{self, File};

/// The file.
const QUEUE: &str = "state/sync";

/// So often it is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// Octets of the head: twice the same number, so that one read while it is written is not
/// believed.
const HEAD: u64 = 42;

impl Spool {
    /// Makes files and directories durable, with a barrier of our own or somebody else's. The
    /// files have been written, by us.
    pub(super) fn durable_together(&self, files: &[&File], dirs: &[&Path]) -> disk::Result<()> {
        let Some(patience) = self.disk.shares_barriers() else {
            return self.disk.durable(files, dirs);
        };
        // Whatever goes wrong with the queue: it is only a help.
        let queue = self.queue_for_barrier();
        let turn = queue
            .as_ref()
            .and_then(|queue| self.wait_for_turn(queue, patience).ok());
        match (queue, turn) {
            (Some(_), Some(Turn::Served)) => self.disk.written(files),
            (Some(queue), Some(Turn::Ours)) => {
                let tickets = self.disk.stat_file(&queue).map(|stat| stat.size);
                self.disk.durable_for_all(files, dirs)?;
                if let Ok(tickets) = tickets
                    && tickets > self.served(&queue).unwrap_or(HEAD)
                {
                    // Who is not told makes his own.
                    let _ = self.disk.write_all(&queue, head(tickets).as_bytes());
                }
                Ok(())
            }
            _ => self.disk.durable(files, dirs),
        }
    }

    /// The file, made if it is missing.
    fn queue_for_barrier(&self) -> Option<File> {
        let path = Path::new(QUEUE);
        match self.disk.open_rw(path) {
            Ok(file) => Some(file),
            Err(error) if error.is_absent() => {
                let file = self.disk.create(path).ok()?;
                self.disk.write_all(&file, head(HEAD).as_bytes()).ok()?;
                // Its offset is behind the head now; the next head goes to the beginning.
                self.disk.open_rw(path).ok()
            }
            Err(_) => None,
        }
    }

    fn wait_for_turn(&self, queue: &File, patience: Duration) -> disk::Result<Turn> {
        if self.disk.try_lock(queue)? {
            return Ok(Turn::Ours);
        }
        let Some(ticket) = self.draw_ticket(queue)? else {
            return Ok(Turn::Impatient);
        };
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if self.served(queue).is_some_and(|served| served >= ticket) {
                return Ok(Turn::Served);
            }
            if self.disk.try_lock(queue)? {
                // Who had the lock may have served us with his last act.
                return Ok(match self.served(queue) {
                    Some(served) if served >= ticket => Turn::Served,
                    _ => Turn::Ours,
                });
            }
            std::thread::sleep(LOOK);
        }
        Ok(Turn::Impatient)
    }

    /// Adds one octet and takes the size for a ticket; others who add one at the same moment can
    /// only make it a later one.
    ///
    /// A ticket that seems to be served as soon as it is drawn is none: after a power cut the head
    /// may be of a later time than the size. Nor is one of a file that is not the one that is
    /// locked: the file may be deleted at any time.
    fn draw_ticket(&self, queue: &File) -> disk::Result<Option<u64>> {
        let file = self.disk.open_append(Path::new(QUEUE))?;
        let drawn = {
            self.disk.write_all(&file, b".")?;
            self.disk.stat_file(&file)?
        };
        let same = drawn.identity == self.disk.stat_file(queue)?.identity;
        let waits = self.served(queue).is_some_and(|served| served < drawn.size);
        Ok((same && waits && drawn.size > HEAD).then_some(drawn.size))
    }

    fn served(&self, queue: &File) -> Option<u64> {
        let mut bytes = [0; HEAD as usize];
        let got = self.disk.read_at(queue, &mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes[..got]).ok()?;
        let served = text.split(' ').next()?.parse().ok()?;
        (head(served) == text).then_some(served)
    }
}

/// Whose barrier it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Ours, and those who wait are to be told.
    Ours,
    /// Ours, for ourselves.
    Impatient,
    /// Somebody else's has served us.
    Served,
}

fn head(served: u64) -> String {
    format!("{served:020} {served:020}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("spool"), None).unwrap();
        (dir, spool)
    }

    const PATIENCE: Duration = Duration::from_millis(250);

    fn write(spool: &Spool, text: &str) {
        std::fs::write(spool.path().join(QUEUE), text).unwrap();
    }

    #[test]
    fn who_is_alone_has_the_turn_and_who_waits_is_told() {
        let (_dir, spool) = spool();
        let first = spool.queue_for_barrier().unwrap();
        assert_eq!(spool.wait_for_turn(&first, PATIENCE).unwrap(), Turn::Ours);
        let second = spool.queue_for_barrier().unwrap();
        let ticket = spool.draw_ticket(&second).unwrap().unwrap();
        assert!(spool.served(&second).unwrap() < ticket);
        let head = head(ticket);
        spool.disk.write_all(&first, head.as_bytes()).unwrap();
        assert!(spool.served(&second).unwrap() >= ticket);
        // The next ticket is a later one.
        let next = spool.draw_ticket(&second).unwrap().unwrap();
        assert!(spool.served(&second).unwrap() < next);
    }

    #[test]
    fn nobody_waits_for_ever_for_who_does_not_let_go() {
        let (_dir, spool) = spool();
        let stopped = spool.queue_for_barrier().unwrap();
        assert!(spool.disk.try_lock(&stopped).unwrap());
        let queue = spool.queue_for_barrier().unwrap();
        assert_eq!(
            spool.wait_for_turn(&queue, PATIENCE).unwrap(),
            Turn::Impatient
        );
        // Who finds the lock free before his patience ends makes his barrier.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| spool.wait_for_turn(&queue, PATIENCE).unwrap());
            drop(stopped);
            assert_eq!(waiting.join().unwrap(), Turn::Ours);
        });
    }

    #[test]
    fn what_a_power_cut_left_serves_nobody() {
        let (_dir, spool) = spool();
        for text in [
            "",
            "torn",
            &"\0".repeat(60),
            // The head is of a later time than the size.
            &head(1000),
            // Read while it was written.
            "00000000000000000099 00000000000000000042\n",
        ] {
            write(&spool, text);
            let queue = spool.queue_for_barrier().unwrap();
            assert_eq!(spool.draw_ticket(&queue).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn a_queue_that_was_deleted_serves_nobody() {
        let (_dir, spool) = spool();
        let queue = spool.queue_for_barrier().unwrap();
        let served = head(HEAD + 5) + ".....";
        spool.disk.write_all(&queue, served.as_bytes()).unwrap();
        std::fs::remove_file(spool.path().join(QUEUE)).unwrap();
        spool.queue_for_barrier().unwrap();
        assert_eq!(spool.draw_ticket(&queue).unwrap(), None);
    }
}
