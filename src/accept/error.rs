//! Why a message is not accepted.

use std::io;

use jiff::{SignedDuration, Timestamp};

use super::hours;
use crate::disk;
use crate::message::dsn::DsnError;
use crate::message::seal::MAX_BLOCK;
use crate::message::{Address, AddressError};

/// Why a message was not accepted. No file of it is left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More octets than `accept.max_size`.
    #[error("5.3.4 the message is larger than the limit of {limit} octets")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// More `Received:` fields than `accept.hop_limit`.
    #[error("5.4.6 the message has passed more than {limit} hosts, it is in a loop")]
    TooManyHops {
        /// The limit.
        limit: usize,
    },
    /// Not one byte came.
    #[error("the message is empty")]
    Empty,
    /// There is nobody to deliver it to.
    #[error("the message has no recipients")]
    NoRecipients,
    /// More recipients than one message can have.
    #[error("the recipients together are longer than {MAX_BLOCK} octets")]
    TooManyRecipients,
    /// A wish about notices that there is no way to hand on.
    #[error("{name}: {source}")]
    Dsn {
        /// Of which parameter.
        name: &'static str,
        /// What is wrong with it.
        source: DsnError,
    },
    /// Wishes about more recipients than there are.
    #[error("there are wishes about more recipients than the message has")]
    TooManyWishes,
    /// More wishes than one message can have.
    #[error(
        "the recipients and the wishes about notices together are longer than {MAX_BLOCK} octets"
    )]
    WishesTooLong,
    /// The sender's address is none once our host name follows it.
    #[error("5.1.7 {address}: {source}")]
    Sender {
        /// As it was given.
        address: Address,
        /// What is wrong with it.
        source: AddressError,
    },
    /// A recipient's address is none once our host name follows it.
    #[error("5.1.3 {address}: {source}")]
    Recipient {
        /// As it was given.
        address: Address,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The header is longer than [`Peeked`](super::Peeked) was told to hold.
    #[error("the header is longer than {limit} octets, too long to take recipients from it")]
    HeaderTooLong {
        /// The limit.
        limit: usize,
    },
    /// A transport's name that could not be written to a line.
    #[error("not a transport's name: {0:?}")]
    BadTransport(String),
    /// A release further ahead than `accept.max_hold`.
    #[error(
        "it is to be released at {release}: mail is held no longer than {}",
        hours(limit)
    )]
    HoldTooLong {
        /// When it is wanted.
        release: Timestamp,
        /// The limit.
        limit: SignedDuration,
    },
    /// The reserve of the file system is reached.
    #[error("the spool's file system has {what} left, the reserve is {reserve}")]
    NoRoom {
        /// What is left.
        what: String,
        /// What must stay.
        reserve: u64,
    },
    /// Another process is accepting a message under the same key, and takes too long for that.
    #[error("another submission with the same key is under way")]
    KeyBusy,
    /// The input broke off. That is not its end.
    #[error("reading the message: {0}")]
    Input(#[source] io::Error),
    /// A file-system call failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

impl Error {
    /// Whether the message itself is at fault and no later try can succeed.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Error::TooLarge { .. }
                | Error::TooManyHops { .. }
                | Error::Sender { .. }
                | Error::Recipient { .. }
        )
    }
}
