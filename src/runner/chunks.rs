//! The recipients of one destination, as many together as one transaction takes.

use std::collections::VecDeque;

use crate::message::{Address, Reply};

/// One transaction's recipients after the other's. How much room their outcomes need is known without looking
/// at all of them: that is asked at each transaction.
#[derive(Default)]
pub(super) struct Chunks {
    chunks: VecDeque<Vec<Address>>,
    room: u64,
}

impl Chunks {
    /// Those of the next transaction.
    pub fn first(&self) -> &[Address] {
        self.chunks.front().map_or(&[], Vec::as_slice)
    }

    /// Takes those of the next transaction; nobody at the end.
    pub fn take_first(&mut self) -> Vec<Address> {
        let first = self.chunks.pop_front().unwrap_or_default();
        self.room -= room(&first);
        first
    }

    /// Puts a transaction before all others.
    pub fn put_first(&mut self, recipients: Vec<Address>) {
        self.room += room(&recipients);
        self.chunks.push_front(recipients);
    }

    /// Takes all of them.
    pub fn take_all(&mut self) -> impl Iterator<Item = Address> {
        let all = std::mem::take(self).chunks;
        all.into_iter().flatten()
    }

    /// Takes those who are chosen out of all transactions.
    pub fn take_out(&mut self, mut is_chosen: impl FnMut(&Address) -> bool) {
        let chunks = std::mem::take(self).chunks.into_iter();
        let left = |mut one: Vec<Address>| {
            one.retain(|address| !is_chosen(address));
            one
        };
        *self = chunks.map(left).filter(|one| !one.is_empty()).collect();
    }

    pub fn all(&self) -> impl Iterator<Item = &Address> {
        self.chunks.iter().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The room that their outcomes may need in a history.
    pub fn room(&self) -> u64 {
        self.room
    }
}

impl FromIterator<Vec<Address>> for Chunks {
    fn from_iter<T: IntoIterator<Item = Vec<Address>>>(chunks: T) -> Chunks {
        let chunks: VecDeque<Vec<Address>> = chunks.into_iter().collect();
        let room = chunks.iter().map(room).sum();
        Chunks { chunks, room }
    }
}

/// The room that outcomes for these recipients may need in a history.
pub(super) fn room<'a>(recipients: impl IntoIterator<Item = &'a Address>) -> u64 {
    let room = |one: &Address| (one.as_str().len() + Reply::MAX_TEXT + 700) as u64;
    recipients.into_iter().map(room).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_that_of_those_who_are_there() {
        let to = |names: &str| -> Vec<Address> {
            let parsed = names.split(' ').map(|one| Address::parse(one).unwrap());
            parsed.collect()
        };
        let of = |chunks: &Chunks| room(chunks.all());
        let mut chunks: Chunks = [to("a@x b@example.net"), to("c@y")].into_iter().collect();
        assert_eq!((chunks.room(), chunks.first().len()), (of(&chunks), 2));
        let mut first = chunks.take_first();
        assert_eq!((chunks.room(), chunks.first().len()), (of(&chunks), 1));
        first.pop();
        chunks.put_first(first);
        assert_eq!((chunks.room(), chunks.all().count()), (of(&chunks), 2));
        chunks.take_out(|one| one.as_str() == "a@x");
        assert_eq!((chunks.room(), chunks.first().len()), (of(&chunks), 1));
        assert_eq!(chunks.take_all().count(), 1);
        assert!(chunks.is_empty() && chunks.room() == 0);
        assert!(chunks.take_first().is_empty() && chunks.room() == 0);
    }
}
