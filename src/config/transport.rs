//! `[transport.NAME]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::Error;
use super::raw::RawTransport;
use super::value::{Span, Text, at};
use super::wire::{self, Wire};

/// A `[transport.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// Into a Maildir; a relative path is below the spool.
    Maildir {
        /// The Maildir.
        path: PathBuf,
        /// Messages written concurrently, over all processes.
        concurrency: usize,
    },
    /// Through a program.
    Pipe {
        /// The argument vector.
        command: Vec<String>,
        /// The user that runs it; none for the user of the run.
        user: Option<String>,
        /// The longest it may take for one recipient.
        timeout: Duration,
        /// Concurrent commands, over all processes.
        concurrency: usize,
    },
    /// To other hosts.
    Wire(Box<Wire>),
}

impl Text<'_> {
    /// Returns the transports by name.
    pub(super) fn transports(
        &self,
        raw: &mut BTreeMap<Spanned<String>, RawTransport>,
        hostname: &str,
    ) -> Result<BTreeMap<String, Transport>, Error> {
        let mut transports = BTreeMap::new();
        for (name, transport) in raw {
            if !crate::message::envelope::is_transport_name(name.get_ref()) {
                let what = "a transport's name has letters, digits, `-`, `_` and `.` only";
                return Err(self.error(name.span(), what));
            }
            transports.insert(name.get_ref().clone(), self.transport(transport, hostname)?);
        }
        Ok(transports)
    }

    fn transport(&self, raw: &mut RawTransport, hostname: &str) -> Result<Transport, Error> {
        let kind = raw.r#type.get_ref().as_str();
        let keys = match kind {
            "maildir" => &["path", "concurrency"][..],
            "pipe" => &["command", "user", "timeout", "concurrency"],
            "smtp" | "lmtp" => wire::KEYS,
            other => {
                let what = format!(
                    "unknown type {other:?}; there are \"maildir\", \"pipe\", \"smtp\" and \"lmtp\""
                );
                return Err(self.error(raw.r#type.span(), what));
            }
        };
        let mut others = raw.keys().filter(|(key, _)| *key != "retry");
        if let Some((key, span)) = others.find(|(key, _)| !keys.contains(key)) {
            return Err(self.error(span, format!("`{key}` is not a key of type {kind:?}")));
        }
        let missing =
            |key: &str| self.error(raw.r#type.span(), format!("type {kind:?} needs `{key}`"));
        match kind {
            "maildir" => {
                let path = raw.path.as_ref().ok_or_else(|| missing("path"))?;
                Ok(Transport::Maildir {
                    path: path.get_ref().clone(),
                    concurrency: self.concurrency(&mut raw.concurrency)?,
                })
            }
            "pipe" => {
                let command = raw.command.as_ref().ok_or_else(|| missing("command"))?;
                if command.get_ref().first().is_none_or(String::is_empty) {
                    return Err(self.error(command.span(), "`command` is empty"));
                }
                let timeout = raw.timeout.get_or_insert(at(Span::from_secs(1000)));
                Ok(Transport::Pipe {
                    command: command.get_ref().clone(),
                    user: raw.user.as_ref().map(|user| user.get_ref().clone()),
                    timeout: timeout.get_ref().0,
                    concurrency: self.concurrency(&mut raw.concurrency)?,
                })
            }
            _ => Ok(Transport::Wire(Box::new(self.wire(raw, hostname)?))),
        }
    }

    /// Returns the concurrency of a transport of any type.
    pub(super) fn concurrency(&self, given: &mut Option<Spanned<usize>>) -> Result<usize, Error> {
        self.at_least_one(given.get_or_insert(at(20)), "concurrency")
    }
}
