//! Tests of the client against scripted servers, over an in-memory stream and with paused time, which
//! advances only while every task waits.

mod server;
mod sessions;
mod tls;
mod troubles;

use std::io;
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::time::Instant;

use super::super::content::Shape;
use super::*;
use crate::message::{Address, ReversePath};
use crate::queue::Status;

const MESSAGE: &[u8] = b"Subject: hello\n\n.\nhello\n";
const RECEIVED: &[u8] = b"Subject: hello\r\n\r\n.\r\nhello\r\n";

fn settings(protocol: Protocol) -> Settings {
    Settings {
        protocol,
        ..Settings::new(HelloName::parse("me.example").unwrap())
    }
}

/// A session with these capabilities. The test itself acts as the server.
async fn by_hand(offers: &str) -> (Client<DuplexStream>, DuplexStream) {
    let (ours, mut theirs) = duplex(1000);
    let settings = settings(Protocol::Smtp);
    let opening = Client::open(ours, "mx", &settings);
    let serving = async {
        say(&mut theirs, "220 mx\r\n").await;
        assert_eq!(hear(&mut theirs).await, "EHLO me.example\r\n");
        say(&mut theirs, &format!("250-mx\r\n250 {offers}\r\n")).await;
    };
    let (client, ()) = tokio::join!(opening, serving);
    (client.unwrap(), theirs)
}

async fn say(stream: &mut DuplexStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads what the client sends next; empty at the end.
async fn hear(stream: &mut DuplexStream) -> String {
    let mut input = [0; 1000];
    let got = stream.read(&mut input).await.unwrap();
    String::from_utf8_lossy(&input[..got]).into_owned()
}

fn addresses(texts: &[&str]) -> Vec<Address> {
    let parse = |text: &&str| Address::parse(text).unwrap();
    texts.iter().map(parse).collect()
}

/// Sends a message to recipients.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    recipients: &[&str],
    message: &[u8],
) -> Vec<Verdict> {
    let transaction = Transaction {
        sender: &ReversePath::parse(b"s@a.example").unwrap(),
        recipients: &addresses(recipients),
        shape: Shape::of(message).unwrap(),
        dsn: None,
    };
    client.deliver(&transaction, message).await
}

fn statuses(verdicts: &[Verdict]) -> Vec<Status> {
    let status = |verdict: &Verdict| verdict.outcome.status;
    verdicts.iter().map(status).collect()
}
