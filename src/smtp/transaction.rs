//! One message for some recipients, and the commands for it (RFC 5321, RFC 3461).

use std::borrow::Cow;

use super::capabilities::Capabilities;
use super::content::{Framing, MAX_LINE, Shape};
use crate::message::domain::NotADomain;
use crate::message::dsn::encoded_envid;
use crate::message::{Address, Dsn, RecipientDsn, Ret, ReversePath};

/// What is to be sent, without the message itself.
#[derive(Clone, Debug)]
pub struct Transaction<'a> {
    /// The address for notices.
    pub sender: &'a ReversePath,
    /// The recipients; each gets a separate outcome.
    pub recipients: &'a [Address],
    /// The shape of the message. It is measured once for all transactions with that message.
    pub shape: Shape,
    /// The DSN parameters, sent if the next server offers DSN ([`Capabilities::dsn`] tells). If it does
    /// not, the client has to send the notices itself. A parameter that cannot be sent, because it is too
    /// long or not ASCII, is dropped: no message fails for it. By default there are none.
    pub dsn: Option<&'a Dsn>,
}

impl Transaction<'_> {
    /// How the message is sent: by DATA, unless it has NULs, lone CRs or overlong lines, which DATA cannot
    /// carry, and the server offers BDAT.
    ///
    /// BDAT would save doubling the dots of every message, but few clients use it, and its bugs show late.
    /// It is not sent before the replies to RCPT either: a connection lost then would leave every outcome
    /// unknown.
    pub fn framing(&self, caps: &Capabilities) -> Framing {
        let Shape {
            has_nul,
            has_lone_cr,
            longest_line,
            is_signed,
            ..
        } = self.shape;
        match caps.chunking && (has_nul || has_lone_cr || longest_line > MAX_LINE) {
            true => Framing::Counted,
            false if is_signed => Framing::Unfolded,
            false => Framing::Dots,
        }
    }

    /// Octets of the message as sent.
    pub fn size(&self, framing: Framing) -> u64 {
        match framing {
            Framing::Counted => self.shape.size,
            Framing::Dots | Framing::Unfolded => self.shape.size_in_data,
        }
    }

    /// Writes MAIL. `utf8` declares SMTPUTF8.
    pub fn write_mail(&self, caps: &Capabilities, utf8: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MAIL FROM:<");
        let sender = self.sender.on_wire();
        out.extend_from_slice(sender.as_deref().unwrap_or(self.sender.as_str()).as_bytes());
        out.push(b'>');
        let framing = self.framing(caps);
        if caps.size {
            out.extend_from_slice(format!(" SIZE={}", self.size(framing)).as_bytes());
        }
        // A message sent by BDAT is not text, and is declared so if possible (RFC 3030 3). Without 8BITMIME
        // an 8-bit message is sent unchanged, as by Exim and qmail. Postfix would recode it, which breaks
        // signatures; failing it would return mail that practically every server accepts. The same holds
        // for BINARYMIME.
        if framing == Framing::Counted && caps.binary_mime {
            out.extend_from_slice(b" BODY=BINARYMIME");
        } else if caps.eight_bit_mime && self.shape.has_eight_bit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if utf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if let Some(dsn) = self.dsn.filter(|_| caps.dsn) {
            match dsn.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = dsn.envid.as_deref().and_then(encoded_envid) {
                out.extend_from_slice(b" ENVID=");
                out.extend_from_slice(envid.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes RCPT for one of the recipients.
    pub fn write_rcpt(&self, index: usize, caps: &Capabilities, out: &mut Vec<u8>) {
        out.extend_from_slice(b"RCPT TO:<");
        let recipient = &self.recipients[index];
        let wire = recipient.on_wire();
        out.extend_from_slice(wire.as_deref().unwrap_or(recipient.as_str()).as_bytes());
        out.push(b'>');
        let dsn = self.dsn.filter(|_| caps.dsn);
        if let Some(dsn) = dsn.and_then(|dsn| dsn.recipients.get(index)) {
            write_wishes(dsn, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether an address can be sent only to a server with SMTPUTF8.
pub(super) fn needs_utf8(on_wire: Result<Cow<'_, str>, NotADomain>) -> bool {
    on_wire.is_ok_and(|address| !address.is_ascii())
}

fn write_wishes(dsn: &RecipientDsn, out: &mut Vec<u8>) {
    match dsn.notify {
        None => {}
        Some(notify) => {
            let words = notify.to_string().to_ascii_uppercase();
            if !words.is_empty() {
                out.extend_from_slice(b" NOTIFY=");
                out.extend_from_slice(words.as_bytes());
            }
        }
    }
    if let Some(original) = dsn.original.as_ref().and_then(|word| word.encoded()) {
        out.extend_from_slice(b" ORCPT=");
        out.extend_from_slice(original.as_bytes());
    }
}

/// Whether an address can be written between `<` and `>` without ambiguity. This permits much that the
/// grammar forbids, but a blank or a bracket outside quotes would be read as a parameter.
pub fn is_path(address: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for c in address.chars() {
        if c.is_control() {
            return false;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '<' | '>' | ' ' if !quoted => return false,
            _ => {}
        }
    }
    !quoted && !escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Notify, OriginalRecipient};

    fn all() -> Capabilities {
        Capabilities {
            size: true,
            eight_bit_mime: true,
            smtp_utf8: true,
            dsn: true,
            chunking: true,
            ..Capabilities::default()
        }
    }

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parameters_go_only_to_servers_that_know_them() {
        let sender = ReversePath::parse("ö@example.org".as_bytes()).unwrap();
        let recipients = [Address::parse("b@example.net").unwrap()];
        let dsn = Dsn {
            ret: Some(Ret::Headers),
            envid: Some("a+b=c d".into()),
            recipients: vec![RecipientDsn {
                notify: Some(Notify::When {
                    success: true,
                    failure: false,
                    delay: true,
                }),
                original: Some(OriginalRecipient {
                    kind: "rfc822".into(),
                    address: "x=y@example.net".into(),
                }),
            }],
        };
        let transaction = Transaction {
            sender: &sender,
            recipients: &recipients,
            shape: Shape {
                size_in_data: 1234,
                has_eight_bit: true,
                ..Shape::default()
            },
            dsn: Some(&dsn),
        };
        assert_eq!(
            written(|out| transaction.write_mail(&all(), true, out)),
            "MAIL FROM:<ö@example.org> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS \
             ENVID=a+2Bb+3Dc+20d\r\n"
        );
        assert_eq!(
            written(|out| transaction.write_rcpt(0, &all(), out)),
            "RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy@example.net\r\n"
        );
        let none = Capabilities::default();
        assert_eq!(
            written(|out| transaction.write_mail(&none, false, out)),
            "MAIL FROM:<ö@example.org>\r\n"
        );
        assert_eq!(
            written(|out| transaction.write_rcpt(0, &none, out)),
            "RCPT TO:<b@example.net>\r\n"
        );
    }

    #[test]
    fn an_original_recipient_in_utf8_is_carried_in_ascii() {
        let dsn = RecipientDsn {
            notify: Some(Notify::Never),
            original: Some(OriginalRecipient {
                kind: "utf-8".into(),
                address: "ö+x@example.org".into(),
            }),
        };
        assert_eq!(
            written(|out| write_wishes(&dsn, out)),
            " NOTIFY=NEVER ORCPT=utf-8;\\x{F6}\\x{2B}x@example.org"
        );
        let smuggled = RecipientDsn {
            notify: None,
            original: Some(OriginalRecipient {
                kind: "x\r\nDATA".into(),
                address: "\r\nDATA".into(),
            }),
        };
        assert_eq!(written(|out| write_wishes(&smuggled, out)), "");
    }

    /// Postfix answers 501 to an ENVID that is not ASCII once decoded.
    #[test]
    fn a_parameter_that_cannot_be_sent_is_dropped() {
        for envid in ["", "ö", "a\nb", &"x".repeat(101)] {
            let dsn = Dsn {
                envid: Some(envid.into()),
                ..Dsn::default()
            };
            let transaction = Transaction {
                sender: &ReversePath::Null,
                recipients: &[],
                shape: Shape::default(),
                dsn: Some(&dsn),
            };
            let caps = Capabilities {
                dsn: true,
                ..Capabilities::default()
            };
            let mail = written(|out| transaction.write_mail(&caps, false, out));
            assert_eq!(mail, "MAIL FROM:<>\r\n", "{envid:?}");
        }
        for (kind, address) in [
            ("rfc822", "ö@b"),
            ("utf-8", "a\r\nb"),
            ("rfc822", &*"x".repeat(500)),
        ] {
            let dsn = RecipientDsn {
                notify: None,
                original: Some(OriginalRecipient {
                    kind: kind.into(),
                    address: address.into(),
                }),
            };
            assert_eq!(written(|out| write_wishes(&dsn, out)), "", "{address:?}");
        }
    }

    #[test]
    fn an_address_stays_within_its_brackets() {
        for good in [
            "a@b",
            "alice",
            "\"a b\"@c",
            "\"a>\\\"b\"@c",
            "a\\ b@c",
            "ö@c",
            "@x:a@b",
        ] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "a@b> SIZE=1",
            "a b@c",
            "<a@b",
            "\"a@b",
            "a@b\\",
            "a@b NOTIFY=NEVER",
            "a\n@b",
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn a_message_that_is_no_text_is_declared_so_where_that_may_be() {
        let mail = |shape: Shape, caps: &Capabilities| {
            let transaction = Transaction {
                sender: &ReversePath::Null,
                recipients: &[],
                shape,
                dsn: None,
            };
            written(|out| transaction.write_mail(caps, false, out))
        };
        let binary = Shape {
            size: 20,
            size_in_data: 18,
            has_nul: true,
            has_eight_bit: true,
            ..Shape::default()
        };
        let text = Shape {
            has_nul: false,
            ..binary
        };
        let caps = Capabilities {
            size: true,
            eight_bit_mime: true,
            chunking: true,
            binary_mime: true,
            ..Capabilities::default()
        };
        let no_binary = Capabilities {
            binary_mime: false,
            ..caps.clone()
        };
        let no_chunking = Capabilities {
            chunking: false,
            ..caps.clone()
        };
        for (shape, caps, said) in [
            (binary, &caps, "SIZE=20 BODY=BINARYMIME"),
            (text, &caps, "SIZE=18 BODY=8BITMIME"),
            (binary, &no_binary, "SIZE=20 BODY=8BITMIME"),
            (binary, &no_chunking, "SIZE=18 BODY=8BITMIME"),
        ] {
            assert_eq!(mail(shape, caps), format!("MAIL FROM:<> {said}\r\n"));
        }
    }

    #[test]
    fn bdat_is_for_what_data_cannot_carry() {
        let sender = ReversePath::Null;
        let plain = Shape::default();
        let nul = Shape {
            has_nul: true,
            ..plain
        };
        let cr = Shape {
            has_lone_cr: true,
            ..plain
        };
        let long = Shape {
            longest_line: 999,
            ..plain
        };
        let signed = Shape {
            is_signed: true,
            ..long
        };
        let none = Capabilities::default();
        for (shape, caps, framing) in [
            (plain, all(), Framing::Dots),
            (nul, all(), Framing::Counted),
            (cr, all(), Framing::Counted),
            (long, all(), Framing::Counted),
            (signed, all(), Framing::Counted),
            (long, none.clone(), Framing::Dots),
            (signed, none, Framing::Unfolded),
        ] {
            let transaction = Transaction {
                sender: &sender,
                recipients: &[],
                shape,
                dsn: None,
            };
            assert_eq!(transaction.framing(&caps), framing, "{shape:?}");
        }
    }
}
