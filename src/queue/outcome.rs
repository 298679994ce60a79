//! The outcome of an attempt for one recipient, and the tables that decide it.

use serde::{Deserialize, Serialize};

use crate::message::{EnhancedCode, Reply, printable};

/// The four ways in which an attempt can end for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The destination accepted the message.
    Delivered,
    /// Temporary failure; attempts continue.
    Deferred,
    /// Permanent failure; the sender is notified.
    Failed,
    /// The reply was lost, so the outcome is not known. Attempts continue, which may deliver twice.
    Unknown,
}

impl Status {
    /// The enhanced status code of a reply for the log: the reply's, or x.0.0 if it has none.
    #[doc(hidden)]
    pub fn code_of(self, reply: &Reply) -> EnhancedCode {
        let class = match self {
            Status::Delivered => 2,
            Status::Failed => 5,
            Status::Deferred | Status::Unknown => 4,
        };
        reply.enhanced.unwrap_or(EnhancedCode::new(class, 0, 0))
    }
}

/// The kind of system that accepted a message. It decides which system sends a success notice, if the
/// sender asked for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// The final one, as far as this program can know: a mailbox or a program. This program sends the
    /// notice, with "delivered".
    #[default]
    Final,
    /// A host without DSN. This program sends the notice, with "relayed" (RFC 3461, 5.2.2).
    Relayed,
    /// A host with DSN, which has received the DSN parameters. That host sends the notice.
    PassedOn,
}

impl Handover {
    /// Whether no further host has to deliver the message.
    pub fn is_final(&self) -> bool {
        *self == Handover::Final
    }
}

/// The result for one recipient, with the reply that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The status.
    pub status: Status,
    /// For a delivered message: the kind of system that accepted it.
    #[doc(hidden)]
    pub handover: Handover,
    /// The reply of the destination, or a text of this program.
    #[doc(hidden)]
    pub reply: Reply,
}

impl Outcome {
    /// Final delivery (`Handover::Final`).
    pub fn delivered(text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Delivered, EnhancedCode::new(2, 0, 0), text)
    }

    /// Sets the kind of system that accepted the message.
    #[doc(hidden)]
    pub fn handed(self, handover: Handover) -> Outcome {
        Outcome { handover, ..self }
    }

    /// Sets the host, with its address and port, that the connection was to.
    #[doc(hidden)]
    pub fn by(mut self, relay: &str) -> Outcome {
        self.reply.relay = Some(relay.to_owned());
        self
    }

    /// Temporary failure, for a reason found by this program.
    pub fn deferred(enhanced: EnhancedCode, text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Deferred, enhanced, text)
    }

    /// Permanent failure, for a reason found by this program.
    pub fn failed(enhanced: EnhancedCode, text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Failed, enhanced, text)
    }

    /// The reply was lost.
    #[doc(hidden)]
    pub fn unknown(text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Unknown, EnhancedCode::new(4, 4, 2), text)
    }

    /// An attempt without a recorded end.
    #[doc(hidden)]
    pub fn interrupted() -> Outcome {
        let text = "the attempt was interrupted; its outcome is not known";
        Outcome::local(Status::Unknown, EnhancedCode::new(4, 3, 0), text)
    }

    fn local(status: Status, enhanced: EnhancedCode, text: impl AsRef<str>) -> Outcome {
        Outcome {
            status,
            handover: Handover::Final,
            reply: Reply::local(enhanced, text),
        }
    }

    /// Returns the outcome of a delivery program.
    ///
    /// The exit status decides whether the program accepted the message: 0 means yes, anything else means
    /// no, regardless of the output. For another status than 0, an enhanced status code at the beginning of
    /// the output chooses between deferred (4.x.y) and failed (5.x.y). Without a code, the table of
    /// sysexits(3) decides, and a status that is not in the table defers. `output` becomes the diagnostic.
    ///
    /// The code must have a registered subject. `2.38.1 importer: locked` begins with a version, which
    /// stays part of the diagnostic.
    #[doc(hidden)]
    pub fn of_exit(exit: Exit, output: &str) -> Outcome {
        let output = output.trim();
        let (status, enhanced) = exit.meaning();
        let chosen = |code: EnhancedCode| match (exit, code.class) {
            (Exit::Code(0), 2) => Some(Status::Delivered),
            (Exit::Code(1..) | Exit::Code(..0), 4) => Some(Status::Deferred),
            (Exit::Code(1..) | Exit::Code(..0), 5) => Some(Status::Failed),
            // The code contradicts the exit status. If a signal ended the program, its output does not
            // decide anything.
            _ => None,
        };
        let printed = EnhancedCode::at_start_of(output)
            .filter(|(code, _)| code.is_registered())
            .and_then(|(code, rest)| Some((chosen(code)?, code, rest)));
        let (status, enhanced, text) = printed.unwrap_or((status, enhanced, output));
        // Without printable output, the text states how the program ended.
        let text = match printable(text).as_str() {
            "" => exit.text(),
            words => words.to_owned(),
        };
        Outcome::local(status, enhanced, text)
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The table of sysexits(3): status and enhanced status code.
    fn meaning(self) -> (Status, EnhancedCode) {
        let code = EnhancedCode::new;
        match self {
            Exit::Code(0) => (Status::Delivered, code(2, 0, 0)),
            Exit::Code(64) => (Status::Failed, code(5, 3, 0)), // EX_USAGE
            Exit::Code(65) => (Status::Failed, code(5, 6, 0)), // EX_DATAERR
            Exit::Code(67) => (Status::Failed, code(5, 1, 1)), // EX_NOUSER
            Exit::Code(68) => (Status::Failed, code(5, 1, 2)), // EX_NOHOST
            Exit::Code(69) => (Status::Failed, code(5, 3, 0)), // EX_UNAVAILABLE
            Exit::Code(70) => (Status::Failed, code(5, 3, 0)), // EX_SOFTWARE
            Exit::Code(76) => (Status::Failed, code(5, 5, 0)), // EX_PROTOCOL
            Exit::Code(77) => (Status::Failed, code(5, 7, 0)), // EX_NOPERM
            Exit::Code(71) => (Status::Deferred, code(4, 3, 0)), // EX_OSERR
            Exit::Code(72) => (Status::Deferred, code(4, 3, 5)), // EX_OSFILE
            Exit::Code(73) => (Status::Deferred, code(4, 3, 0)), // EX_CANTCREAT
            Exit::Code(74) => (Status::Deferred, code(4, 3, 0)), // EX_IOERR
            Exit::Code(75) => (Status::Deferred, code(4, 0, 0)), // EX_TEMPFAIL
            Exit::Code(78 | 126 | 127) => (Status::Deferred, code(4, 3, 5)), // not configured
            Exit::Code(_) | Exit::Signal(_) => (Status::Deferred, code(4, 3, 0)),
        }
    }

    fn text(self) -> String {
        match self {
            Exit::Code(0) => "delivered by command".to_owned(),
            Exit::Code(code) => format!("the command exited with status {code}"),
            Exit::Signal(signal) => format!("the command was ended by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprintable_output_is_no_output() {
        for output in ["\u{9b}", "\u{1b}\u{202e} \u{7}"] {
            let outcome = Outcome::of_exit(Exit::Code(75), output);
            assert_eq!(outcome.reply.text, "the command exited with status 75");
        }
        let outcome = Outcome::of_exit(Exit::Code(1), "5.2.2 \u{9b}");
        let words = "5.2.2 the command exited with status 1";
        assert_eq!(outcome.reply.to_string(), words);
    }

    #[test]
    fn the_exit_table_is_as_documented() {
        for code in -1..=300 {
            let expected = match code {
                0 => Status::Delivered,
                64 | 65 | 67 | 68 | 69 | 70 | 76 | 77 => Status::Failed,
                _ => Status::Deferred,
            };
            let outcome = Outcome::of_exit(Exit::Code(code), "");
            assert_eq!(outcome.status, expected, "{code}");
            let class = outcome.reply.enhanced.unwrap().class;
            assert_eq!(
                class,
                match expected {
                    Status::Delivered => 2,
                    Status::Failed => 5,
                    _ => 4,
                }
            );
        }
        assert_eq!(
            Outcome::of_exit(Exit::Signal(9), "").status,
            Status::Deferred
        );
    }

    /// Returns the outcome for an exit status and an output.
    fn of(code: i32, output: &str) -> (Status, String) {
        let outcome = Outcome::of_exit(Exit::Code(code), output);
        (outcome.status, outcome.reply.to_string())
    }

    #[test]
    fn the_exit_status_decides_whether_a_message_was_taken() {
        use Status::{Deferred, Delivered, Failed};
        for (code, output, status, reply) in [
            // Refused, regardless of the output.
            (75, "2.0.0 ok", Deferred, "4.0.0 2.0.0 ok"),
            (
                75,
                "2.38.1 importer: database is locked",
                Deferred,
                "4.0.0 2.38.1 importer: database is locked",
            ),
            (67, "2.1.5 ok", Failed, "5.1.1 2.1.5 ok"),
            (1, "2.0.0", Deferred, "4.3.0 2.0.0"),
            (-1, "2.0.0", Deferred, "4.3.0 2.0.0"),
            // Accepted, regardless of the output.
            (0, "4.19.0 starting", Delivered, "2.0.0 4.19.0 starting"),
            (0, "4.2.2 full", Delivered, "2.0.0 4.2.2 full"),
            (0, "5.36.0 done", Delivered, "2.0.0 5.36.0 done"),
            (0, "5.7.1 no", Delivered, "2.0.0 5.7.1 no"),
            (0, "2.1.5 stored", Delivered, "2.1.5 stored"),
            (0, "2.8.0 stored", Delivered, "2.0.0 2.8.0 stored"),
            // A code chooses between deferred and failed.
            (
                1,
                "5.2.1 mailbox disabled\n",
                Failed,
                "5.2.1 mailbox disabled",
            ),
            (75, "5.7.509 not you", Failed, "5.7.509 not you"),
            (67, "4.2.2 full", Deferred, "4.2.2 full"),
            (127, "5.3.5 gone for good", Failed, "5.3.5 gone for good"),
            // A version is not a code.
            (75, "5.36.0 perl", Deferred, "4.0.0 5.36.0 perl"),
            (1, "5.8.0 x", Deferred, "4.3.0 5.8.0 x"),
            (67, "4.19.0 starting", Failed, "5.1.1 4.19.0 starting"),
        ] {
            assert_eq!(
                of(code, output),
                (status, reply.to_owned()),
                "{code} {output}"
            );
        }
        for output in ["2.0.0 ok", "4.2.2 full", "5.1.1 no such user"] {
            let outcome = Outcome::of_exit(Exit::Signal(9), output);
            assert_eq!(outcome.status, Status::Deferred);
            assert_eq!(outcome.reply.to_string(), format!("4.3.0 {output}"));
        }
        assert_eq!(
            of(67, "no such user \u{1b}[31m").1,
            "5.1.1 no such user [31m"
        );
    }
}
