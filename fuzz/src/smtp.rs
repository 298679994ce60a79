//! Parses the conversation of client and server without the client's own parsers, and checks the
//! outcomes.

use mailspool::testing::message::Address;
use mailspool::testing::queue::Status;
use mailspool::testing::smtp::{Credentials, Login, Protection, Protocol, Scope, Verdict};

/// The messages that are sent: an ordinary one; one with dots, NULs, bare CRs and a line that is too long; one
/// with a UTF-8 header; an empty one; a signed one with a line that is too long; one with CRs and NULs that
/// would make another header.
pub const MESSAGES: [&[u8]; 6] = [
    b"Subject: hello\n\n.\nhello\n..\n",
    &{
        let mut long = [b'x'; 1500];
        long[0] = b'\n';
        long[10] = 0;
        long[20] = b'\r';
        long[21] = b'.';
        long
    },
    "Subject: gr\u{fc}\u{df}e\n\nhello".as_bytes(),
    b"",
    &{
        let mut long = [b'x'; 1500];
        let header = b"DKIM-Signature: v=1\n\n";
        let mut at = 0;
        while at < header.len() {
            long[at] = header[at];
            at += 1;
        }
        long
    },
    b"Subject: a\rInjected: b\r\r\nX: c\n\0\r\0\nY: d\r\rInjected: e\n\nbody\r\r\nmore\r.\rend",
];

/// Recipients. Not every server can be sent each of them.
pub const RECIPIENTS: [&str; 6] = [
    "a@b.test",
    "\"x y\"@b.test",
    "\u{f6}@b.test",
    "bad>name@b.test",
    "c@d.test",
    "e@f.test",
];

/// The settings that the first octets of an input select.
#[derive(Clone, Debug)]
pub struct Plan {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// 0 without TLS, 1 where it is offered, 2 required.
    pub tls: u8,
    /// The credentials.
    pub login: Option<Login>,
    /// The recipients of the transaction.
    pub recipients: Vec<Address>,
    /// The message to send.
    pub message: &'static [u8],
    /// Selects how the server's octets are split, and how many octets one write accepts.
    pub pieces: u8,
    /// Selects how the connection ends after the server has said everything.
    pub end: u8,
    /// Octets of the message that cannot be read.
    pub missing: usize,
}

impl Plan {
    /// Reads a plan: six bits of each octet count, so that all of it can be written in letters.
    pub fn of(bytes: &[u8]) -> Plan {
        let bits = |n: usize| bytes.get(n).map_or(0, |byte| byte & 0x3f);
        let password = || Credentials::Password {
            user: "u".into(),
            password: "secret".into(),
        };
        let token = || Credentials::Token {
            user: "u".into(),
            token: "t".repeat(600),
        };
        let login = |credentials: Credentials, needs: Protection| Login {
            needs,
            ..Login::new(credentials)
        };
        let all = RECIPIENTS
            .iter()
            .filter_map(|one| Address::stored(one).ok());
        let chosen = all.enumerate().filter(|(n, _)| bits(1) >> n & 1 == 1);
        let mut recipients: Vec<Address> = chosen.map(|(_, one)| one).collect();
        if recipients.is_empty() {
            recipients.extend(Address::stored(RECIPIENTS[0]));
        }
        Plan {
            protocol: match bits(0) & 1 {
                0 => Protocol::Smtp,
                _ => Protocol::Lmtp,
            },
            tls: (bits(0) >> 1) % 3,
            login: match bits(0) >> 3 & 3 {
                0 => None,
                1 => Some(login(password(), Protection::Encrypted)),
                2 => Some(login(password(), Protection::Clear)),
                _ => Some(login(token(), Protection::Encrypted)),
            },
            recipients,
            message: MESSAGES[usize::from(bits(2)) % MESSAGES.len()],
            pieces: bits(3),
            end: bits(4),
            missing: usize::from(bits(5)),
        }
    }

    /// Returns the part of the message that can be read.
    pub fn readable(&self) -> &'static [u8] {
        &self.message[..self.message.len().saturating_sub(self.missing)]
    }

    /// Whether a part of the message cannot be read.
    pub fn is_cut(&self) -> bool {
        self.readable().len() < self.message.len()
    }

    /// Splits the server's octets into the pieces that arrive.
    pub fn split<'a>(&self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut state = u32::from(self.pieces);
        while !bytes.is_empty() {
            // Lines, single octets, everything at once, or any sizes.
            let line = bytes.iter().position(|byte| *byte == b'\n');
            let line = line.map_or(bytes.len(), |at| at + 1);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = match self.pieces & 3 {
                0 => line,
                1 => 1,
                2 => bytes.len(),
                _ => (state >> 24) as usize % 40 + 1,
            };
            let (piece, rest) = bytes.split_at(length.min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

/// The octets of a server, read reply by reply, up to the first that is not a reply.
struct Codes<'a>(&'a [u8]);

impl Codes<'_> {
    /// Returns the next reply's code. In a greeting, and in the reply to EHLO, lines without a code are skipped,
    /// except the first.
    fn next(&mut self, is_lenient: bool) -> Option<u16> {
        let mut open: Option<u16> = None;
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line = &self.0[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.0 = &self.0[end + 1..];
            let code = match line {
                [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
                    Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
                }
                _ => None,
            };
            match (code, line.get(3)) {
                (Some(code), Some(b'-') | Some(b' ') | None) => {
                    if open.is_some_and(|open| open != code) {
                        break;
                    }
                    if line.get(3) != Some(&b'-') {
                        return Some(code);
                    }
                    open = Some(code);
                }
                _ if is_lenient && open.is_some() => {}
                _ => break,
            }
        }
        self.0 = &[];
        None
    }
}

/// One transaction as it was sent. A code is missing if the server did not reply.
#[derive(Clone, Debug, Default)]
pub struct Said {
    mail: Option<u16>,
    recipients: Vec<(String, Option<u16>)>,
    data: Option<u16>,
    /// Whether a part of the message was sent, or all of it.
    began: bool,
    ended: bool,
    /// Only the final dot was sent.
    is_lone_dot: bool,
    answers: Vec<u16>,
}

/// A session: the client's octets, and the server's replies, each in order.
pub struct Session<'a> {
    sent: &'a [u8],
    codes: Codes<'a>,
    protocol: Protocol,
    /// Commands outside transactions.
    pub others: Vec<String>,
    /// The transactions.
    pub transactions: Vec<Said>,
}

impl<'a> Session<'a> {
    /// Parses a session. `heard` begins with the greeting.
    pub fn of(protocol: Protocol, sent: &'a [u8], heard: &'a [u8]) -> Session<'a> {
        let mut session = Session {
            sent,
            codes: Codes(heard),
            protocol,
            others: Vec::new(),
            transactions: Vec::new(),
        };
        session.codes.next(true);
        while let Some(line) = session.line() {
            session.command(&line);
        }
        session
    }

    fn line(&mut self) -> Option<String> {
        let end = self.sent.windows(2).position(|two| two == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.sent[..end]).into_owned();
        self.sent = &self.sent[end + 2..];
        Some(line)
    }

    fn command(&mut self, line: &str) {
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        match verb {
            "MAIL" => {
                let mail = self.codes.next(false);
                self.transactions.push(Said {
                    mail,
                    ..Said::default()
                });
            }
            "RCPT" => {
                let code = self.codes.next(false);
                let path = line.strip_prefix("RCPT TO:<").expect("a path");
                let transaction = self.transactions.last_mut().expect("RCPT without MAIL");
                transaction.recipients.push((path.to_owned(), code));
            }
            "DATA" => {
                let code = self.codes.next(false);
                self.transaction().data = code;
                if code.is_some_and(|code| code / 100 == 3) {
                    self.body();
                }
            }
            "BDAT" => {
                let size = line.split(' ').nth(1).and_then(|size| size.parse().ok());
                let size: usize = size.expect("a size");
                assert!(line.ends_with(" LAST"), "{line}");
                let (body, rest) = self.sent.split_at(size.min(self.sent.len()));
                let mut lines = body.split(|byte| matches!(byte, b'\r' | b'\n'));
                let is_injected = lines.any(|line| line.starts_with(b"Injected:"));
                assert!(!is_injected, "a CR makes a field in BDAT");
                self.sent = rest;
                let said = self.transaction();
                said.data = Some(354);
                said.began = true;
                said.ended = body.len() == size;
                self.answers();
            }
            "AUTH" => {
                self.others.push(verb.to_owned());
                while self.codes.next(false) == Some(334) {
                    if self.line().is_none() {
                        return;
                    }
                }
            }
            _ => {
                self.codes.next(matches!(verb, "EHLO" | "LHLO" | "HELO"));
                self.others.push(verb.to_owned());
            }
        }
    }

    fn transaction(&mut self) -> &mut Said {
        self.transactions.last_mut().expect("no MAIL before it")
    }

    /// Parses the message after DATA, to its dot.
    fn body(&mut self) {
        let sent = self.sent;
        let end = if sent.starts_with(b".\r\n") {
Some(0)
} else {

                let end = sent.windows(5).position(|five| five == b"\r\n.\r\n");
                end.map(|end| end + 2)
            };
        let body = &sent[..end.unwrap_or(sent.len())];
        assert!(!body.contains(&0), "a NUL in DATA");
        let is_signed = body.starts_with(b"DKIM-Signature:");
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\r\n").unwrap_or(line);
            let bare = |byte: &u8| *byte == b'\r' || *byte == b'\n';
            let whole = line.ends_with(b"\r\n");
            assert!(!whole || !text.iter().any(bare), "a bare CR or LF in DATA");
            assert!(!whole || text != b".", "the message ends within itself");
            assert!(!text.starts_with(b"Injected:"), "a CR makes a field");
            let length = text.strip_prefix(b".").unwrap_or(text).len();
            assert!(is_signed || length <= 998, "a line of {length} octets");
            assert!(
                !text.starts_with(b"xxx") || !is_signed || length > 998 || !whole,
                "folded"
            );
        }
        self.sent = end.map_or(&[], |end| &sent[end + 3..]);
        let said = self.transaction();
        said.began = !sent.is_empty();
        said.ended = end.is_some();
        said.is_lone_dot = end == Some(0);
        self.answers();
    }

    fn answers(&mut self) {
        let said = self.transactions.last().expect("a transaction");
        let accepted = said.accepted();
        let count = match self.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => accepted,
        };
        if said.ended {
            let codes = &mut self.codes;
            let answers = std::iter::from_fn(|| codes.next(false))
                .take(count)
                .collect();
            self.transaction().answers = answers;
        }
    }
}

impl Said {
    fn accepted(&self) -> usize {
        let accepted = |code: Option<u16>| code.is_some_and(|code| code / 100 == 2);
        self.recipients.iter().filter(|recipient| accepted(recipient.1)).count()
    }

    /// Checks the outcomes of a transaction. Without `said` no transaction was sent.
    pub fn judge(
        said: Option<&Said>,
        protocol: Protocol,
        to: &[Address],
        verdicts: &[Verdict],
        is_empty: bool,
    ) {
        assert_eq!(verdicts.len(), to.len(), "not one outcome for each");
        if let Some(said) = said {
            // Only the dot, which a server asked for although it had refused all recipients.
            let only_dot = said.is_lone_dot && protocol == Protocol::Smtp;
            assert!(
                !said.began || said.accepted() > 0 || only_dot,
                "a message without recipients: {said:?}"
            );
            let taken = said.mail.is_some_and(|code| code / 100 == 2);
            assert!(
                !said.began || taken || only_dot,
                "MAIL was refused: {said:?}"
            );
        }
        for (to, verdict) in to.iter().zip(verdicts) {
            let outcome = &verdict.outcome;
            match outcome.status {
                Status::Delivered => {
                    let said = said.expect("delivered, and nothing was said");
                    said.has_delivered(protocol, to, is_empty);
                }
                Status::Unknown => {
                    let ended = said.is_some_and(|said| said.ended);
                    assert!(ended, "unknown, and not sent: {said:?}");
                }
                Status::Failed => {
                    let code = outcome.reply.code;
                    assert!(code.is_none_or(|code| code / 100 == 5), "{outcome:?}");
                }
                Status::Deferred => {}
            }
        }
    }

    /// Checks that a message that cannot be read to its end is not ended, and delivered to no recipient.
    pub fn judge_cut(said: Option<&Said>, verdicts: &[Verdict]) {
        let is_ended = said.is_some_and(|said| said.ended && !said.is_lone_dot);
        assert!(!is_ended, "ended, and not read to its end: {said:?}");
        for verdict in verdicts {
            let status = verdict.outcome.status;
            assert!(
                !matches!(status, Status::Delivered | Status::Unknown),
                "{verdict:?}"
            );
        }
    }

    /// Checks that every recipient that the server accepted the message for, in a reply that arrived, is
    /// delivered.
    pub fn judge_taken(&self, protocol: Protocol, to: &[Address], verdicts: &[Verdict]) {
        let is_taken = |code: &u16| code / 100 == 2;
        let accepted = |name: &&(String, Option<u16>)| name.1.as_ref().is_some_and(is_taken);
        let taken = self.mail.as_ref().is_some_and(is_taken) && self.ended;
        for (n, (path, _)) in self.recipients.iter().filter(accepted).enumerate() {
            let answer = match protocol {
                Protocol::Smtp => self.answers.first(),
                Protocol::Lmtp => self.answers.get(n),
            };
            if taken && answer.is_some_and(is_taken) {
                let own = |address: &&Address| path.starts_with(&format!("{}>", address.as_str()));
                let at = to.iter().position(|one| own(&one)).expect("a recipient");
                let status = verdicts[at].outcome.status;
                assert_eq!(status, Status::Delivered, "{path}: {self:?}");
            }
        }
    }

    /// Checks that the server was sent every recipient that it can be sent, in a transaction that was not cut off.
    pub fn judge_told(&self, to: &[Address], verdicts: &[Verdict]) {
        if !self.mail.is_some_and(|code| code / 100 == 2) {
            return;
        }
        for (to, verdict) in to.iter().zip(verdicts) {
            let path = format!("{}>", to.as_str());
            let mut told = self.recipients.iter().map(|recipient| &recipient.0);
            assert!(
                told.any(|recipient| recipient.starts_with(&path))
                    || verdict.outcome.status == Status::Failed
                    || verdict.scope == Scope::Limit,
                "{path} was not told: {self:?}"
            );
        }
    }

    fn has_delivered(&self, protocol: Protocol, to: &Address, is_empty: bool) {
        let is_class = |code: Option<u16>, class: u16| code.is_some_and(|code| code / 100 == class);
        assert!(is_class(self.mail, 2) && is_class(self.data, 3), "{self:?}");
        assert!(self.ended && (is_empty || !self.is_lone_dot), "{self:?}");
        let path = |name: &&(String, Option<u16>)| name.0.starts_with(&format!("{}>", to.as_str()));
        let own = self.recipients.iter().find(path);
        assert!(
            own.is_some_and(|own| is_class(own.1, 2)),
            "{to:?}: {self:?}"
        );
        let answer = match protocol {
            Protocol::Smtp => 0,
            Protocol::Lmtp => {
                let before = self.recipients.iter().take_while(|recipient| !path(recipient));
                before.filter(|recipient| is_class(recipient.1, 2)).count()
            }
        };
        let answer = self.answers.get(answer).copied();
        assert!(is_class(answer, 2), "{to:?}: {self:?}");
    }
}
