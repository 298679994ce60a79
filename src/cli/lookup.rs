//! Finds the message that a command names.

use super::exit::{EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Failure};
use crate::message::QueueId;
use crate::operator::{Found, find};
use crate::spool::{Listing, Located, Spool, View};

/// Returns the only message with this part in its id.
pub(super) fn message(spool: &Spool, part: &str) -> Result<QueueId, Failure> {
    match find(spool, part)? {
        Found::One(id) => Ok(id),
        Found::None => {
            let text = format!("no message has {part:?} in its id");
            Err(Failure::new(EX_UNAVAILABLE, text))
        }
        Found::Several(ids) => {
            let some: Vec<String> = ids.iter().take(5).map(QueueId::to_string).collect();
            let count = ids.len();
            let text = format!(
                "{part:?} is part of {count} ids, such as {}",
                some.join(", ")
            );
            Err(Failure::new(EX_USAGE, text))
        }
    }
}

/// Reads a message, in whichever queue it is.
pub(super) fn view(spool: &Spool, id: QueueId) -> Result<View, Failure> {
    let gone = || Failure::new(EX_UNAVAILABLE, format!("{id} is gone"));
    let listing = Listing::default();
    let queue = match spool.locate(id)? {
        Located::At(queue) => queue,
        Located::Absent => return Err(gone()),
        Located::Uncertain(doubt) => {
            let text = format!("{id} cannot be found now: {doubt}; try again");
            return Err(Failure::new(EX_TEMPFAIL, text));
        }
    };
    spool.view(id, queue, &listing)?.ok_or_else(gone)
}
