//! `[notice]`: when delay notices are sent, how much of a message is returned, and the wording.

use std::path::PathBuf;

use toml::Spanned;

use super::raw::{RawNotice, RawWording};
use super::value::{Text, at, spans};
use super::{Error, signed};
use crate::message::NoticeKind;
use crate::notice::{Templates, Wording, WordingError};
use crate::queue::{DelayAges, Schedule};

/// `[notice]`.
#[derive(Clone, Debug)]
pub struct Notices {
    /// The ages of a message at which a delay notice is sent.
    pub delays: DelayAges,
    /// The most octets of a message that a notice returns whole; of larger ones, the header.
    pub return_whole: u64,
    /// The wording, except for texts in files.
    pub templates: Templates,
    /// Texts in files.
    pub files: Vec<TextFile>,
}

/// A `text_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// The kind of notice.
    pub kind: NoticeKind,
    /// The file; a relative path is below the spool.
    pub path: PathBuf,
    /// The place in the configuration: its name and the line.
    pub place: String,
}

impl Text<'_> {
    pub(super) fn notices(&self, raw: &mut RawNotice) -> Result<Notices, Error> {
        let mut files = Vec::new();
        let mut wording = |kind, raw: &mut RawWording| {
            let given = raw.text_file.as_ref().map(|path| TextFile {
                kind,
                path: path.get_ref().clone(),
                place: self.place(path.span()),
            });
            files.extend(given);
            self.wording(kind, raw)
        };
        Ok(Notices {
            delays: self.delays(&mut raw.delay)?,
            return_whole: raw.return_whole.0,
            templates: Templates {
                bounce: wording(NoticeKind::Bounce, &mut raw.bounce)?,
                delay: wording(NoticeKind::Delay, &mut raw.delay)?,
                success: wording(NoticeKind::Success, &mut raw.success)?,
            },
            files,
        })
    }

    fn delays(&self, raw: &mut RawWording) -> Result<DelayAges, Error> {
        let ages = match &raw.after {
            None => DelayAges::default(),
            Some(given) => {
                let ages: Vec<_> = given.get_ref().iter().map(|age| signed(age.0)).collect();
                if ages.iter().any(|age| *age < Schedule::SHORTEST) {
                    let what = "a delay notice needs an age of at least a minute; [] means never";
                    return Err(self.error(given.span(), what));
                }
                DelayAges::new(ages)
            }
        };
        raw.after = Some(at(spans(ages.ages())));
        Ok(ages)
    }

    fn wording(&self, kind: NoticeKind, raw: &mut RawWording) -> Result<Wording, Error> {
        if let (Some(_), Some(file)) = (&raw.text, &raw.text_file) {
            let what = "a notice has either `text` or `text_file`";
            return Err(self.error(file.span(), what));
        }
        if let (Some(after), false) = (&raw.after, kind == NoticeKind::Delay) {
            let what = "only [notice.delay] has `after`: the other notices are sent at once";
            return Err(self.error(after.span(), what));
        }
        let mut wording = Wording::of(kind);
        type With = fn(Wording, &str) -> Result<Wording, WordingError>;
        let given: [(_, &str, With); 3] = [
            (&raw.from, "from", Wording::with_from),
            (&raw.subject, "subject", Wording::with_subject),
            (&raw.text, "text", Wording::with_text),
        ];
        for (given, key, with) in given {
            if let Some(given) = given {
                let error = |error| self.wrong_words(given, key, &error);
                wording = with(wording, given.get_ref()).map_err(error)?;
            }
        }
        raw.from = Some(at(wording.from()));
        raw.subject = Some(at(wording.subject()));
        if raw.text_file.is_none() {
            raw.text = Some(at(wording.text()));
        }
        Ok(wording)
    }

    /// Returns the error for a wording. It names the line of the mistake if the text spans several.
    fn wrong_words(&self, given: &Spanned<String>, key: &str, error: &WordingError) -> Error {
        let span = given.span();
        let source = self.text.get(span.clone()).unwrap_or("");
        // A string in triple quotes starts after the quotes, or after a line break that is not part of it.
        // In other strings a line of the text is not a line of the file.
        let quotes = ["\"\"\"", "'''"];
        let lines = match quotes.iter().find_map(|quotes| source.strip_prefix(quotes)) {
            Some(rest) => error.line - 1 + usize::from(rest.starts_with(['\n', '\r'])),
            None => 0,
        };
        let line_ends = source.match_indices('\n').map(|(at, _)| at + 1);
        let at = [0].into_iter().chain(line_ends).nth(lines).unwrap_or(0);
        self.error(span.start + at..span.end, format!("{key}: {error}"))
    }
}
