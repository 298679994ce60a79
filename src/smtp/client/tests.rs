//! The client against servers that keep to a script, over a stream in memory and in a time that
//! passes only when everybody waits.

mod server;
mod sessions;
mod tls;
mod troubles;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

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
