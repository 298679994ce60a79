//! Submissions: a message's envelope and what is to be done with it.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Error, ErrorKind, Spool};
use crate::accept::{self, Limits};
use crate::message::{
    Address, Dsn, Entrance, Notify, QueueId, RecipientDsn, Ret, ReversePath, SubmissionKey,
};

/// The envelope of a message that is handed in, and what is to be done with it.
///
/// ```
/// use mailspool::Submission;
///
/// # fn main() -> Result<(), mailspool::Error> {
/// let order = Submission::new("shop@example.org", ["you@example.net"])?
///     .key("order 4711")?          // A second submission under this key is not queued again.
///     .submitter("shop");
/// let bounce = Submission::new("", ["me@example.org"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Submission {
    pub(super) request: accept::Request,
}

impl Submission {
    /// A submission from an application: missing `Date`, `Message-ID` and `From` fields are added, and `Bcc`
    /// fields are removed. Addresses without a domain get the spool's host name. The empty sender is the null
    /// sender, of notices.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if one of the addresses is invalid, or there is no recipient.
    pub fn new<R: AsRef<str>>(
        sender: &str,
        recipients: impl IntoIterator<Item = R>,
    ) -> Result<Submission, Error> {
        let sender = sender.parse::<ReversePath>()?;
        let recipients = recipients
            .into_iter()
            .map(|text| Address::parse(text.as_ref()));
        let recipients = recipients.collect::<Result<Vec<Address>, _>>()?;
        if recipients.is_empty() {
            return Err(accept::Error::NoRecipients.into());
        }
        Ok(Submission {
            request: accept::Request {
                entrance: Entrance::Active,
                sender,
                recipients,
                transport: None,
                dsn: Dsn::default(),
                submitter: "application".to_owned(),
                key: None,
                release: None,
            },
        })
    }

    /// The message comes from another MTA: its header stays as it is, apart from the `Received` field on top.
    pub fn relayed(mut self) -> Submission {
        self.request.entrance = Entrance::Incoming;
        self
    }

    /// Names the transport for all recipients. Without this, the runner's routes decide at each attempt.
    pub fn transport(mut self, name: impl Into<String>) -> Submission {
        self.request.transport = Some(name.into());
        self
    }

    /// Sets the name of the submitter, which is written to the `Received` field; `application` by default.
    pub fn submitter(mut self, name: impl Into<String>) -> Submission {
        self.request.submitter = name.into();
        self
    }

    /// Sets a key of 1 to 256 octets: of the submissions under one key, within its lifetime, only the first is
    /// accepted ([`Accepted::repeated`]).
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if the key is empty or too long.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Result<Submission, Error> {
        let key = SubmissionKey::new(key);
        self.request.key = Some(key.map_err(|error| Error::new(ErrorKind::Refused, error))?);
        Ok(self)
    }

    /// Sets the earliest time of the first attempt (RFC 4865, HOLDUNTIL). A time in the past has no effect.
    pub fn hold_until(mut self, time: Timestamp) -> Submission {
        self.request.release = Some(time);
        self
    }

    /// Sets the events that the sender is notified of, for all recipients (RFC 3461, NOTIFY): `never`, or some of
    /// `success`, `failure` and `delay`, separated by commas. Without this, the sender is notified of failures and
    /// delays.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if it is anything else.
    pub fn notify(mut self, events: &str) -> Result<Submission, Error> {
        let notify = events
            .parse::<Notify>()
            .map_err(|error| Error::new(ErrorKind::Refused, error))?;
        let asked = RecipientDsn {
            notify: Some(notify),
            original: None,
        };
        self.request.dsn.recipients = vec![asked; self.request.recipients.len()];
        Ok(self)
    }

    /// Returns only the header of the message in a failure notice (RFC 3461, RET=HDRS).
    pub fn return_headers(mut self) -> Submission {
        self.request.dsn.ret = Some(Ret::Headers);
        self
    }

    /// Sets the identifier by which the sender recognizes the message in a notice (RFC 3461, ENVID).
    pub fn envid(mut self, envid: impl Into<String>) -> Submission {
        self.request.dsn.envid = Some(envid.into());
        self
    }
}

/// The result of [`Acceptor::submit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The id of the accepted message.
    pub id: QueueId,
    /// The message was accepted before under the same key, and may have been delivered since. Nothing was
    /// queued now.
    pub repeated: bool,
}

/// Accepts messages within limits of the caller's choice. [`Spool::submit`] uses the default limits.
#[derive(Clone)]
#[must_use]
pub struct Acceptor {
    spool: crate::spool::Spool,
    limits: Limits,
    when_durable: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Acceptor {
    /// The default limits: messages of up to 50,000,000 octets, 100,000,000 octets and 1,000 files that stay
    /// free on the file system, 50 `Received` fields, keys that last a day, 30 days to a release.
    pub fn new(spool: &Spool) -> Acceptor {
        Acceptor {
            spool: spool.inner.clone(),
            limits: Limits::new(spool.hostname.clone()),
            when_durable: None,
        }
    }

    /// Sets the largest message, in octets.
    pub fn max_size(mut self, octets: u64) -> Acceptor {
        self.limits.max_size = octets;
        self
    }

    /// Sets what stays free on the file system: octets and files.
    pub fn min_free(mut self, octets: u64, files: u64) -> Acceptor {
        self.limits.min_free = octets;
        self.limits.min_free_inodes = files;
        self
    }

    /// Sets the most `Received` fields with which a message is accepted. A message with more is in a loop.
    pub fn hop_limit(mut self, fields: usize) -> Acceptor {
        self.limits.hop_limit = fields;
        self
    }

    /// Sets how long a submission key lasts, from the acceptance of its message.
    pub fn key_lifetime(mut self, lifetime: SignedDuration) -> Acceptor {
        self.limits.key_lifetime = lifetime;
        self
    }

    /// Sets how far in the future [`Submission::hold_until`] may be.
    pub fn max_hold(mut self, hold: SignedDuration) -> Acceptor {
        self.limits.max_hold = hold;
        self
    }

    /// Sets a function that is called as soon as a message is durable, before anything that may take time. A
    /// caller that limits the time of a submission must not report failure after this call.
    pub fn when_durable(mut self, hook: impl Fn() + Send + Sync + 'static) -> Acceptor {
        self.when_durable = Some(Arc::new(hook));
        self
    }

    /// Accepts a message. When this returns, the message and its envelope are durable.
    ///
    /// # Errors
    /// See [`ErrorKind`]. After an error nothing has been accepted.
    pub fn submit(&self, submission: Submission, message: impl Read) -> Result<Accepted, Error> {
        let acceptor = accept::Acceptor::new(self.spool.clone(), self.limits.clone());
        let accepted = match &self.when_durable {
            None => acceptor.submit(submission.request, message),
            Some(hook) => {
                let hook = Arc::clone(hook);
                acceptor
                    .when_durable(move || hook())
                    .submit(submission.request, message)
            }
        }?;
        Ok(Accepted {
            id: accepted.id,
            repeated: accepted.repeated,
        })
    }
}

#[doc(hidden)]
impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("spool", &self.spool.path())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
