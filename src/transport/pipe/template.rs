//! An argument of a command, with places for what is only known at delivery.

use super::PipeError;

/// One argument. Filled in, it is one argument still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Sender,
    Recipient,
    Id,
}

/// What goes into the places.
pub(super) struct Values<'a> {
    pub(super) sender: &'a str,
    pub(super) recipient: &'a str,
    pub(super) id: &'a str,
}

impl Argument {
    pub(super) fn parse(argument: &str) -> Result<Argument, PipeError> {
        if argument.contains('\0') {
            return Err(PipeError::Nul(argument.to_owned()));
        }
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = argument;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            text += before;
            if let Some(behind) = from.strip_prefix("{{") {
                text.push('{');
                rest = behind;
            } else if let Some(behind) = from.strip_prefix("}}") {
                text.push('}');
                rest = behind;
            } else {
                let word = from.strip_prefix('{').and_then(|from| from.split_once('}'));
                let (word, behind) = word.ok_or_else(|| PipeError::Brace(argument.to_owned()))?;
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::named(word).ok_or_else(|| PipeError::Placeholder {
                    argument: argument.to_owned(),
                    word: word.to_owned(),
                })?);
                rest = behind;
            }
        }
        pieces.push(Piece::Text(text + rest));
        Ok(Argument(pieces))
    }

    /// The text, if there is nothing to fill in.
    pub(super) fn constant(&self) -> Option<String> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// The argument as the command gets it. A value is not looked at again: one that contains
    /// `{id}` keeps it.
    pub(super) fn fill(&self, values: &Values<'_>) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Sender => values.sender.to_owned(),
            Piece::Recipient => values.recipient.to_owned(),
            Piece::Id => values.id.to_owned(),
        };
        self.0.iter().map(piece).collect()
    }
}

impl Piece {
    fn named(word: &str) -> Option<Piece> {
        match word {
            "sender" => Some(Piece::Sender),
            "recipient" => Some(Piece::Recipient),
            "id" => Some(Piece::Id),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(argument: &str) -> String {
        let values = Values {
            sender: "",
            recipient: "{id} $(x)@example.org",
            id: "7",
        };
        Argument::parse(argument).unwrap().fill(&values)
    }

    #[test]
    fn places_are_filled_once() {
        assert_eq!(filled(""), "");
        assert_eq!(filled("--to={recipient}!"), "--to={id} $(x)@example.org!");
        assert_eq!(filled("{sender}{id}{id}"), "77");
        assert_eq!(filled("{{id}} {{{id}}} }}{{"), "{id} {7} }{");
    }

    #[test]
    fn mistakes_are_found_before_the_first_message() {
        let error = |argument| Argument::parse(argument).unwrap_err().to_string();
        assert_eq!(
            error("x{recipients}"),
            "\"x{recipients}\": {recipients} is not one of {sender}, {recipient}, {id}; \
             a brace itself is written twice"
        );
        for text in ["{", "}", "{id", "id}", "{{}", "{id}}"] {
            assert!(error(text).contains("not closed"), "{text}");
        }
        assert!(error("{}").contains("{} is not one of"));
        assert!(error("a\0b").contains("NUL"));
    }
}
