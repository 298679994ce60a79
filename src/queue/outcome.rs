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

    /// What the end of a delivery program means. Output that begins with an enhanced status
    /// code decides; otherwise the exit status does, by sysexits(3), and what is not in the
    /// table defers. `output` is what the program printed; it becomes the diagnostic.
    pub fn of_exit(exit: Exit, output: &str) -> Outcome {
        let output = output.trim();
        // What the end of the program says for itself, where the output has nothing to read.
        let said = |output: &str| match printable(output).as_str() {
            "" => exit.words(),
            words => words.to_owned(),
        };
        if let Some((enhanced, rest)) = EnhancedCode::at_start_of(output) {
            let status = match enhanced.class {
                2 => Status::Delivered,
                5 => Status::Failed,
                _ => Status::Deferred,
            };
            // An exit status of 0 with a code that denies success, or the reverse, is decided
            // by the code: it is the more deliberate of the two. Death by signal is not.
            if let Exit::Code(_) = exit {
                return Outcome::local(status, enhanced, said(rest));
            }
        }
        let (status, enhanced) = exit.meaning();
        Outcome::local(status, enhanced, said(output))
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

    fn words(self) -> String {
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
        let outcome = Outcome::of_exit(Exit::Code(0), "5.2.2 \u{9b}");
        assert_eq!(outcome.reply.to_string(), "5.2.2 delivered by command");
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

    #[test]
    fn output_that_begins_with_a_code_decides() {
        let outcome = Outcome::of_exit(Exit::Code(1), "5.2.1 mailbox disabled\n");
        assert_eq!(outcome.status, Status::Failed);
        assert_eq!(outcome.reply.to_string(), "5.2.1 mailbox disabled");
        assert_eq!(
            Outcome::of_exit(Exit::Code(0), "4.2.2 full").status,
            Status::Deferred
        );
        assert_eq!(
            Outcome::of_exit(Exit::Code(75), "2.0.0 ok").status,
            Status::Delivered
        );
        assert_eq!(
            Outcome::of_exit(Exit::Signal(9), "2.0.0 ok").status,
            Status::Deferred
        );
        let words = Outcome::of_exit(Exit::Code(67), "no such user \u{1b}[31m");
        assert_eq!(words.reply.to_string(), "5.1.1 no such user [31m");
    }
}
