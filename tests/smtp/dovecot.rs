//! Dovecot: LMTP over a unix socket.

use std::path::PathBuf;

use mailspool::testing::queue::Status::{Deferred, Delivered, Failed};
use mailspool::testing::smtp::{Client, Protocol, Step};
use tokio::net::UnixStream;

use super::servers::dovecot::Dovecot;
use super::site::files;
use super::{connect, send, settings, statuses};

#[tokio::test]
async fn each_recipient_has_an_answer_of_its_own() {
    let dovecot = Dovecot::start();
    let path = dovecot.socket("lmtp");
    let stream = connect(|| UnixStream::connect(&path)).await;
    let settings = settings(Protocol::Lmtp);
    let mut client = Client::open(stream, "dovecot", &settings).await.unwrap();
    let caps = &client.info().capabilities;
    assert!(caps.pipelining && caps.eight_bit_mime, "{caps:?}");
    let recipients = ["alice@x.test", "ghost@x.test", "full@x.test", "bob@x.test"];
    let message = "Subject: hi\r\n\r\n.\r\n..\r\ngrüße\n";
    let verdicts = send(&mut client, "s@a.test", &recipients, message.as_bytes()).await;
    let expected = [Delivered, Failed, Deferred, Delivered];
    assert_eq!(statuses(&verdicts), expected, "{verdicts:?}");
    let steps: Vec<_> = verdicts.iter().map(|verdict| verdict.step).collect();
    assert_eq!(steps, [Step::End, Step::Rcpt, Step::End, Step::End]);
    let refused = verdicts[1].outcome.reply.enhanced.unwrap().to_string();
    assert_eq!(refused, "5.1.1");

    // The connection continues, with a message that only BDAT can carry.
    let long = format!("Subject: long\n\n{}\n", "x".repeat(100_000));
    let verdicts = send(&mut client, "", &["bob@x.test"], long.as_bytes()).await;
    assert_eq!(statuses(&verdicts), [Delivered], "{verdicts:?}");
    client.quit().await;

    let alice = dovecot.mail("alice");
    assert_eq!(alice.len(), 1);
    assert!(
        alice[0].starts_with("Return-Path: <s@a.test>\n"),
        "{}",
        alice[0]
    );
    assert!(
        alice[0].ends_with("\nSubject: hi\n\n.\n..\ngrüße\n"),
        "{}",
        alice[0]
    );
    let bob = dovecot.mail("bob");
    assert_eq!(bob.len(), 2);
    assert!(bob.iter().any(|mail| mail.ends_with(&long)));
    assert_eq!(
        files(&dovecot.socket("mail").join("full")),
        Vec::<PathBuf>::new()
    );
}
