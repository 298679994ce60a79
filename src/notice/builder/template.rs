//! The texts of notices, which an administrator may change.

use std::borrow::Cow;
use std::fmt;

use crate::message::template::{Template, TemplateError};
use crate::message::{Address, NoticeKind};

/// The texts of each kind of notice. By default the built-in ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates {
    /// For bounces.
    pub bounce: Wording,
    /// For notices of delay.
    pub delay: Wording,
    /// For notices of success.
    pub success: Wording,
}

/// The texts of one kind of notice.
#[derive(Clone)]
pub struct Wording {
    kind: NoticeKind,
    // `None`: the built-in text, which is parsed when a notice is written. Most processes write none.
    from: Option<From>,
    subject: Option<Template<Place>>,
    text: Option<Template<Place>>,
}

impl PartialEq for Wording {
    fn eq(&self, other: &Wording) -> bool {
        let words = |of: &Wording| (of.kind, of.from(), of.subject(), of.text());
        words(self) == words(other)
    }
}

impl Eq for Wording {}

impl fmt::Debug for Wording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wording")
            .field("kind", &self.kind)
            .field("from", &self.from())
            .field("subject", &self.subject())
            .field("text", &self.text())
            .finish()
    }
}

/// The From field: a name, which may be empty, and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct From(Template<Place>);

/// The meaning of a word in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Hostname,
    Postmaster,
    Id,
    Sender,
    Subject,
    Recipients,
    Replies,
    Returned,
    Arrival,
    Until,
}

/// Why a text is not valid for a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordingError {
    /// The line of the error in the text, counted from 1.
    pub line: usize,
    what: String,
}

impl fmt::Display for WordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for WordingError {}

const EVERYWHERE: &[(&str, Place)] = &[
    ("hostname", Place::Hostname),
    ("postmaster", Place::Postmaster),
];
const OF_THE_MESSAGE: &[(&str, Place)] = &[
    ("id", Place::Id),
    ("sender", Place::Sender),
    ("subject", Place::Subject),
    ("recipients", Place::Recipients),
    ("arrival", Place::Arrival),
];
const OF_A_DELAY: &[(&str, Place)] = &[("until", Place::Until)];
const OF_A_TEXT: &[(&str, Place)] = &[("replies", Place::Replies), ("returned", Place::Returned)];

/// Most octets of an administrator's text. A longer one is an error.
const MAX_TEXT: usize = 64 << 10;

impl Wording {
    /// Returns the built-in texts.
    pub fn of(kind: NoticeKind) -> Wording {
        Wording {
            kind,
            from: None,
            subject: None,
            text: None,
        }
    }

    /// The template of the From field.
    pub(super) fn author_template(&self) -> Cow<'_, From> {
        let own = || {
            From(own(
                "Mail Delivery System <MAILER-DAEMON@{hostname}>",
                &[EVERYWHERE],
            ))
        };
        self.from
            .as_ref()
            .map_or_else(|| Cow::Owned(own()), Cow::Borrowed)
    }

    /// The template of the subject.
    pub(super) fn subject_template(&self) -> Cow<'_, Template<Place>> {
        let text = match self.kind {
            NoticeKind::Bounce => "Not delivered: {subject}",
            NoticeKind::Delay => "Delayed: {subject}",
            NoticeKind::Success => "Delivery report: {subject}",
        };
        let own = || own(text, &self.places(false));
        self.subject
            .as_ref()
            .map_or_else(|| Cow::Owned(own()), Cow::Borrowed)
    }

    /// The template of the text.
    pub(super) fn text_template(&self) -> Cow<'_, Template<Place>> {
        let text = match self.kind {
            NoticeKind::Bounce => include_str!("words/bounce.txt"),
            NoticeKind::Delay => include_str!("words/delay.txt"),
            NoticeKind::Success => include_str!("words/success.txt"),
        };
        let own = || own(text, &self.places(true));
        self.text
            .as_ref()
            .map_or_else(|| Cow::Owned(own()), Cow::Borrowed)
    }

    /// Replaces the From field: `Name <address>`, or an address. It may contain `{hostname}` and
    /// `{postmaster}`.
    ///
    /// # Errors
    /// If the text has an unknown word in braces, a line break or another control character, or no valid
    /// address.
    pub fn with_from(mut self, from: &str) -> Result<Wording, WordingError> {
        one_line(from)?;
        let from = From(parse(from, &[EVERYWHERE])?);
        from.check()?;
        self.from = Some(from);
        Ok(self)
    }

    /// Replaces the subject. It may contain `{hostname}`, `{postmaster}`, `{id}`, `{sender}`, `{subject}`,
    /// `{recipients}`, `{arrival}`, and in a notice of delay `{until}`.
    ///
    /// # Errors
    /// If the text has an unknown word in braces, a line break or another control character, or if it is
    /// empty.
    pub fn with_subject(mut self, subject: &str) -> Result<Wording, WordingError> {
        one_line(subject)?;
        self.subject = Some(parse(subject, &self.places(false))?);
        Ok(self)
    }

    /// Replaces the text. It may contain the words of a subject, and `{replies}` and `{returned}`.
    ///
    /// # Errors
    /// If the text has an unknown word in braces or a control character other than tab and line feed, if it
    /// is empty, or if it is longer than 64 KiB.
    pub fn with_text(mut self, text: &str) -> Result<Wording, WordingError> {
        let text = text.replace("\r\n", "\n");
        if text.len() > MAX_TEXT {
            return Err(WordingError::new(
                1,
                format!("longer than {MAX_TEXT} octets"),
            ));
        }
        not_empty(&text)?;
        no_controls(&text, &['\n', '\t'])?;
        self.text = Some(parse(&text, &self.places(true))?);
        Ok(self)
    }

    /// The From field, in the form that [`with_from`](Wording::with_from) takes.
    pub fn from(&self) -> String {
        self.author_template().0.written(Place::name)
    }

    /// The subject, in the form that [`with_subject`](Wording::with_subject) takes.
    pub fn subject(&self) -> String {
        self.subject_template().written(Place::name)
    }

    /// The text, in the form that [`with_text`](Wording::with_text) takes.
    pub fn text(&self) -> String {
        self.text_template().written(Place::name)
    }

    fn places(&self, text: bool) -> Vec<&'static [(&'static str, Place)]> {
        let mut places = vec![EVERYWHERE, OF_THE_MESSAGE];
        if self.kind == NoticeKind::Delay {
            places.push(OF_A_DELAY);
        }
        if text {
            places.push(OF_A_TEXT);
        }
        places
    }
}

impl Place {
    fn name(&self) -> &'static str {
        let all = [EVERYWHERE, OF_THE_MESSAGE, OF_A_DELAY, OF_A_TEXT];
        let mut all = all.into_iter().flatten();
        all.find(|(_, place)| place == self)
            .map_or("", |(name, _)| name)
    }
}

impl Default for Templates {
    fn default() -> Templates {
        Templates {
            bounce: Wording::of(NoticeKind::Bounce),
            delay: Wording::of(NoticeKind::Delay),
            success: Wording::of(NoticeKind::Success),
        }
    }
}

impl Templates {
    /// Returns the texts of this kind.
    pub fn of(&self, kind: NoticeKind) -> &Wording {
        match kind {
            NoticeKind::Bounce => &self.bounce,
            NoticeKind::Delay => &self.delay,
            NoticeKind::Success => &self.success,
        }
    }
}

impl From {
    /// Returns the name and the address.
    pub fn fill(&self, value: impl Fn(Place) -> String) -> (String, String) {
        let text = self.0.fill(|place| value(*place));
        let text = text.trim();
        match text
            .strip_suffix('>')
            .and_then(|text| text.rsplit_once('<'))
        {
            Some((name, address)) => {
                let name = name.trim();
                let bare = name
                    .strip_prefix('"')
                    .and_then(|name| name.strip_suffix('"'));
                (bare.unwrap_or(name).to_owned(), address.to_owned())
            }
            None => (String::new(), text.to_owned()),
        }
    }

    fn check(&self) -> Result<(), WordingError> {
        let (name, address) = self.fill(|place| match place {
            Place::Postmaster => "postmaster@mail.example.net".to_owned(),
            _ => "mail.example.net".to_owned(),
        });
        let what = match Address::parse(&address) {
            _ if address.contains([' ', ',', ';', '<', '>', '"', '(', ')', ':']) => {
                format!("{address:?} is not a single address; write `Name <address>`")
            }
            Err(error) => format!("{address:?}: {error}"),
            Ok(parsed) if parsed.domain().is_none() => {
                format!("{address:?} has no local part or no domain")
            },
            Ok(parsed) if !parsed.on_wire().is_ok_and(|wire| wire.is_ascii()) => {
                "this address must be ASCII, except for its domain: every mail system must understand it"
                    .to_owned()
            }
            Ok(_) if name.contains(['<', '>']) => "more than one pair of angle brackets".to_owned(),
            Ok(_) => return Ok(()),
        };
        Err(WordingError::new(1, what))
    }
}

impl WordingError {
    fn new(line: usize, what: impl Into<String>) -> WordingError {
        let what = what.into();
        WordingError { line, what }
    }
}

fn one_line(text: &str) -> Result<(), WordingError> {
    not_empty(text)?;
    if text.contains(['\r', '\n']) {
        return Err(WordingError::new(1, "a header field must be one line"));
    }
    no_controls(text, &[])
}

fn not_empty(text: &str) -> Result<(), WordingError> {
    if text.trim().is_empty() {
        Err(WordingError::new(1, "it is empty"))
    } else {
        Ok(())
    }
}

fn no_controls(text: &str, but: &[char]) -> Result<(), WordingError> {
    match text.find(|c: char| c.is_control() && !but.contains(&c)) {
        None => Ok(()),
        Some(at) => {
            let line = 1 + text[..at].matches('\n').count();
            Err(WordingError::new(line, "a control character"))
        }
    }
}

/// Parses a built-in text. Tests ensure that these are valid.
fn own(text: &str, places: &[&[(&'static str, Place)]]) -> Template<Place> {
    parse(text, places).unwrap_or_else(|error| unreachable!("{error}: {text}"))
}

fn parse(text: &str, places: &[&[(&'static str, Place)]]) -> Result<Template<Place>, WordingError> {
    let all = || places.iter().copied().flatten();
    let named = |word: &str| {
        all()
            .find(|(name, _)| *name == word)
            .map(|(_, place)| *place)
    };
    Template::parse(text, named).map_err(|error| {
        let what = match &error {
            TemplateError::Brace { .. } => error.to_string(),
            TemplateError::Unknown { word, .. } => {
                let names: Vec<String> = all().map(|(name, _)| format!("{{{name}}}")).collect();
                let names = names.join(", ");
                format!("{{{word}}} is not one of {names}; a brace itself is written twice")
            }
        };
        WordingError::new(error.line(), what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wording() -> Wording {
        Wording::of(NoticeKind::Bounce)
    }

    #[test]
    fn the_built_in_texts_can_be_set_again() {
        let own = Templates::default();
        for (kind, text) in [
            (NoticeKind::Bounce, include_str!("words/bounce.txt")),
            (NoticeKind::Delay, include_str!("words/delay.txt")),
            (NoticeKind::Success, include_str!("words/success.txt")),
        ] {
            let own = own.of(kind);
            assert_eq!(own.text(), text);
            let again = Wording::of(kind).with_text(&own.text()).unwrap();
            let again = again.with_subject(&own.subject()).unwrap();
            assert_eq!(&again.with_from(&own.from()).unwrap(), own);
        }
    }

    #[test]
    fn a_from_field_is_a_name_and_an_address() {
        let from = |text: &str| {
            let wording = wording()
                .with_from(text)
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(wording.author_template().fill(|place| match place {
                Place::Postmaster => "pm@h.test".to_owned(),
                _ => "h.test".to_owned(),
            }))
        };
        for (text, name, address) in [
            ("mailer@{hostname}", "", "mailer@h.test"),
            ("<{postmaster}>", "", "pm@h.test"),
            ("Die Post <x@y.test>", "Die Post", "x@y.test"),
            ("\"Post, die\" <x@y.test>", "Post, die", "x@y.test"),
            (
                "Zustellung für {hostname} <{postmaster}>",
                "Zustellung für h.test",
                "pm@h.test",
            ),
        ] {
            assert_eq!(
                from(text),
                Ok((name.to_owned(), address.to_owned())),
                "{text}"
            );
        }
        for (text, why) in [
            ("", "it is empty"),
            ("a@b..c", "neither a domain nor"),
            ("post", "no domain"),
            ("<@x>", "the part before the @ is empty"),
            ("a@b, c@d", "not a single address"),
            ("Post <a@b> <c@d>", "more than one pair"),
            ("ä@b.test", "ASCII"),
            ("a@b\r\nBcc: c@d", "one line"),
            ("a@b\u{1b}[31m", "control character"),
            (
                "{sender}",
                "{sender} is not one of {hostname}, {postmaster};",
            ),
            ("{hostname", "not closed"),
        ] {
            let error = from(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn words_for_a_delay_are_errors_elsewhere() {
        let error = wording().with_text("x\n\nuntil {until}").unwrap_err();
        assert_eq!(error.line, 3);
        let names = "{hostname}, {postmaster}, {id}, {sender}, {subject}, {recipients}, \
                     {arrival}, {replies}, {returned}";
        assert_eq!(
            error.to_string(),
            format!("{{until}} is not one of {names}; a brace itself is written twice")
        );
        assert!(wording().with_subject("{replies}").is_err());
        assert!(wording().with_subject("a\nb").is_err());
        assert!(wording().with_subject(" ").is_err());
        assert!(wording().with_text("\n\n").is_err());
        assert_eq!(wording().with_text("a\n\0").unwrap_err().line, 2);
        assert!(wording().with_text(&"x".repeat(70_000)).is_err());
        let delay = Wording::of(NoticeKind::Delay);
        assert!(delay.with_text("{until}\r\n{replies}").is_ok());
    }
}
