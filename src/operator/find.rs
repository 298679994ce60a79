//! Finding a message by any unambiguous part of its id.

use crate::disk;
use crate::message::QueueId;
use crate::spool::{Located, Spool};

/// The result of a search by a part of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Exactly one message.
    One(QueueId),
    /// No message.
    None,
    /// Several messages: their ids.
    Several(Vec<QueueId>),
}

/// Finds a message by a part of its id.
pub fn find(spool: &Spool, part: &str) -> disk::Result<Found> {
    let part = part.trim().to_ascii_lowercase();
    if let Ok(id) = part.parse::<QueueId>() {
        return Ok(match spool.locate(id)? {
            Located::At(_) | Located::Uncertain(_) => Found::One(id),
            Located::Absent => Found::None,
        });
    }
    if part.is_empty() {
        return Ok(Found::None);
    }
    let listing = spool.listing();
    let ids = listing.messages.into_iter().map(|(id, _)| id);
    let ids = ids.chain(listing.unplaced);
    let mut found: Vec<QueueId> = ids.filter(|id| id.to_string().contains(&part)).collect();
    Ok(match found.len() {
        // It may be in a directory that could not be read.
        0 => match listing.unread.into_iter().next() {
            Some(error) => return Err(error),
            None => Found::None,
        },
        1 => Found::One(found.remove(0)),
        _ => Found::Several(found),
    })
}
