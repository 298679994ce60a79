//! The steps of a session, and how long each may take (RFC 5321 4.5.3.2).

use std::fmt;
use std::time::Duration;

/// The step in which the client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The server's greeting.
    Greeting,
    /// The answer to EHLO, HELO or LHLO.
    Hello,
    /// The answer to STARTTLS.
    StartTls,
    /// The TLS handshake.
    Handshake,
    /// An answer during AUTH.
    Auth,
    /// The answer to RSET.
    Reset,
    /// The answer to MAIL.
    Mail,
    /// The answer to RCPT.
    Rcpt,
    /// The 354 answer to DATA.
    Data,
    /// Room for the next octets of the message.
    Body,
    /// The answer to the whole message.
    End,
    /// The answer to QUIT.
    Quit,
}

impl fmt::Display for Step {
    /// Completes "the connection was lost while".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Greeting => "waiting for the greeting",
            Step::Hello => "waiting for the answer to EHLO",
            Step::StartTls => "waiting for the answer to STARTTLS",
            Step::Handshake => "negotiating TLS",
            Step::Auth => "waiting for the answer to AUTH",
            Step::Reset => "waiting for the answer to RSET",
            Step::Mail => "waiting for the answer to MAIL FROM",
            Step::Rcpt => "waiting for the answer to RCPT TO",
            Step::Data => "waiting for the answer to DATA",
            Step::Body => "sending the message",
            Step::End => "waiting for the answer to the end of the message",
            Step::Quit => "waiting for the answer to QUIT",
        })
    }
}

/// The time limits of the steps. For [`Step::Body`] it limits the time without progress, for every other
/// step the time until the reply is complete: sending an octet now and then does not extend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For the greeting.
    pub greeting: Duration,
    /// For EHLO, HELO, LHLO, STARTTLS, and RSET.
    pub command: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For each answer during AUTH.
    pub auth: Duration,
    /// For MAIL.
    pub mail: Duration,
    /// For each RCPT.
    pub rcpt: Duration,
    /// For DATA.
    pub data: Duration,
    /// For the server to accept any octets of the message.
    pub block: Duration,
    /// For the answer to the whole message. A short limit causes duplicates: a server may take minutes to
    /// scan a message, and delivers it although the client has stopped waiting.
    pub end: Duration,
    /// For QUIT. Nothing depends on the answer.
    pub quit: Duration,
    /// For everything from the greeting until the first MAIL.
    pub opening: Duration,
    /// For a whole transaction until the end of the message is sent, not counting the time for `rate`. The
    /// wait for the answer is limited separately.
    pub transaction: Duration,
    /// The minimum average rate for a message, in octets per second.
    pub rate: u64,
}

impl Default for Deadlines {
    /// The limits of RFC 5321, with 10 minutes for the opening, and 30 minutes plus the time at 2 kB per
    /// second for a transaction.
    fn default() -> Deadlines {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Deadlines {
            greeting: minutes(5),
            command: minutes(5),
            handshake: minutes(1),
            auth: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end: minutes(10),
            quit: Duration::from_secs(2),
            opening: minutes(10),
            transaction: minutes(30),
            rate: 2000,
        }
    }
}

impl Deadlines {
    /// The limit for a step.
    pub fn of(&self, step: Step) -> Duration {
        match step {
            Step::Greeting => self.greeting,
            Step::Hello | Step::StartTls | Step::Reset => self.command,
            Step::Handshake => self.handshake,
            Step::Auth => self.auth,
            Step::Mail => self.mail,
            Step::Rcpt => self.rcpt,
            Step::Data => self.data,
            Step::Body => self.block,
            Step::End => self.end,
            Step::Quit => self.quit,
        }
    }

    /// The limit from the first command of a transaction to the last octet of a message of this size.
    pub fn sending(&self, size: u64) -> Duration {
        let long_run = Duration::from_secs(size / self.rate.max(1));
        self.transaction.saturating_add(long_run)
    }

    /// The longest time that a transaction can take, if each of `answers` to the message comes as late as
    /// permitted: one answer for SMTP, one for each recipient for LMTP.
    pub fn longest(&self, size: u64, answers: u32) -> Duration {
        let end = self.end.saturating_mul(answers.max(1));
        self.sending(size).saturating_add(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_scales_with_the_size_and_leaves_the_last_wait() {
        let deadlines = Deadlines::default();
        assert_eq!(deadlines.sending(0), deadlines.transaction);
        let more = deadlines.sending(20_000_000) - deadlines.sending(0);
        assert_eq!(more, Duration::from_secs(10_000));
        assert_eq!(
            deadlines.longest(0, 2),
            deadlines.transaction + deadlines.end * 2
        );
        let never = Deadlines {
            rate: 0,
            ..deadlines
        };
        assert!(never.longest(u64::MAX, u32::MAX) > deadlines.transaction);
    }
}
