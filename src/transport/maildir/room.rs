//! Limits how many copies are open at once in this process, over all messages.
//!
//! The copies of a message share the barriers, so writing many at once is cheap. But each takes a
//! descriptor, and twenty messages to hundreds of recipients each must not take all descriptors of the
//! process.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit};

/// The most copies of one message that are open at once. Further ones are written afterwards.
pub(super) const MOST: usize = 64;

/// Copies that are open in this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many of `limit` descriptors copies may take. The rest is for everything else.
pub(crate) fn descriptors_for_copies(limit: u64) -> u64 {
    limit / 4
}

/// The right to keep some copies of a message open, until it is dropped.
pub(super) struct Room<'a> {
    copies: usize,
    open: &'a AtomicUsize,
}

impl Room<'_> {
    /// Takes room for at most `wanted` copies, but always for one: the descriptor for a single copy is
    /// counted with the job.
    pub fn take(wanted: usize) -> Room<'static> {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let all = usize::try_from(descriptors_for_copies(limit)).unwrap_or(usize::MAX);
        Room::of(all, wanted, &OPEN)
    }

    fn of(all: usize, wanted: usize, open: &AtomicUsize) -> Room<'_> {
        // Grant half of what is left, so that the next message has room too.
        let granted = |open: usize| {
            let left = all.saturating_sub(open);
            wanted.min(MOST).min((left / 2).max(1))
        };
        let taken = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            Some(open + granted(open))
        });
        let copies = granted(taken.unwrap_or_else(|before| before));
        Room { copies, open }
    }

    /// The number of copies that fit.
    pub fn copies(&self) -> usize {
        self.copies
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(self.copies, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_room_and_all_together_have_no_more_than_there_is() {
        for (limit, messages) in [(16, 1), (256, 12), (1024, 60), (u64::MAX, 60)] {
            let all = usize::try_from(descriptors_for_copies(limit)).unwrap();
            let open = AtomicUsize::new(0);
            let rooms: Vec<Room> = (0..messages).map(|_| Room::of(all, 500, &open)).collect();
            let counts: Vec<usize> = rooms.iter().map(Room::copies).collect();
            assert_eq!(counts.iter().sum::<usize>(), open.load(Ordering::Relaxed));
            drop(rooms);
            assert_eq!(open.load(Ordering::Relaxed), 0);
            assert!(
                counts.iter().all(|count| (1..=MOST).contains(count)),
                "{counts:?}"
            );
            assert!(counts.iter().sum::<usize>() <= all + messages, "{counts:?}");
        }
        let open = AtomicUsize::new(0);
        assert_eq!(Room::of(256, 3, &open).copies(), 3);
    }
}
