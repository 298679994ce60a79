//! What a message and its envelope are, without touching a file, a socket or a clock.
//!
//! Everything here is pure: bytes in, values out. The envelope in a message file is written and read
//! only in [`block`]; the queue id only in [`id`].

pub mod address;
pub mod block;
pub mod date;
pub mod domain;
pub mod dsn;
pub mod envelope;
pub mod field;
pub mod header;
pub mod id;
pub mod key;
pub mod line;
pub mod list;
pub mod recipients;
pub mod reply;
pub mod seal;
pub mod seven_bit;
pub mod strip;
pub mod template;
pub mod text;
mod xtext;

pub use address::{Address, AddressError, ReversePath};
pub use block::{Block, Mark};
pub use dsn::{Dsn, Notify, OriginalRecipient, RecipientDsn, Ret};
pub use envelope::{Entrance, Envelope, NoticeKind, Origin, Submission};
pub use id::QueueId;
#[cfg(feature = "testing")]
pub use key::KeyError;
pub use key::{Keyed, SubmissionKey};
pub use reply::{EnhancedCode, Reply};
#[cfg(feature = "testing")]
pub use seal::BlockError;
pub use seal::{Seal, SealHasher};
pub use text::{harmless, printable};
