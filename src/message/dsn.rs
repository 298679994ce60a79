//! Wishes about notices, as a sender gives them (RFC 3461): of what he wants to hear, how much of his
//! message he wants back, and by what he will know it again.
//!
//! The lines that show them in `info/transport/<id>` are written here. A wish about recipients names them by their
//! lines in `info/recipients/<id>`, and neighbours with the same wish share a line.

use std::fmt::Write as _;
use std::str::FromStr;

use super::xtext;

/// Wishes about a message. By default nothing is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dsn {
    /// How much of the message a notice should have.
    pub ret: Option<Ret>,
    /// The sender's own mark for this message, not encoded: at most [`Dsn::MAX_ENVID`] octets of
    /// printable ASCII once it is.
    pub envid: Option<String>,
    /// One for each recipient, in their order. Where there are fewer, nothing is asked.
    pub recipients: Vec<RecipientDsn>,
}

/// Wishes about one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientDsn {
    /// Of what the sender wants to hear.
    pub notify: Option<Notify>,
    /// To whom the sender wrote.
    pub original: Option<OriginalRecipient>,
}

/// How much of the message a notice should have. It is about failures; other notices have the
/// header (RFC 3461, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// The header.
    Headers,
}

/// Of what the sender wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Of nothing.
    Never,
    /// Of those that are true. None of them asks for nothing.
    When {
        /// The message was delivered.
        success: bool,
        /// It cannot be.
        failure: bool,
        /// It takes long.
        delay: bool,
    },
}

/// The address that the sender wrote to, before anybody forwarded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// Its type: letters, digits and `-`, such as `rfc822` or `utf-8`.
    pub kind: String,
    /// The address as it was, not encoded.
    pub address: String,
}

impl Dsn {
    /// The most octets of an ENVID, encoded (RFC 3461, 4.4).
    pub const MAX_ENVID: usize = 100;

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        let nothing = RecipientDsn::default();
        self.ret.is_none()
            && self.envid.is_none()
            && self
                .recipients
                .iter()
                .all(|recipient| *recipient == nothing)
    }

    /// What is asked about the recipient at this place.
    pub fn of(&self, recipient: usize) -> RecipientDsn {
        self.recipients.get(recipient).cloned().unwrap_or_default()
    }

    /// What can be said of it, and no more entries than that takes.
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
        for (n, one) in self.recipients.iter().enumerate() {
            if let Some(original) = one
                .original
                .as_ref()
                .filter(|recipient| recipient.encoded().is_some())
            {
                let _ = writeln!(text, "orcpt: {} {original}", n + 1);
            }
        }
    }
}

/// Why something is no wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// Of NOTIFY.
    #[error("not `never`, nor a list of `success`, `failure` and `delay`, each once at most")]
    Notify,
    /// Of RET.
    #[error("neither `full` nor `hdrs`")]
    Ret,
    /// Of ENVID.
    #[error(
        "not 1 to {} octets of printable ASCII (blanks, `+` and `=` count as three)",
        Dsn::MAX_ENVID
    )]
    Envid,
    /// Of ORCPT.
    #[error(
        "not a type, a semicolon and an address, such as `rfc822;you@example.net`, of at most {} \
         octets; only type `utf-8` has addresses that are not printable ASCII",
        OriginalRecipient::MAX_LEN
    )]
    Original,
}

impl Ret {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Ret::Full => "full",
            Ret::Headers => "hdrs",
        }
    }
}

impl FromStr for Ret {
    type Err = DsnError;

    /// `full` or `hdrs`, in any case.
    fn from_str(text: &str) -> Result<Ret, DsnError> {
        let all = [Ret::Full, Ret::Headers];
        let found = all
            .into_iter()
            .find(|ret| ret.as_str().eq_ignore_ascii_case(text));
        found.ok_or(DsnError::Ret)
    }
}

impl FromStr for Notify {
    type Err = DsnError;

    /// `never`, or some of `success`, `failure` and `delay` with commas between them, in any case.
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

    /// `rfc822;you@example.net`, not encoded.
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
    /// With a list that asks for nothing taken for none.
    pub(crate) fn normal(mut self) -> RecipientDsn {
        self.notify = self.notify.filter(|notify| !notify.is_nothing());
        self
    }

    /// Whether the sender is told if this recipient has the message. Only if he asks for it.
    pub fn wants_success(&self) -> bool {
        matches!(self.notify, Some(Notify::When { success: true, .. }))
    }

    /// Whether he is told if it cannot have it. Also if he asks for nothing.
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| match notify {
            Notify::Never => false,
            Notify::When { failure, .. } => failure || notify.is_nothing(),
        })
    }

    /// Whether he may be told if it takes long. Also if he asks for nothing.
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
    /// The most octets of an ORCPT, encoded (RFC 3461, 4.2).
    pub const MAX_LEN: usize = 500;

    /// As it stands behind `ORCPT=`, encoded; none if there is no way to say it.
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

/// An ENVID as it stands in its parameter; none if there is no way to say it.
pub fn encoded_envid(envid: &str) -> Option<String> {
    let text = xtext(envid)?;
    (1..=Dsn::MAX_ENVID).contains(&text.len()).then_some(text)
}

/// Whether a text can be an ENVID.
pub fn is_envid(text: &str) -> bool {
    encoded_envid(text).is_some()
}

/// RFC 3461 4: blanks, `+` and `=` as `+` and two hexadecimal digits. There is no way to say what is
/// not printable ASCII, not even so.
fn xtext(text: &str) -> Option<String> {
    let is_sayable = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    is_sayable.then(|| xtext::encode(text.as_bytes(), b""))
}

/// RFC 6533 3, the form that any server can carry: `\x{F6}`.
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
    fn who_asks_for_nothing_hears_of_failures_and_may_hear_of_delays() {
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
