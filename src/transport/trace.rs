//! What final delivery writes above a message, and takes out of it (RFC 5321, 4.4).
//!
//! A message has one `Return-Path`: its sender's, from the delivery that is final. One that it came
//! with is another delivery's, or invented, and a program that sends notices would believe it. So it
//! goes, wherever it stands in the header. `Delivered-To` stays: it names the mailboxes that the
//! message has been through, which is how others find a loop.

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
    /// At the message's beginning.
    pub fn new() -> Delivery {
        Delivery {
            strip: WithoutField::new("Return-Path"),
            end: None,
        }
    }

    /// What is delivered of the next block of a message. `is_last` says that nothing follows it.
    pub fn push<'a>(&mut self, block: &'a [u8], is_last: bool) -> Cow<'a, [u8]> {
        self.end.get_or_insert_with(|| header::line_ending(block));
        self.strip.push(block, is_last)
    }

    /// The fields above the message, in its line ending: after the first block. Addresses that have no
    /// room in a line are left out.
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
