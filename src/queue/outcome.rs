//! What became of a recipient in an attempt, and the tables that decide it.

use serde::{Deserialize, Serialize};

use crate::message::{EnhancedCode, Reply, printable};

/// The four ways an attempt can end for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The next hop has taken the message.
    Delivered,
    /// Not now; it is tried again.
    Deferred,
    /// Never; the sender is told.
    Failed,
    /// Nobody knows: the answer was lost. It is tried again, which may deliver twice.
    Unknown,
}

impl Status {
    /// The enhanced status code of a reply, as it is logged: its own, or x.0.0 if the server gave
    /// none.
    pub fn code_of(self, reply: &Reply) -> EnhancedCode {
        let class = match self {
            Status::Delivered => 2,
            Status::Failed => 5,
            Status::Deferred | Status::Unknown => 4,
        };
        reply.enhanced.unwrap_or(EnhancedCode::new(class, 0, 0))
    }
}

/// Who has a message that was delivered, and so who tells the sender of it, if he wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// The recipient, as far as anybody can know: a mailbox, a program. We tell: "delivered".
    #[default]
    Final,
    /// A host that does not offer DSN. We tell: "relayed" (RFC 3461, 5.2.2).
    Relayed,
    /// A host that offers DSN, and has the sender's wishes with it. It tells.
    PassedOn,
}

impl Handover {
    /// Whether nobody behind us has it to deliver.
    pub fn is_final(&self) -> bool {
        *self == Handover::Final
    }
}

/// What became of one recipient, and in whose words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Which of the four.
    pub status: Status,
    /// Of what was delivered: who has it now.
    pub handover: Handover,
    /// The next hop's answer, or our own words.
    pub reply: Reply,
}

impl Outcome {
    /// The next hop has taken the message, for good ([`Handover::Final`]).
    pub fn delivered(text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Delivered, EnhancedCode::new(2, 0, 0), text)
    }

    /// The same, with who has it now.
    pub fn handed(self, handover: Handover) -> Outcome {
        Outcome { handover, ..self }
    }

    /// With the host that was spoken to, its address and port.
    pub fn by(mut self, relay: &str) -> Outcome {
        self.reply.relay = Some(relay.to_owned());
        self
    }

    /// Not now, for a reason of ours.
    pub fn deferred(enhanced: EnhancedCode, text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Deferred, enhanced, text)
    }

    /// Never, for a reason of ours.
    pub fn failed(enhanced: EnhancedCode, text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Failed, enhanced, text)
    }

    /// The answer was lost.
    pub fn unknown(text: impl AsRef<str>) -> Outcome {
        Outcome::local(Status::Unknown, EnhancedCode::new(4, 4, 2), text)
    }

    fn local(status: Status, enhanced: EnhancedCode, text: impl AsRef<str>) -> Outcome {
        Outcome {
            status,
            handover: Handover::Final,
            reply: Reply::local(enhanced, text),
        }
    }

    /// What the end of a delivery program means. The exit status decides whether the message was
    /// taken: with 0 it was, whatever the program printed; with anything else it was not. Of a
    /// program that exits with another status, an enhanced status code at the beginning of its
    /// output chooses between deferred (4.x.y) and failed (5.x.y); without one the table of
    /// sysexits(3) does, and what is not in the table defers. `output` becomes the diagnostic.
    ///
    /// Only a code with a registered subject is one: `2.38.1 importer: locked` is a version, and
    /// stays a part of the diagnostic.
    pub fn of_exit(exit: Exit, output: &str) -> Outcome {
        let output = output.trim();
        let (status, enhanced) = exit.meaning();
        let chosen = |code: EnhancedCode| match (exit, code.class) {
            (Exit::Code(0), 2) => Some(Status::Delivered),
            (Exit::Code(1..) | Exit::Code(..0), 4) => Some(Status::Deferred),
            (Exit::Code(1..) | Exit::Code(..0), 5) => Some(Status::Failed),
            // The code contradicts the exit status. Of a program that a signal ended, no output
            // says how it would have ended.
            _ => None,
        };
        let printed = EnhancedCode::at_start_of(output)
            .filter(|(code, _)| code.is_registered())
            .and_then(|(code, rest)| Some((chosen(code)?, code, rest)));
        let (status, enhanced, text) = printed.unwrap_or((status, enhanced, output));
        // The end of the program speaks for itself where there is nothing to read.
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
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
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
    fn output_with_nothing_to_read_is_no_output() {
        for output in ["\u{9b}", "\u{1b}\u{202e} \u{7}"] {
            let outcome = Outcome::of_exit(Exit::Code(75), output);
            assert_eq!(outcome.reply.text, "the command exited with status 75");
        }
        let outcome = Outcome::of_exit(Exit::Code(1), "5.2.2 \u{9b}");
        let words = "5.2.2 the command exited with status 1";
        assert_eq!(outcome.reply.to_string(), words);
    }

    #[test]
    fn the_exit_table_is_the_design() {
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

    /// What an outcome is, by exit status and output.
    fn of(code: i32, output: &str) -> (Status, String) {
        let outcome = Outcome::of_exit(Exit::Code(code), output);
        (outcome.status, outcome.reply.to_string())
    }

    #[test]
    fn the_exit_status_decides_whether_a_message_was_taken() {
        use Status::{Deferred, Delivered, Failed};
        for (code, output, status, reply) in [
            // It failed, whatever it printed.
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
            // It has taken the message, whatever it printed.
            (0, "4.19.0 starting", Delivered, "2.0.0 4.19.0 starting"),
            (0, "4.2.2 full", Delivered, "2.0.0 4.2.2 full"),
            (0, "5.36.0 done", Delivered, "2.0.0 5.36.0 done"),
            (0, "5.7.1 no", Delivered, "2.0.0 5.7.1 no"),
            (0, "2.1.5 stored", Delivered, "2.1.5 stored"),
            (0, "2.8.0 stored", Delivered, "2.0.0 2.8.0 stored"),
            // A code chooses how it failed.
            (
                1,
                "5.2.1 mailbox disabled\n",
                Failed,
                "5.2.1 mailbox disabled",
            ),
            (75, "5.7.509 not you", Failed, "5.7.509 not you"),
            (67, "4.2.2 full", Deferred, "4.2.2 full"),
            (127, "5.3.5 gone for good", Failed, "5.3.5 gone for good"),
            // A version is no code.
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
