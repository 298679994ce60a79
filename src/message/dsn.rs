//! DSN parameters (RFC 3461): which events the sender is notified of (NOTIFY), how much of the message a
//! notice returns (RET), and the identifiers that let the sender recognize it (ENVID, ORCPT).
//!
//! The lines in `info/transport/<id>` that show the parameters are written here. A line about recipients
//! refers to their line numbers in `info/recipients/<id>`. Adjacent recipients with the same NOTIFY share a
//! line.

use std::fmt::Write as _;
use std::str::FromStr;

use super::xtext;

/// The DSN parameters of a message. The default is to have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dsn {
    /// RET: how much of the message a notice returns.
    pub ret: Option<Ret>,
    /// ENVID: the sender's identifier for this message, decoded. Encoded, it is printable ASCII of at most
    /// [`Dsn::MAX_ENVID`] octets.
    pub envid: Option<String>,
    /// The parameters of each recipient, in order. Recipients beyond the end have none.
    pub recipients: Vec<RecipientDsn>,
}

/// The DSN parameters of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientDsn {
    /// NOTIFY: the events that the sender is notified of.
    pub notify: Option<Notify>,
    /// ORCPT: the recipient that the sender used.
    pub original: Option<OriginalRecipient>,
}

/// RET: how much of the message a failure notice returns. Other notices return the header (RFC 3461, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header.
    Headers,
}

/// NOTIFY: the events that the sender is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// No events.
    Never,
    /// The events that are true. If all are false, NOTIFY is taken as absent.
    When {
        /// Delivery to the recipient.
        success: bool,
        /// Permanent failure.
        failure: bool,
        /// Delay.
        delay: bool,
    },
}

/// ORCPT: the recipient address that the sender used, before any forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// The address type: letters, digits and `-`, such as `rfc822` or `utf-8`.
    pub kind: String,
    /// The address, decoded.
    pub address: String,
}

impl Dsn {
    /// The longest encoded ENVID in octets (RFC 3461, 4.4). A longer one is refused.
    pub const MAX_ENVID: usize = 100;

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        let nothing = RecipientDsn::default();
        self.ret.is_none()
            && self.envid.is_none()
            && self
                .recipients
                .iter()
                .all(|recipient| *recipient == nothing)
    }

    /// The parameters of the recipient with this index.
    pub fn of(&self, recipient: usize) -> RecipientDsn {
        self.recipients.get(recipient).cloned().unwrap_or_default()
    }

    /// Appends the `info/transport/<id>` lines for the valid parameters. Recipients without parameters take
    /// no line.
    pub(crate) fn write_lines(&self, text: &mut String) {
        if let Some(ret) = self.ret {
            let _ = writeln!(text, "ret: {}", ret.as_str());
        }
        if let Some(envid) = self.envid.as_deref().filter(|envid| is_envid(envid)) {
            let _ = writeln!(text, "envid: {envid}");
        }
        let mut from = 0;
        for run in self.recipients.chunk_by(|a, b| a.notify == b.notify) {
            let last = from + run.len();
            if let Some(notify) = run[0].notify.filter(|notify| !notify.is_nothing()) {
                let range = match run.len() {
                    1 => last.to_string(),
                    _ => format!("{}-{last}", from + 1),
                };
                let _ = writeln!(text, "notify: {range} {notify}");
            }
            from = last;
        }
        for (n, recipient) in self.recipients.iter().enumerate() {
            if let Some(original) = recipient
                .original
                .as_ref()
                .filter(|original| original.encoded().is_some())
            {
                let _ = writeln!(text, "orcpt: {} {original}", n + 1);
            }
        }
    }
}

/// Why a text is not a valid DSN parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// Invalid NOTIFY.
    #[error("not `never`, nor a list of `success`, `failure` and `delay`, each once at most")]
    Notify,
    /// Invalid RET.
    #[error("neither `full` nor `hdrs`")]
    Ret,
    /// Invalid ENVID.
    #[error(
        "not 1 to {} octets of printable ASCII (blanks, `+` and `=` count as three)",
        Dsn::MAX_ENVID
    )]
    Envid,
    /// Invalid ORCPT.
    #[error(
        "not a type, a semicolon and an address, such as `rfc822;you@example.net`, of at most {} \
         octets; only type `utf-8` has addresses that are not printable ASCII",
        OriginalRecipient::MAX_LEN
    )]
    Original,
}

impl Ret {
    /// The keyword in files and in SMTP.
    #[doc(hidden)]
    pub fn as_str(self) -> &'static str {
        match self {
            Ret::Full => "full",
            Ret::Headers => "hdrs",
        }
    }
}

#[doc(hidden)]
impl FromStr for Ret {
    type Err = DsnError;

    /// Parses `full` or `hdrs`, case-insensitively.
    fn from_str(text: &str) -> Result<Ret, DsnError> {
        let all = [Ret::Full, Ret::Headers];
        let found = all
            .into_iter()
            .find(|ret| ret.as_str().eq_ignore_ascii_case(text));
        found.ok_or(DsnError::Ret)
    }
}

#[doc(hidden)]
impl FromStr for Notify {
    type Err = DsnError;

    /// Parses `never`, or a list of `success`, `failure` and `delay` with commas between them,
    /// case-insensitively.
    fn from_str(text: &str) -> Result<Notify, DsnError> {
        if text.eq_ignore_ascii_case("never") {
            return Ok(Notify::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for word in text.split(',') {
            let wish = match () {
                () if word.eq_ignore_ascii_case("success") => &mut success,
                () if word.eq_ignore_ascii_case("failure") => &mut failure,
                () if word.eq_ignore_ascii_case("delay") => &mut delay,
                () => return Err(DsnError::Notify),
            };
            if std::mem::replace(wish, true) {
                return Err(DsnError::Notify);
            }
        }
        Ok(Notify::When {
            success,
            failure,
            delay,
        })
    }
}

impl std::fmt::Display for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Notify::Never => f.write_str("never"),
            Notify::When {
                success,
                failure,
                delay,
            } => {
                let words = [(success, "success"), (failure, "failure"), (delay, "delay")];
                let wanted: Vec<_> = words.iter().filter(|w| w.0).map(|w| w.1).collect();
                f.write_str(&wanted.join(","))
            }
        }
    }
}

impl FromStr for OriginalRecipient {
    type Err = DsnError;

    /// Parses the decoded form, such as `rfc822;you@example.net`.
    fn from_str(text: &str) -> Result<OriginalRecipient, DsnError> {
        let (kind, address) = text.split_once(';').ok_or(DsnError::Original)?;
        let original = OriginalRecipient {
            kind: kind.to_owned(),
            address: address.to_owned(),
        };
        match original.encoded() {
            Some(_) => Ok(original),
            None => Err(DsnError::Original),
        }
    }
}

impl std::fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{};{}", self.kind, self.address)
    }
}

impl RecipientDsn {
    /// Replaces a NOTIFY without events by `None`.
    pub(crate) fn normal(mut self) -> RecipientDsn {
        self.notify = self.notify.filter(|notify| !notify.is_nothing());
        self
    }

    /// Whether the sender is notified of a delivery: only if NOTIFY says so.
    #[doc(hidden)]
    pub fn wants_success(&self) -> bool {
        matches!(self.notify, Some(Notify::When { success: true, .. }))
    }

    /// Whether the sender is notified of a failure: if NOTIFY says so or is absent.
    #[doc(hidden)]
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| match notify {
            Notify::Never => false,
            Notify::When { failure, .. } => failure || notify.is_nothing(),
        })
    }

    /// Whether the sender may be notified of a delay: if NOTIFY says so or is absent.
    #[doc(hidden)]
    pub fn wants_delay(&self) -> bool {
        self.notify.is_none_or(|notify| match notify {
            Notify::Never => false,
            Notify::When { delay, .. } => delay || notify.is_nothing(),
        })
    }
}

impl Notify {
    pub(crate) fn is_nothing(self) -> bool {
        let nothing = Notify::When {
            success: false,
            failure: false,
            delay: false,
        };
        self == nothing
    }
}

impl OriginalRecipient {
    /// The longest encoded ORCPT in octets (RFC 3461, 4.2). A longer one is refused.
    pub const MAX_LEN: usize = 500;

    /// Returns the encoded value of the `ORCPT=` parameter, or `None` if it cannot be encoded.
    pub fn encoded(&self) -> Option<String> {
        let OriginalRecipient { kind, address } = self;
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if kind.is_empty() || !kind.bytes().all(is_word) || address.is_empty() {
            return None;
        }
        let address = if kind.eq_ignore_ascii_case("utf-8") {
            utf8_xtext(address)
        } else {
            xtext(address)
        };
        let text = format!("{kind};{}", address?);
        (text.len() <= OriginalRecipient::MAX_LEN).then_some(text)
    }
}

/// Returns the encoded value of the `ENVID=` parameter, or `None` if it cannot be encoded.
pub fn encoded_envid(envid: &str) -> Option<String> {
    let text = xtext(envid)?;
    (1..=Dsn::MAX_ENVID).contains(&text.len()).then_some(text)
}

/// Whether a text is a valid ENVID.
pub fn is_envid(text: &str) -> bool {
    encoded_envid(text).is_some()
}

/// Encodes as xtext of RFC 3461, section 4: blanks, `+` and `=` become `+` and two hexadecimal digits.
/// Returns `None` if the text is not printable ASCII, which cannot be encoded.
fn xtext(text: &str) -> Option<String> {
    let is_sayable = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    is_sayable.then(|| xtext::encode(text.as_bytes(), b""))
}

/// Encodes as RFC 6533, section 3, in the form that every server can transfer: `\x{F6}`.
fn utf8_xtext(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '+' | '=' | '\\' => out.push_str(&format!("\\x{{{:X}}}", c as u32)),
            '!'..='~' => out.push(c),
            c if c.is_control() => return None,
            _ => out.push_str(&format!("\\x{{{:X}}}", c as u32)),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_events_notify_means_failure_and_delay() {
        let when = |success, failure, delay| {
            Some(Notify::When {
                success,
                failure,
                delay,
            })
        };
        for (notify, wanted) in [
            (None, [false, true, true]),
            (when(false, false, false), [false, true, true]),
            (Some(Notify::Never), [false, false, false]),
            (when(true, false, false), [true, false, false]),
            (when(false, true, false), [false, true, false]),
            (when(false, false, true), [false, false, true]),
            (when(true, true, true), [true, true, true]),
        ] {
            let original = None;
            let dsn = RecipientDsn { notify, original };
            let got = [dsn.wants_success(), dsn.wants_failure(), dsn.wants_delay()];
            assert_eq!(got, wanted, "{notify:?}");
        }
    }
}
