//! aiosmtpd: what arrives is what was sent.

use std::fs;

use mailspool::testing::queue::Status::{Delivered, Failed};
use mailspool::testing::smtp::{Client, Protocol};
use tokio::net::TcpStream;

use super::servers::store::Store;
use super::{send, settings, statuses};

impl Store {
    async fn client(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port()))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let settings = settings(Protocol::Smtp);
        Client::open(stream, "store.test", &settings).await.unwrap()
    }
}

#[tokio::test]
async fn every_octet_arrives() {
    let store = Store::start();
    let mut client = store.client().await;
    let long = [b"Subject: long\r\n\r\n".to_vec(), vec![b'x'; 500_000]].concat();
    let every: Vec<u8> = (1..=255).collect();
    let every = [b"Subject: octets\r\n\r\n", &every[..]].concat();
    let large = b"Subject: large\n\n.a line of it\n..\n.\n".repeat(100_000);
    let messages: [&[u8]; 12] = [
        b"Subject: plain\r\n\r\nbody\r\n",
        b"Subject: unix\n\nbody\n",
        b"Subject: old mac\r\rbody\r",
        b"Subject: no end\n\nbody",
        b"Subject: dots\n\n.\n..\n.a\na.\n.",
        b".\n",
        b"\n",
        b"",
        b"Subject: \xf6\n\n\xff\xfe\x80",
        &every,
        &long,
        &large,
    ];
    for (number, message) in messages.iter().enumerate() {
        let verdicts = send(&mut client, "s@a.test", &["r@b.test"], message).await;
        assert_eq!(statuses(&verdicts), [Delivered], "{number}: {verdicts:?}");
        assert_eq!(verdicts[0].outcome.reply.to_string(), "250 2.0.0 stored");
        assert!(store.message(number) == normalised(message), "{number}");
    }
    client.quit().await;
}

/// What smuggles a second message through other clients is one message here.
#[tokio::test]
async fn nothing_is_smuggled() {
    let store = Store::start();
    let mut client = store.client().await;
    let ends: [&[u8]; 6] = [b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r", b"\0\r\n"];
    let mut number = 0;
    for before in ends {
        for after in ends {
            let message = [
                b"Subject: one\r\n\r\nbody",
                before,
                b".",
                after,
                b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\nSubject: two\r\n\r\n",
            ]
            .concat();
            let verdicts = send(&mut client, "s@a.test", &["r@b.test"], &message).await;
            assert_eq!(statuses(&verdicts), [Delivered]);
            assert!(store.message(number) == normalised(&message));
            number += 1;
        }
    }
    client.quit().await;
    let stored = fs::read_dir(store.dir()).unwrap().count();
    assert_eq!(stored, 2 * number);
}

#[tokio::test]
async fn envelopes_arrive_with_their_parameters() {
    let store = Store::start();
    let mut client = store.client().await;
    let recipients = ["a@b.test", "absent@b.test", "\"c d\"@b.test"];
    let verdicts = send(&mut client, "", &recipients, b"Subject: x\n\nx\n").await;
    assert_eq!(statuses(&verdicts), [Delivered, Failed, Delivered]);
    let words = verdicts[1].outcome.reply.to_string();
    assert_eq!(words, "550 5.1.1 no such user here");
    assert_eq!(store.envelope(0), "<>\na@b.test\n\"c d\"@b.test\nSIZE=17");

    let utf8 = "Subject: grüße\n\nx\n";
    let verdicts = send(&mut client, "ö@a.test", &["ü@b.test"], utf8.as_bytes()).await;
    assert_eq!(statuses(&verdicts), [Delivered], "{verdicts:?}");
    let envelope = "ö@a.test\nü@b.test\nSIZE=23\nBODY=8BITMIME\nSMTPUTF8";
    assert_eq!(store.envelope(1), envelope);

    // All are refused, and the connection is reused.
    let verdicts = send(&mut client, "s@a.test", &["absent@b.test"], b"x\n").await;
    assert_eq!(statuses(&verdicts), [Failed]);
    let verdicts = send(&mut client, "s@a.test", &["a@b.test"], b"x\n").await;
    assert_eq!(statuses(&verdicts), [Delivered]);
    assert_eq!(store.envelope(2), "s@a.test\na@b.test\nSIZE=3");

    // With its folds, longer than the 33 MB that the server announces: not one octet is sent.
    let huge = vec![b'x'; 40_000_000];
    let verdicts = send(&mut client, "s@a.test", &["a@b.test"], &huge).await;
    let words = verdicts[0].outcome.reply.to_string();
    assert_eq!(
        words,
        "5.3.4 the message has 40120362 octets, store.test takes 33554432"
    );
    assert!(client.is_alive().await);
    client.quit().await;
}

/// The message as it arrives. Lines end in CRLF, the last one too, and have at most 998 octets. In the
/// header, other CRs and NULs become blanks; in the body, CRs become line ends and NULs are removed.
fn normalised(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut in_header = true;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let mut text = line.strip_suffix(b"\n").unwrap_or(line);
        while let Some(rest) = text.strip_suffix(b"\r") {
            text = rest;
        }
        in_header &= !text.is_empty();
        let mut length = 0;
        for byte in text {
            let byte = match byte {
                b'\r' | 0 if in_header => b' ',
                b'\r' => {
                    out.extend_from_slice(b"\r\n");
                    length = 0;
                    continue;
                }
                0 => continue,
                byte => *byte,
            };
            if length == 998 {
                out.extend_from_slice(b"\r\n ");
                length = 1;
            }
            out.push(byte);
            length += 1;
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}
