//! The SMTP and LMTP client against third-party servers.
//!
//! | server | what it shows |
//! |---|---|
//! | aiosmtpd | every octet arrives, and nothing more |
//! | smtp-sink | refusals, 421 replies and lost connections at each step |
//! | Postfix | STARTTLS, certificates, AUTH (by Dovecot's passwords), PIPELINING, BDAT |
//! | Dovecot | LMTP over a unix socket, a reply for each recipient |
//!
//! Every server is private to its test, in a temporary directory, and stops with it. The tests need root
//! (Postfix and Dovecot start as root) and Debian's postfix, dovecot-lmtpd and python3-aiosmtpd. If something
//! is missing, they fail with a message that says so.

mod aiosmtpd;
mod dovecot;
#[path = "../postfix/postfix.rs"]
#[allow(dead_code)]
mod postfix;
mod relay;
#[path = "../servers/mod.rs"]
mod servers;
mod sink;
#[path = "../postfix/site.rs"]
#[allow(dead_code)]
mod site;

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use mailspool::testing::message::{Address, ReversePath};
use mailspool::testing::queue::Status;
use mailspool::testing::smtp::{
    Client, HelloName, Protocol, Settings, Shape, Transaction, Verdict,
};
use tokio::io::{AsyncRead, AsyncWrite};

use site::PATIENCE;

/// Connects as soon as the server listens.
async fn connect<S, F: Future<Output = io::Result<S>>>(mut connect: impl FnMut() -> F) -> S {
    let begun = Instant::now();
    loop {
        match connect().await {
            Ok(stream) => return stream,
            Err(error) if begun.elapsed() > PATIENCE => panic!("no server listens: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn settings(protocol: Protocol) -> Settings {
    Settings {
        protocol,
        ..Settings::new(HelloName::parse("client.test").unwrap())
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    sender: &str,
    recipients: &[&str],
    message: &[u8],
) -> Vec<Verdict> {
    let recipients: Vec<_> = recipients
        .iter()
        .map(|text| Address::parse(text).unwrap())
        .collect();
    let transaction = Transaction {
        sender: &ReversePath::parse(sender.as_bytes()).unwrap(),
        recipients: &recipients,
        shape: Shape::of(message).unwrap(),
        dsn: None,
    };
    client.deliver(&transaction, message).await
}

fn statuses(verdicts: &[Verdict]) -> Vec<Status> {
    let status = |verdict: &Verdict| verdict.outcome.status;
    verdicts.iter().map(status).collect()
}
