//! smtp-sink, Postfix's test server: it refuses, replies 421 and disconnects at any chosen step.

use mailspool::testing::queue::Status::{self, Deferred, Delivered, Failed, Unknown};
use mailspool::testing::smtp::{Client, Protocol};
use tokio::net::UnixStream;

use super::servers::sink::Sink;
use super::{connect, send, settings, statuses};

const MESSAGE: &[u8] = b"Subject: x\n\nhello\n.\n";

impl Sink {
    async fn connect(&self) -> UnixStream {
        let path = self.path();
        connect(|| UnixStream::connect(&path)).await
    }
}

/// Sends a message to two recipients, through a server with these options.
async fn attempt(options: &[&str]) -> Vec<Status> {
    let sink = Sink::start(options);
    let protocol = if options.contains(&"-L") {
        Protocol::Lmtp
    } else {
        Protocol::Smtp
    };
    let stream = sink.connect().await;
    match Client::open(stream, "sink", &settings(protocol)).await {
        Err(error) => vec![error.verdict().outcome.status; 2],
        Ok(mut client) => {
            let recipients = ["a@b.test", "c@d.test"];
            let verdicts = send(&mut client, "s@a.test", &recipients, MESSAGE).await;
            client.quit().await;
            statuses(&verdicts)
        }
    }
}

#[tokio::test]
async fn whatever_it_does_every_recipient_has_the_right_outcome() {
    let all: [(&[&str], Status); 26] = [
        (&[], Delivered),
        (&["-p"], Delivered),
        (&["-e"], Delivered),
        (&["-8", "-E"], Delivered),
        (&["-L"], Delivered),
        (&["-L", "-p"], Delivered),
        (&["-f", "EHLO"], Delivered), // HELO
        (&["-f", "CONNECT"], Deferred),
        (&["-f", "MAIL"], Failed),
        (&["-f", "RCPT"], Failed),
        (&["-f", "DATA"], Failed),
        (&["-f", "."], Failed),
        (&["-A", "0"], Failed),
        (&["-L", "-f", "."], Failed),
        (&["-r", "MAIL"], Deferred),
        (&["-r", "RCPT"], Deferred),
        (&["-r", "DATA"], Deferred),
        (&["-r", "."], Deferred),
        (&["-q", "CONNECT"], Deferred),
        (&["-q", "MAIL"], Deferred),
        (&["-q", "RCPT"], Deferred),
        (&["-q", "DATA"], Deferred),
        (&["-q", "."], Unknown),
        (&["-L", "-q", "."], Unknown),
        (&["-Q", "RCPT"], Deferred),
        (&["-Q", "."], Deferred),
    ];
    for (options, status) in all {
        assert_eq!(attempt(options).await, [status; 2], "{options:?}");
    }
}

#[tokio::test]
async fn a_thousand_messages_go_over_one_connection() {
    let sink = Sink::start(&[]);
    let stream = sink.connect().await;
    let settings = settings(Protocol::Smtp);
    let mut client = Client::open(stream, "sink", &settings).await.unwrap();
    for _ in 0..1000 {
        let verdicts = send(&mut client, "s@a.test", &["a@b.test"], MESSAGE).await;
        assert_eq!(statuses(&verdicts), [Delivered]);
    }
    client.quit().await;
}
