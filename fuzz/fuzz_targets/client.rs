//! The SMTP and LMTP client, on a connection to a server that says anything, at any moment.
//!
//! A separate parser reads the conversation again: no recipient is delivered without the server's reply for it,
//! no message is sent in clear if TLS is required, and the conversation ends.
#![no_main]

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use help::smtp::{Plan, Said, Session};
use libfuzzer_sys::fuzz_target;
use mailspool::testing::message::ReversePath;
use mailspool::testing::smtp::{
    Client, HelloName, Settings, Shape, Tls, TlsPolicy, TlsSettings, Transaction,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Polls of a connection in all; more mean that the client loops.
const LOOKS: usize = 20_000;
/// Polls before a patient server says something unasked. The client polls less often before it writes, and
/// as often only if it waits for a reply.
const PATIENCE: usize = 5;

/// A connection to a server that follows a script.
struct Line {
    pieces: Vec<Vec<u8>>,
    next: usize,
    plan: Plan,
    /// Polls since the last piece; `PATIENCE` if the client has written since then.
    asked: usize,
    looks: usize,
    said: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.looks += 1;
        assert!(self.looks < LOOKS, "no end of it");
        let next = self.next;
        if next == self.pieces.len() {
            return match self.plan.end & 3 {
                0 | 1 => Poll::Ready(Ok(())),
                2 => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                // The server says nothing more: time passes.
                _ => Poll::Pending,
            };
        }
        // Some servers wait for a command, at least for some polls.
        if self.asked < PATIENCE && self.plan.end & 4 == 0 && next > 0 {
            self.asked += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = std::mem::take(&mut self.pieces[next]);
        let (now, later) = piece.split_at(piece.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.said.lock().unwrap().1.extend_from_slice(now);
        if later.is_empty() {
self.next += 1
} else {
self.pieces[next] = later.to_vec()
}
        self.asked = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.looks += 1;
        assert!(self.looks < LOOKS, "no end of it");
        let mut said = self.said.lock().unwrap();
        // Some connections break after a number of octets.
        let room = match self.plan.end & 8 {
            0 => usize::MAX,
            _ => usize::from(self.plan.end) * 10,
        };
        if said.0.len() >= room {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = match self.plan.pieces & 4 {
            0 => bytes.len(),
            _ => usize::from(self.plan.pieces),
        };
        let count = bytes.len().min(most).min(room - said.0.len());
        said.0.extend_from_slice(&bytes[..count]);
        drop(said);
        self.asked = PATIENCE;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    /// The TLS settings of each policy, made once because that is slow.
    static TLS: [Tls; 3] = {
        let with = |policy| Tls::new(TlsSettings {
            policy,
            ..TlsSettings::default()
        });
        let [optional, required] = [TlsPolicy::Opportunistic, TlsPolicy::Required];
        [Tls::none(), with(optional).unwrap(), with(required).unwrap()]
    };
}

fuzz_target!(|input: &[u8]| {
    let [plan, server] = help::parts(input);
    let plan = Plan::of(plan);
    let said = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let line = Line {
        pieces: plan.split(server).into_iter().map(<[u8]>::to_vec).collect(),
        next: 0,
        plan: plan.clone(),
        asked: 0,
        looks: 0,
        said: Arc::clone(&said),
    };
    let settings = Settings {
        protocol: plan.protocol,
        tls: TLS.with(|tls| tls[usize::from(plan.tls)].clone()),
        login: plan.login.clone(),
        ..Settings::new(HelloName::parse("me.test").unwrap())
    };
    // Time passes only if client and server both wait.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let sender = ReversePath::parse(b"s@a.test").unwrap();
    let transaction = Transaction {
        sender: &sender,
        recipients: &plan.recipients,
        shape: Shape::of(plan.message).unwrap(),
        dsn: None,
    };
    let all = runtime.block_on(async {
        let mut all = Vec::new();
        if let Ok(mut client) = Client::open(line, "mx.test", &settings).await {
            for _ in 0..2 {
                if client.is_alive().await {
                    let before = said.lock().unwrap().0.len();
                    let verdicts = client.deliver(&transaction, plan.readable()).await;
                    let after = said.lock().unwrap().0[before..].to_vec();
                    all.push((after, client.is_reusable(), verdicts));
                }
            }
            client.quit().await;
        }
        all
    });
    let (sent, got) = said.lock().unwrap().clone();
    // The client's output is bounded.
    assert!(sent.len() < 20_000, "{} octets", sent.len());
    let start_tls = sent.windows(10).position(|ten| ten == b"STARTTLS\r\n");
    let clear = match start_tls {
        // After STARTTLS the client sends TLS records, and no server here can answer them. With optional TLS,
        // the client continues in clear if STARTTLS is refused.
        Some(at) if plan.tls == 2 => &sent[..at + 10],
        _ => &sent[..],
    };
    let session = Session::of(plan.protocol, clear, &got);
    if plan.tls == 2 {
        let may = ["EHLO", "LHLO", "HELO", "STARTTLS", "QUIT"];
        let wrong = |verb: &&String| !may.contains(&verb.as_str());
        let wrong = session.others.iter().find(wrong);
        assert!(
            wrong.is_none() && session.transactions.is_empty(),
            "in clear: {wrong:?}"
        );
        assert!(all.is_empty(), "without TLS: {all:?}");
    }
    if plan
        .login
        .as_ref()
        .is_some_and(|login| login.needs > mailspool::testing::smtp::Protection::Clear)
    {
        assert!(
            !session.others.iter().any(|verb| verb == "AUTH"),
            "a password in clear"
        );
    }
    let mut transactions = session.transactions.iter();
    for (sent, is_reusable, verdicts) in all {
        let began = sent.windows(11).any(|words| words == b"MAIL FROM:<");
        let said = began.then(|| transactions.next()).flatten();
        Said::judge(
            said,
            plan.protocol,
            &plan.recipients,
            &verdicts,
            plan.message.is_empty(),
        );
        if plan.is_cut() {
            Said::judge_cut(said, &verdicts);
        }
        // If the server sends line by line, and only when asked, no reply comes too early to count.
        let is_orderly = plan.pieces & 7 == 0 && plan.end & 12 == 0;
        if let Some(said) = said.filter(|_| is_orderly) {
            said.judge_taken(plan.protocol, &plan.recipients, &verdicts);
            if is_reusable {
                said.judge_told(&plan.recipients, &verdicts);
            }
        }
    }
});
