//! A text with placeholders, which are words in braces. A literal brace is doubled.

/// A text with placeholders of type `P`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<P>(Vec<Piece<P>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<P> {
    Text(String),
    Place(P),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A single brace without its counterpart.
    #[error("a brace is not closed, or not opened; a brace itself is written twice")]
    Brace {
        /// Its line, counted from 1.
        line: usize,
    },
    /// A word in braces that is not a placeholder.
    #[error("{{{word}}} is no placeholder")]
    Unknown {
        /// The word.
        word: String,
        /// Its line, counted from 1.
        line: usize,
    },
}

impl TemplateError {
    /// The line of the error, counted from 1.
    pub fn line(&self) -> usize {
        match self {
            TemplateError::Brace { line } | TemplateError::Unknown { line, .. } => *line,
        }
    }
}

impl<P> Template<P> {
    /// Parses a text. `named` maps a word to its placeholder.
    ///
    /// # Errors
    /// A brace without its counterpart, or an unknown word.
    pub fn parse(
        text: &str,
        named: impl Fn(&str) -> Option<P>,
    ) -> Result<Template<P>, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain += before;
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else {
                let line = 1 + text[..text.len() - from.len()].matches('\n').count();
                let word = from.strip_prefix('{').and_then(|from| from.split_once('}'));
                let (word, after) = word.ok_or(TemplateError::Brace { line })?;
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Place(named(word).ok_or_else(|| {
                    TemplateError::Unknown {
                        word: word.to_owned(),
                        line,
                    }
                })?));
                rest = after;
            }
        }
        pieces.push(Piece::Text(plain + rest));
        Ok(Template(pieces))
    }

    /// Returns the text if it has no placeholders.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Formats the text for [`parse`](Template::parse), with the words that `name` returns.
    pub fn written(&self, name: impl Fn(&P) -> &'static str) -> String {
        let piece = |piece: &Piece<P>| match piece {
            Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Piece::Place(place) => format!("{{{}}}", name(place)),
        };
        self.0.iter().map(piece).collect()
    }

    /// Returns the text with its placeholders replaced. Values are inserted unchanged, even if they contain
    /// a word in braces.
    pub fn fill<'a>(&'a self, mut value: impl FnMut(&'a P) -> String) -> String {
        let piece = |piece: &'a Piece<P>| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Place(place) => value(place),
        };
        self.0.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digit(word: &str) -> Option<u8> {
        word.parse().ok()
    }

    #[test]
    fn placeholders_are_replaced_once() {
        let filled = |text| {
            let template = Template::parse(text, digit).unwrap();
            template.fill(|digit| format!("<{digit}>{{1}}"))
        };
        assert_eq!(filled(""), "");
        assert_eq!(filled("a{1}b"), "a<1>{1}b");
        assert_eq!(filled("{{1}} {{{2}}} }}{{"), "{1} {<2>{1}} }{");
        let template = Template::parse("{3}{{x}}{4}", digit).unwrap();
        let digits = ["0", "1", "2", "3", "4"];
        let written = template.written(|digit| digits[usize::from(*digit)]);
        assert_eq!(written, "{3}{{x}}{4}");
        assert_eq!(template.constant(), None);
        assert_eq!(Template::parse("}}", digit).unwrap().constant(), Some("}"));
    }

    #[test]
    fn errors_have_the_line() {
        for text in ["\n{", "x\n}", "\n{1", "{1}\n1}", "\n{{}", "{{\n{1}}"] {
            let line = 2;
            assert_eq!(
                Template::parse(text, digit),
                Err(TemplateError::Brace { line }),
                "{text}"
            );
        }
        let error = Template::parse("{1}\n\n {one}", digit).unwrap_err();
        assert_eq!(error.line(), 3);
        assert_eq!(error.to_string(), "{one} is no placeholder");
        assert!(Template::parse("{}", digit).is_err());
    }
}
