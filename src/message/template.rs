//! A text with places for what is only known later: a word in braces. A brace itself is written
//! twice.

/// A text, and the places in it; `P` names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<P>(Vec<Piece<P>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<P> {
    Text(String),
    Place(P),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A single brace without its other half.
    #[error("a brace is not closed, or not opened; a brace itself is written twice")]
    Brace {
        /// The line it stands in, counted from 1.
        line: usize,
    },
    /// A word in braces that names no place.
    #[error("{{{word}}} is no placeholder")]
    Unknown {
        /// The word.
        word: String,
        /// The line it stands in, counted from 1.
        line: usize,
    },
}

impl TemplateError {
    /// The line of the text, counted from 1.
    pub fn line(&self) -> usize {
        match self {
            TemplateError::Brace { line } | TemplateError::Unknown { line, .. } => *line,
        }
    }
}

impl<P> Template<P> {
    /// Reads a text; `named` knows the words.
    ///
    /// # Errors
    /// A brace without its other half, a word that is unknown.
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
            if let Some(behind) = from.strip_prefix("{{") {
                plain.push('{');
                rest = behind;
            } else if let Some(behind) = from.strip_prefix("}}") {
                plain.push('}');
                rest = behind;
            } else {
                let line = 1 + text[..text.len() - from.len()].matches('\n').count();
                let word = from.strip_prefix('{').and_then(|from| from.split_once('}'));
                let (word, behind) = word.ok_or(TemplateError::Brace { line })?;
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Place(named(word).ok_or_else(|| {
                    TemplateError::Unknown {
                        word: word.to_owned(),
                        line,
                    }
                })?));
                rest = behind;
            }
        }
        pieces.push(Piece::Text(plain + rest));
        Ok(Template(pieces))
    }

    /// The text, if there is nothing to fill in.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text as [`parse`](Template::parse) reads it, with the words that `name` gives.
    pub fn written(&self, name: impl Fn(&P) -> &'static str) -> String {
        let piece = |piece: &Piece<P>| match piece {
            Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Piece::Place(place) => format!("{{{}}}", name(place)),
        };
        self.0.iter().map(piece).collect()
    }

    /// The text with everything filled in. A value is not looked at again: one that contains a
    /// word in braces keeps it.
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
    fn places_are_filled_once() {
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
    fn mistakes_name_their_line() {
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
