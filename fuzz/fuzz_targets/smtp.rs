//! The protocol without I/O, for SMTP and LMTP: a server that says anything, in any pieces, before
//! TLS and within it.
//!
//! TLS is only claimed to be in use, so this target reaches states that no script can make `client` reach: AUTH
//! and whole transactions after STARTTLS. A separate parser reads the conversation again.
#![no_main]

use help::smtp::{Plan, Said, Session};
use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::ReversePath;
use mailspool::testing::smtp::content::{Encoder, Framing};
use mailspool::testing::smtp::exchange::{After, Exchange, ExchangeNext};
use mailspool::testing::smtp::opening::{Opening, OpeningNext, StartTls, Terms};
use mailspool::testing::smtp::reply::{Form, ReplyParser, ServerReply};
use mailspool::testing::smtp::{HelloName, Protection, Shape, Step, Transaction, Trouble};

/// The octets of a server, piece by piece.
struct Server<'a> {
    pieces: std::vec::IntoIter<&'a [u8]>,
    /// The received octets of a piece that were not parsed yet.
    left: &'a [u8],
    parser: ReplyParser,
    /// The octets that were parsed.
    heard: Vec<u8>,
}

impl Server<'_> {
    fn reply(&mut self, step: Step) -> Result<ServerReply, Trouble> {
        self.parser.expect(Form::of(step));
        loop {
            let (took, reply) = self.parser.push(self.left)?;
            let (heard, left) = self.left.split_at(took);
            self.heard.extend_from_slice(heard);
            self.left = left;
            if let Some(reply) = reply {
                return Ok(reply);
            }
            assert!(self.left.is_empty(), "octets outside a reply");
            self.left = self.pieces.next().ok_or(Trouble::Lost)?;
        }
    }

    fn has_input(&self) -> bool {
        !self.left.is_empty() || !self.parser.is_empty()
    }

    /// Receives the next piece before the client waits for it.
    fn hurry(&mut self) {
        if self.left.is_empty() {
            self.left = self.pieces.next().unwrap_or_default();
        }
    }
}

/// One end of a conversation.
struct Talk<'a> {
    plan: &'a Plan,
    server: Server<'a>,
    /// All octets sent, and the number of those sent in clear.
    sent: Vec<u8>,
    clear: usize,
    /// Steps left; more mean that the client loops.
    left: usize,
}

impl Talk<'_> {
    fn send(&mut self, out: &mut Vec<u8>, has: Protection) {
        self.sent.append(out);
        if has == Protection::Clear {
            self.clear = self.sent.len();
        }
        assert!(self.sent.len() < 50_000, "{} octets", self.sent.len());
    }

    fn tick(&mut self) {
        self.left = self.left.checked_sub(1).expect("no end of it");
    }

    /// Sends the message in blocks of any size. False if the server said something meanwhile.
    fn body(&mut self, framing: Framing, shape: Shape, out: &mut Vec<u8>, has: Protection) -> bool {
        let before = self.sent.len() + out.len();
        let mut encoder = Encoder::new(framing);
        for block in self.plan.message.chunks(usize::from(self.plan.pieces) + 1) {
            encoder.push(block, out);
            if self.plan.end & 4 != 0 {
                self.server.hurry();
            }
            if self.server.has_input() {
                return false;
            }
            self.send(out, has);
        }
        encoder.finish(out);
        self.send(out, has);
        let length = (self.sent.len() - before) as u64;
        match framing {
            Framing::Counted => assert_eq!(length, shape.size, "BDAT"),
            // Plus the final dot, and doubled dots.
            _ => assert!(length >= shape.size_in_data + 3, "{length}: {shape:?}"),
        }
        true
    }
}

fuzz_target!(|input: &[u8]| {
    let [plan, server] = help::parts(input);
    let plan = Plan::of(plan);
    let mut talk = Talk {
        plan: &plan,
        server: Server {
            pieces: plan.split(server).into_iter(),
            left: &[],
            parser: ReplyParser::default(),
            heard: Vec::new(),
        },
        sent: Vec::new(),
        clear: 0,
        // Each reply has at least four octets; a refusal before a command has none.
        left: server.len() / 4 + 20,
    };
    let hello = HelloName::parse("me.test").unwrap();
    let terms = Terms {
        protocol: plan.protocol,
        hello: &hello,
        start_tls: [StartTls::Never, StartTls::IfOffered, StartTls::Always][usize::from(plan.tls)],
        login: plan.login.as_ref(),
        remote: "mx.test",
    };
    let mut has = Protection::Clear;
    let mut out = Vec::new();
    let (mut opening, mut next) = Opening::new(terms, has);
    let opened = loop {
        talk.tick();
        next = match next {
            OpeningNext::Reply(step) => {
                talk.send(&mut out, has);
                let Ok(reply) = talk.server.reply(step) else {
                    break None;
                };
                let Ok(next) = opening.on_reply(&reply, &mut out) else {
                    break None;
                };
                if talk.server.has_input() {
                    break None;
                }
                next
            }
            OpeningNext::Encrypt => {
                has = Protection::Encrypted;
                opening.on_encrypted(has, &mut out)
            }
            OpeningNext::Ready => break Some(opening.finish()),
        };
    };
    let mut all = Vec::new();
    if let Some((caps, ..)) = opened {
        let sender = ReversePath::parse(b"s@a.test").unwrap();
        let transaction = Transaction {
            sender: &sender,
            recipients: &plan.recipients,
            shape: Shape::of(plan.message).unwrap(),
            dsn: None,
        };
        let mut before = After::Ready;
        for _ in 0..2 {
            if before == After::Close {
                break;
            }
            let start = talk.sent.len();
            let (mut exchange, mut next) = Exchange::begin(
                &transaction,
                &caps,
                plan.protocol,
                "mx.test",
                before,
                &mut out,
            );
            loop {
                talk.tick();
                next = match next {
                    ExchangeNext::Reply(_) if talk.server.has_input() && !out.is_empty() => {
                        exchange.on_trouble(&Trouble::Misplaced("before the command".into()))
                    }
                    ExchangeNext::Reply(step) => {
                        talk.send(&mut out, has);
                        match talk.server.reply(step) {
                            Ok(reply) => exchange.on_reply(&reply, &mut out),
                            Err(trouble) => exchange.on_trouble(&trouble),
                        }
                    }
                    ExchangeNext::Body(framing) => {
                        if talk.body(framing, transaction.shape, &mut out, has) {
exchange.on_sent()
} else {
match talk.server.reply(Step::Body) {
                                Ok(reply) => exchange.on_early_reply(&reply),
                                Err(trouble) => exchange.on_trouble(&trouble),
                            }
}
                    }
                    ExchangeNext::Done => break,
                };
            }
            out.clear();
            let (verdicts, after) = exchange.finish();
            before = if talk.server.has_input() {
After::Close
} else {
after
};
            let began = talk.sent[start..]
                .windows(6)
                .any(|words| words == b"MAIL F");
            all.push((began, after, verdicts));
        }
    }
    let clear = Session::of(plan.protocol, &talk.sent[..talk.clear], &talk.server.heard);
    if plan.tls == 2 {
        assert!(
            clear.transactions.is_empty(),
            "in clear: {:?}",
            clear.transactions
        );
    }
    if plan.tls == 2
        || plan
            .login
            .as_ref()
            .is_some_and(|login| login.needs > Protection::Clear)
    {
        assert!(
            !clear.others.iter().any(|verb| verb == "AUTH"),
            "a password in clear"
        );
    }
    let session = Session::of(plan.protocol, &talk.sent, &talk.server.heard);
    let mut transactions = session.transactions.iter();
    let is_empty = plan.message.is_empty();
    for (began, after, verdicts) in all {
        let said = began.then(|| transactions.next()).flatten();
        Said::judge(said, plan.protocol, &plan.recipients, &verdicts, is_empty);
        if let Some(said) = said {
            said.judge_taken(plan.protocol, &plan.recipients, &verdicts);
            if after != After::Close {
                said.judge_told(&plan.recipients, &verdicts);
            }
        }
    }
    assert!(
        transactions.next().is_none(),
        "more was said than has an outcome"
    );
});
