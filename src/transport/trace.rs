//! What final delivery adds above a message, and removes from it (RFC 5321, 4.4).
//!
//! A message has one `Return-Path`: that of the final delivery, with the sender. A `Return-Path` that it
//! arrived with is from another delivery or forged, and a program that sends notices would use it. So it is
//! removed, wherever it is in the header. `Delivered-To` stays: it names the mailboxes that the message has
//! passed, which is how other programs detect a loop.

use std::borrow::Cow;

use super::Message;
use crate::message::strip::WithoutField;
use crate::message::{Address, field, header};

/// A message as it is delivered, block by block.
pub(super) struct Delivery {
    strip: WithoutField,
    end: Option<&'static str>,
}

impl Delivery {
    /// Starts at the beginning of the message.
    pub fn new() -> Delivery {
        Delivery {
            strip: WithoutField::new("Return-Path"),
            end: None,
        }
    }

    /// Returns what is delivered for the next block of a message. `is_last` says that no block follows.
    pub fn push<'a>(&mut self, block: &'a [u8], is_last: bool) -> Cow<'a, [u8]> {
        self.end.get_or_insert_with(|| header::line_ending(block));
        self.strip.push(block, is_last)
    }

    /// Returns the fields above the message, with the line ending of the message; call it after the first
    /// block. Addresses that do not fit in a line are left out.
    pub fn head(&self, message: &Message, recipient: Option<&Address>) -> String {
        let end = self.end.unwrap_or("\n");
        let mut head = String::new();
        let sender = format!("<{}>", message.sender.as_str());
        field::write_whole(&mut head, "Return-Path", &sender, end);
        if let Some(recipient) = recipient {
            field::write_whole(&mut head, "Delivered-To", recipient.as_str(), end);
        }
        head
    }
}
