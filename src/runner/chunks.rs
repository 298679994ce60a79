//! The recipients of one destination, split into chunks of as many as one transaction takes.

use std::collections::VecDeque;

use crate::message::Address;

/// The recipients of successive transactions.
#[derive(Default)]
pub(super) struct Chunks {
    chunks: VecDeque<Vec<Address>>,
}

impl Chunks {
    /// Takes the recipients of the next transaction; empty at the end.
    pub fn take_first(&mut self) -> Vec<Address> {
        self.chunks.pop_front().unwrap_or_default()
    }

    /// Puts recipients first, as the next transaction.
    pub fn put_first(&mut self, recipients: Vec<Address>) {
        self.chunks.push_front(recipients);
    }

    /// Takes the recipients of all transactions.
    pub fn take_all(&mut self) -> impl Iterator<Item = Address> {
        let all = std::mem::take(self).chunks;
        all.into_iter().flatten()
    }

    /// Removes the chosen recipients from all transactions.
    pub fn take_out(&mut self, mut is_chosen: impl FnMut(&Address) -> bool) {
        let chunks = std::mem::take(self).chunks.into_iter();
        let left = |mut chunk: Vec<Address>| {
            chunk.retain(|address| !is_chosen(address));
            chunk
        };
        *self = chunks.map(left).filter(|chunk| !chunk.is_empty()).collect();
    }

    pub fn all(&self) -> impl Iterator<Item = &Address> {
        self.chunks.iter().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

impl FromIterator<Vec<Address>> for Chunks {
    fn from_iter<T: IntoIterator<Item = Vec<Address>>>(chunks: T) -> Chunks {
        let chunks = chunks.into_iter().collect();
        Chunks { chunks }
    }
}
