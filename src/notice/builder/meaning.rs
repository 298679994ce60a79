//! The meaning of enhanced status codes, in words for senders without technical knowledge (RFC 3463, and the
//! IANA registry that extends it).

use crate::message::{Address, EnhancedCode};

/// What happened, and what the sender of the message can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Whole sentences.
    pub what: &'static str,
    /// Whole sentences, or nothing.
    pub advice: &'static str,
}

/// Which of the two addresses has a non-ASCII local part, and so requires SMTPUTF8 (RFC 6531).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NonAscii {
    /// Neither.
    Neither,
    Sender,
    Recipient,
    Both,
}

const OTHERWISE: &str = "Send the message again later, or reach the recipient by other means.";
const SPELLING: &str = "Check the address for mistakes. If it is right, \
                        ask the recipient by other means for one that works.";
const DOMAIN: &str = "Check the part of the address after the @ for mistakes.";
const THEIR_POSTMASTER: &str = "Sending it again is unlikely to help. The recipient, or the postmaster \
                                of the recipient's mail system, may know the reason.";
const OUR_POSTMASTER: &str = "You cannot correct this; the postmaster named below can.";
const NOTHING: &str = "";

/// Subject, detail, what happened, what the sender can do.
#[rustfmt::skip]
const MEANINGS: &[(u16, u16, &str, &str)] = &[
    (1, 0, "Something is wrong with the address.", SPELLING),
    (1, 1, "There is no such mailbox.", SPELLING),
    (1, 2, "There is no mail system for the domain of the address.", DOMAIN),
    (1, 3, "The form of the address was not understood.", SPELLING),
    (1, 4, "The address could mean more than one mailbox.", SPELLING),
    (1, 6, "The mailbox has moved, and its new address is unknown.", SPELLING),
    (1, 7, "The form of your own address was not understood.", OUR_POSTMASTER),
    (1, 8, "The domain of your own address was not accepted.", OUR_POSTMASTER),
    (1, 10, "The domain of the address accepts no mail.", DOMAIN),
    (2, 0, "Something is wrong with the mailbox.", OTHERWISE),
    (2, 1, "The mailbox accepts no mail at present; it may have been closed.", OTHERWISE),
    (2, 2, "The mailbox is full.", OTHERWISE),
    (2, 3, "The message is larger than this mailbox accepts.",
        "Send a smaller one: without attachments, for example, or in parts."),
    (2, 4, "The mailing list could not be expanded.", OTHERWISE),
    (3, 0, "The mail system of the recipient has a fault.", OTHERWISE),
    (3, 1, "The mail system of the recipient has no space left.", OTHERWISE),
    (3, 2, "The mail system of the recipient accepts no mail at present.", OTHERWISE),
    (3, 3, "The message needs a feature that the mail system of the recipient does not have.", THEIR_POSTMASTER),
    (3, 4, "The message is larger than the mail system of the recipient accepts.",
        "Send a smaller one: without attachments, for example, or in parts."),
    (3, 5, "A mail system on the way is misconfigured.", OUR_POSTMASTER),
    (4, 0, "There was no route to the mail system of the recipient.", OTHERWISE),
    (4, 1, "The mail system of the recipient could not be reached.", OTHERWISE),
    (4, 2, "The connection to the mail system of the recipient broke off.", OTHERWISE),
    (4, 3, "The directory that holds the route to the recipient did not answer.", OTHERWISE),
    (4, 4, "No route to the mail system of the recipient is known.", DOMAIN),
    (4, 5, "The mail system of the recipient is overloaded.", OTHERWISE),
    (4, 6, "The message was caught in a mail loop.", OUR_POSTMASTER),
    (4, 7, "The time for delivery was over.", OTHERWISE),
    (5, 3, "The message has more recipients than are accepted at once.",
        "Send it again, to fewer recipients at a time."),
    (6, 0, "The message's content was not accepted.", THEIR_POSTMASTER),
    (6, 1, "The message's content is of a kind that is not accepted.",
        "Send it again in another form, for example without attachments."),
    (6, 2, "The message would have to be converted to be delivered, which is not allowed.", THEIR_POSTMASTER),
    (6, 3, "The message would have to be converted to be delivered, which is not possible.", THEIR_POSTMASTER),
    (7, 0, "The mail system of the recipient refused the message by its rules.", THEIR_POSTMASTER),
    (7, 1, "The mail system of the recipient refused the message by its rules.", THEIR_POSTMASTER),
    (7, 2, "You are not allowed to write to this mailing list.",
        "Ask the owner of the list."),
    (7, 13, "The account of the recipient has been closed.", OTHERWISE),
    (7, 17, "The mailbox now belongs to another person than before.", SPELLING),
    (7, 20, "The message has no valid signature (DKIM) of your domain.", OUR_POSTMASTER),
    (7, 21, "The message has no valid signature (DKIM) that is accepted.", OUR_POSTMASTER),
    (7, 22, "The message has no valid signature (DKIM) of its author's domain.", OUR_POSTMASTER),
    (7, 23, "Your domain does not allow this mail system to send its mail (SPF).", OUR_POSTMASTER),
    (7, 24, "Your domain's rules for sending its mail (SPF) are not understood.", OUR_POSTMASTER),
    (7, 25, "The address of this mail system has no name that is accepted (reverse DNS).", OUR_POSTMASTER),
    (7, 26, "The message failed more than one check of its origin (SPF, DKIM).", OUR_POSTMASTER),
    (7, 27, "The domain of your own address accepts no mail, so mail from it is refused.", OUR_POSTMASTER),
    (7, 28, "The recipient receives too much mail at present.", OTHERWISE),
];

/// For servers without SMTPUTF8 (X.6.7, X.6.9): the code says that some characters are unsupported, and the
/// addresses show which one has them.
const IN_THE_RECIPIENT: Meaning = Meaning {
    what: "The address has characters that the mail system of the recipient does not support.",
    advice: "Ask the recipient for an address that has no letters other than a to z before the @.",
};
const IN_THE_SENDER: Meaning = Meaning {
    what: "Your own address has characters that the mail system of the recipient does not support.",
    advice: "Send the message from an address that has no letters other than a to z before the @.",
};
const IN_BOTH: Meaning = Meaning {
    what: "The address and your own have characters that the mail system of the recipient does not support.",
    advice: "Both of you need an address that has no letters other than a to z before the @.",
};
const IN_THE_HEADER: Meaning = Meaning {
    what: "The message has characters in its header that the mail system of the recipient does not support.",
    advice: "Send it again with plain letters in the subject and in the names.",
};

impl NonAscii {
    /// Examines the addresses as sent to servers.
    pub fn of(sender: &Address, recipient: &Address) -> NonAscii {
        let is_ascii = |address: &Address| address.on_wire().is_ok_and(|wire| wire.is_ascii());
        match (is_ascii(sender), is_ascii(recipient)) {
            (true, true) => NonAscii::Neither,
            (false, true) => NonAscii::Sender,
            (true, false) => NonAscii::Recipient,
            (false, false) => NonAscii::Both,
        }
    }
}

/// For policy refusals, "no" and "not now" have different meanings.
const NOT_NOW: Meaning = Meaning {
    what: "The mail system of the recipient asks for another attempt later.",
    advice: OTHERWISE,
};

impl Meaning {
    /// Returns the meaning of a code, if it has one that people understand. `ours` means that no other mail
    /// system is involved: then some codes describe a fault of this system.
    pub fn of(code: EnhancedCode, ours: bool, non_ascii: NonAscii) -> Option<Meaning> {
        match (code.subject, code.detail, non_ascii) {
            (6, 9, _) | (6, 7, NonAscii::Neither) => return Some(IN_THE_HEADER),
            (6, 7, NonAscii::Sender) => return Some(IN_THE_SENDER),
            (6, 7, NonAscii::Recipient) => return Some(IN_THE_RECIPIENT),
            (6, 7, NonAscii::Both) => return Some(IN_BOTH),
            _ => {}
        }
        if (code.class, code.subject) == (4, 7) && code.detail <= 1 {
            return Some(NOT_NOW);
        }
        if ours && (code.subject, code.detail) == (3, 0) {
            return Some(Meaning {
                what: "A fault occurred in this mail system.",
                advice: OUR_POSTMASTER,
            });
        }
        let is_it =
            |entry: &&(u16, u16, &str, &str)| (entry.0, entry.1) == (code.subject, code.detail);
        let (_, _, what, advice) = MEANINGS.iter().find(is_it)?;
        Some(Meaning { what, advice })
    }

    /// Whether the meaning of a code depends on the characters of the addresses.
    pub fn is_of_characters(code: EnhancedCode) -> bool {
        (code.subject, code.detail) == (6, 7)
    }

    /// Returns the text for a code without a known meaning.
    pub fn unknown(ours: bool) -> Meaning {
        if ours {
            Meaning {
                what: NOTHING,
                advice: NOTHING,
            }
        } else {
            Meaning {
                what: "The mail system of the recipient did not accept the message.",
                advice: NOTHING,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_sentences_end() {
        assert!(MEANINGS.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
        for (_, _, what, advice) in MEANINGS {
            assert!(what.ends_with('.') && (advice.is_empty() || advice.ends_with('.')));
        }
    }

    #[test]
    fn no_and_not_now_are_told_apart() {
        let what = |code: &str| {
            Meaning::of(code.parse().unwrap(), false, NonAscii::Neither).map(|meaning| meaning.what)
        };
        assert!(what("5.7.1").unwrap().contains("refused"));
        assert!(what("4.7.1").unwrap().contains("later"));
        assert_eq!(what("5.2.2"), what("4.2.2"));
        assert_eq!(what("5.0.0"), None);
        assert_eq!(what("5.7.509"), None);
        let ours = Meaning::of(EnhancedCode::new(4, 3, 0), true, NonAscii::Neither).unwrap();
        assert!(ours.what.contains("this mail system"));
    }

    #[test]
    fn characters_are_blamed_on_the_address_that_has_them() {
        let address = |text: &str| Address::parse(text).unwrap();
        let what = |code: &str, sender: &str, recipient: &str| {
            let non_ascii = NonAscii::of(&address(sender), &address(recipient));
            Meaning::of(code.parse().unwrap(), false, non_ascii)
        };
        for (sender, recipient, expected) in [
            ("a@x.test", "ö@x.test", IN_THE_RECIPIENT),
            ("ö@x.test", "b@x.test", IN_THE_SENDER),
            ("ö@x.test", "ö@x.test", IN_BOTH),
            // A domain alone needs no SMTPUTF8.
            ("a@ü.test", "b@ü.test", IN_THE_HEADER),
            ("a@ü.test", "ö@x.test", IN_THE_RECIPIENT),
        ] {
            for code in ["5.6.7", "4.6.7"] {
                assert_eq!(
                    what(code, sender, recipient),
                    Some(expected),
                    "{sender} {recipient}"
                );
            }
            assert_eq!(what("5.6.9", sender, recipient), Some(IN_THE_HEADER));
        }
    }
}
