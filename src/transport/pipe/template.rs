//! An argument of a command, with placeholders for what is known only at delivery.

use super::PipeError;
use crate::message::template::{Template, TemplateError};

/// One argument. Filled in, it is still one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument(Template<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Sender,
    Recipient,
    Id,
}

/// The values for the placeholders.
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
        let template = Template::parse(argument, Place::named);
        template.map(Argument).map_err(|error| match error {
            TemplateError::Brace { .. } => PipeError::Brace(argument.to_owned()),
            TemplateError::Unknown { word, .. } => PipeError::Placeholder {
                argument: argument.to_owned(),
                word,
            },
        })
    }

    /// The text, if it has no placeholder.
    pub(super) fn constant(&self) -> Option<String> {
        self.0.constant().map(str::to_owned)
    }

    /// The argument that the command gets.
    pub(super) fn fill(&self, values: &Values<'_>) -> String {
        self.0.fill(|place| match place {
            Place::Sender => values.sender.to_owned(),
            Place::Recipient => values.recipient.to_owned(),
            Place::Id => values.id.to_owned(),
        })
    }
}

impl Place {
    fn named(word: &str) -> Option<Place> {
        match word {
            "sender" => Some(Place::Sender),
            "recipient" => Some(Place::Recipient),
            "id" => Some(Place::Id),
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
