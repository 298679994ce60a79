//! Why a message is not accepted.

use std::io;

use jiff::{SignedDuration, Timestamp};

use super::hours;
use crate::disk;
use crate::message::dsn::DsnError;
use crate::message::seal::MAX_BLOCK;
use crate::message::{Address, AddressError};

/// Why a message was not accepted. None of its files remains.
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
    /// The input has no bytes.
    #[error("the message is empty")]
    Empty,
    /// There are no recipients.
    #[error("the message has no recipients")]
    NoRecipients,
    /// More recipients than one message can have.
    #[error("the recipients together are longer than {MAX_BLOCK} octets")]
    TooManyRecipients,
    /// A DSN parameter that cannot be passed on.
    #[error("{name}: {source}")]
    Dsn {
        /// The parameter's name.
        name: &'static str,
        /// What is wrong with it.
        source: DsnError,
    },
    /// DSN parameters for more recipients than there are.
    #[error("there are DSN parameters for more recipients than the message has")]
    TooManyWishes,
    /// More DSN parameters than one message can have.
    #[error("the recipients and the DSN parameters together are longer than {MAX_BLOCK} octets")]
    WishesTooLong,
    /// The sender's address is invalid with the host name appended.
    #[error("5.1.7 {address}: {source}")]
    Sender {
        /// The address as given.
        address: Address,
        /// What is wrong with it.
        source: AddressError,
    },
    /// A recipient's address is invalid with the host name appended.
    #[error("5.1.3 {address}: {source}")]
    Recipient {
        /// The address as given.
        address: Address,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The header is longer than [`Peeked`](super::Peeked) was allowed to hold.
    #[error("the header is longer than {limit} octets, too long to take recipients from it")]
    HeaderTooLong {
        /// The limit.
        limit: usize,
    },
    /// A transport name that cannot be written to an envelope line.
    #[error("not a transport's name: {0:?}")]
    BadTransport(String),
    /// A release later than `accept.max_hold` allows.
    #[error(
        "the release at {release} is too late: mail is held at most {}",
        hours(limit)
    )]
    HoldTooLong {
        /// The requested release.
        release: Timestamp,
        /// The limit.
        limit: SignedDuration,
    },
    /// The file system has less free space than the reserve.
    #[error("the spool's file system has {what} left, the reserve is {reserve}")]
    NoRoom {
        /// The free space.
        what: String,
        /// The reserve.
        reserve: u64,
    },
    /// Another process is accepting a message under the same key, and takes too long.
    #[error("another submission with the same key is under way")]
    KeyBusy,
    /// Reading the input failed before its end.
    #[error("reading the message: {0}")]
    Input(#[source] io::Error),
    /// A file-system call failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

impl Error {
    /// Whether the message itself causes the error, so that no retry can succeed.
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
