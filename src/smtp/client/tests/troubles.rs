//! Every way in which a server can misbehave at every step, and the outcomes of the recipients.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::server::{At, Deed, Seen, Server};
use super::*;
use Status::{Deferred, Delivered, Failed, Unknown};

const STEPS: [At; 6] = [
    At::Greeting,
    At::Hello,
    At::Mail,
    At::Rcpt,
    At::Data,
    At::End,
];

/// Sends a message to two recipients. Returns their verdicts, what the server received, and whether the
/// connection is reusable.
async fn attempt(server: Server, room: usize, message: &[u8]) -> (Vec<Verdict>, Seen, bool) {
    let protocol = if server.lmtp {
        Protocol::Lmtp
    } else {
        Protocol::Smtp
    };
    let (ours, theirs) = duplex(room);
    let client = async move {
        let recipients = ["first@b.example", "second@b.example"];
        match Client::open(ours, "mx", &settings(protocol)).await {
            Err(error) => (vec![error.verdict(); 2], false),
            Ok(mut client) => {
                let verdicts = send(&mut client, &recipients, message).await;
                (verdicts, client.is_reusable())
            }
        }
    };
    // The server may stall forever: it ends when the client does.
    let mut seen = None;
    let serving = server.serve(theirs);
    tokio::pin!(client, serving);
    let (verdicts, reusable) = loop {
        tokio::select! {
            done = &mut client => break done,
            saw = &mut serving, if seen.is_none() => seen = Some(saw),
        }
    };
    (verdicts, seen.unwrap_or_default(), reusable)
}

/// The statuses of both recipients according to the table in `verdict`.
fn expected(at: At, deed: Deed, lmtp: bool) -> [Status; 2] {
    let silence = match at {
        At::End => Unknown,
        _ => Deferred,
    };
    match deed {
        Deed::Slowly(_) | Deed::AtLength => [Delivered; 2],
        // An additional reply is harmless only after the answer that decides everything.
        Deed::Also(_) => match at {
            At::End if !lmtp => [Delivered; 2],
            // The server gave two answers, so it decides which recipient each is for.
            At::End => [Delivered; 2],
            _ => [Deferred; 2],
        },
        Deed::Say(text) | Deed::SayAndDrop(text) => {
            let all = match text.split([' ', '-']).next().unwrap_or_default() {
                "421" | "451" => Deferred,
                "550" if at == At::Hello => {
                    return if lmtp { [Deferred; 2] } else { [Delivered; 2] };
                }
                "550" if at == At::Greeting => Deferred,
                "550" => Failed,
                _ => silence,
            };
            let second = match at {
                At::Rcpt if matches!(text.get(..3), Some("451" | "550")) => Delivered,
                At::End if lmtp && matches!(text.get(..3), Some("451" | "550" | "421")) => {
                    Delivered
                }
                _ => all,
            };
            [all, second]
        }
        Deed::Drop | Deed::Stall => [silence; 2],
    }
}

#[tokio::test(start_paused = true)]
async fn every_deed_at_every_step() {
    let deeds = [
        Deed::Drop,
        Deed::Stall,
        Deed::Say("421 4.3.2 bye"),
        Deed::Say("451 4.3.0 later"),
        Deed::Say("550 5.7.509 no"),
        Deed::Say("SSH-2.0-OpenSSH_9.2"),
        Deed::Say("250-mixed\r\n550 codes"),
        Deed::Say("250ok"),
        Deed::Say("\0\0\u{ff}"),
        Deed::Say(""),
        Deed::Also("250 more"),
        Deed::Slowly(Duration::from_millis(10)),
        Deed::AtLength,
    ];
    for lmtp in [false, true] {
        for pipelining in [false, true] {
            for at in STEPS {
                for deed in deeds {
                    let server = Server {
                        pipelining,
                        lmtp,
                        at,
                        deed,
                        offers: &[],
                    };
                    let (verdicts, seen, reusable) = attempt(server, 100, MESSAGE).await;
                    let what = format!("{deed:?} at {at:?}, lmtp {lmtp}, pipelining {pipelining}");
                    let got = statuses(&verdicts);
                    assert_eq!(got, expected(at, deed, lmtp), "{what}: {verdicts:?}");
                    if matches!(deed, Deed::Also(_)) {
                        assert!(!reusable, "{what}");
                    }
                    if let [message] = &seen.messages[..] {
                        assert_eq!(message, RECEIVED, "{what}");
                    }
                    assert!(seen.messages.len() < 2, "{what}");
                }
            }
        }
    }
}

/// The last octet of a counted message has the same effect as a lone dot.
#[tokio::test(start_paused = true)]
async fn silence_after_a_counted_message_is_unknown_too() {
    for (deed, status) in [
        (Deed::Drop, Unknown),
        (Deed::Stall, Unknown),
        (Deed::Say("what"), Unknown),
        (Deed::Say("421 4.3.2 bye"), Deferred),
        (Deed::Say("550 5.6.0 no"), Failed),
        (Deed::AtLength, Delivered),
    ] {
        let server = Server {
            at: At::End,
            deed,
            offers: &["CHUNKING"],
            ..Server::good()
        };
        let (verdicts, seen, _) = attempt(server, 100, b"Subject: x\n\n\0\n").await;
        assert_eq!(statuses(&verdicts), [status; 2], "{deed:?}");
        assert!(!seen.commands.contains(&"DATA".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn each_step_waits_as_long_as_the_rfc_says() {
    for (at, seconds, words) in [
        (
            At::Greeting,
            300,
            "timed out after 300 s while waiting for the greeting",
        ),
        (
            At::Hello,
            300,
            "timed out after 300 s while waiting for the answer to EHLO",
        ),
        (
            At::Mail,
            300,
            "timed out after 300 s while waiting for the answer to MAIL FROM",
        ),
        (
            At::Rcpt,
            300,
            "timed out after 300 s while waiting for the answer to RCPT TO",
        ),
        (
            At::Data,
            120,
            "timed out after 120 s while waiting for the answer to DATA",
        ),
        (
            At::Body,
            180,
            "timed out after 180 s while sending the message",
        ),
        (
            At::End,
            600,
            "timed out after 600 s while waiting for the answer to the end of the message",
        ),
    ] {
        let server = Server {
            at,
            deed: Deed::Stall,
            ..Server::good()
        };
        let begun = Instant::now();
        // Far more than the stream holds.
        let message = b"line\r\n".repeat(10_000);
        let (verdicts, ..) = attempt(server, 100, &message).await;
        assert_eq!(begun.elapsed().as_secs(), seconds, "{at:?}");
        let reply = &verdicts[0].outcome.reply;
        assert_eq!(reply.to_string(), format!("4.4.2 {words}"));
    }
}

/// Octets that arrive one by one do not keep a connection open: each answer has a deadline as a whole.
#[tokio::test(start_paused = true)]
async fn an_answer_octet_by_octet_is_not_waited_for() {
    let server = Server {
        at: At::Mail,
        deed: Deed::Slowly(Duration::from_secs(60)),
        ..Server::good()
    };
    let begun = Instant::now();
    let (verdicts, ..) = attempt(server, 100, MESSAGE).await;
    assert_eq!(statuses(&verdicts), [Deferred; 2]);
    assert_eq!(begun.elapsed().as_secs(), 300);
}

/// Each octet is progress, but the whole transfer is limited too, in proportion to the size.
#[tokio::test(start_paused = true)]
async fn a_server_that_reads_slowly_does_not_hold_a_message_forever() {
    let (mut client, mut theirs) = by_hand("HELP").await;
    let sipping = async move {
        for answer in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            hear(&mut theirs).await;
            say(&mut theirs, answer).await;
        }
        let mut sip = [0; 64];
        loop {
            tokio::time::sleep(Duration::from_secs(100)).await;
            if theirs.read(&mut sip).await.unwrap() == 0 {
                return;
            }
        }
    };
    let sending = async move {
        let begun = Instant::now();
        let message = b"line\r\n".repeat(10_000);
        let verdicts = send(&mut client, &["r@b.example"], &message).await;
        assert_eq!(statuses(&verdicts), [Deferred]);
        assert_eq!(verdicts[0].step, Step::Body);
        let longest = Deadlines::default().sending(60_000).as_secs();
        assert_eq!(begun.elapsed().as_secs(), longest);
    };
    tokio::join!(sipping, sending);
}

#[tokio::test(start_paused = true)]
async fn a_message_refused_half_way_is_refused() {
    let message = b"line\r\n".repeat(100_000);
    for (deed, status) in [
        (Deed::SayAndDrop("552 5.3.4 too much mail data"), Failed),
        (Deed::SayAndDrop("451 4.3.0 no room"), Deferred),
        (Deed::SayAndDrop("421 4.3.2 going down"), Deferred),
        (Deed::SayAndDrop("250 2.0.0 fine"), Deferred),
        (Deed::SayAndDrop("what"), Deferred),
        (Deed::Drop, Deferred),
    ] {
        for lmtp in [false, true] {
            let server = Server {
                at: At::Body,
                deed,
                lmtp,
                ..Server::good()
            };
            let (verdicts, _, reusable) = attempt(server, 1000, &message).await;
            assert_eq!(statuses(&verdicts), [status; 2], "{deed:?}: {verdicts:?}");
            assert!(!reusable);
        }
    }
}

/// Over TCP, input that a server leaves unread when it closes makes the client's writes fail. The server
/// has sent the reason before.
#[tokio::test]
async fn the_last_reply_is_read_despite_a_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..10 {
        let server = Server {
            at: At::Body,
            deed: Deed::SayAndDrop("552 5.3.4 too much mail data"),
            ..Server::good()
        };
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            server.serve(stream).await
        };
        let sending = async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let settings = settings(Protocol::Smtp);
            let mut client = Client::open(stream, "mx", &settings).await.unwrap();
            let message = b"line\r\n".repeat(100_000);
            send(&mut client, &["r@b.example"], &message).await
        };
        let (_, verdicts) = tokio::join!(serving, sending);
        assert_eq!(statuses(&verdicts), [Failed], "{verdicts:?}");
    }
}

/// Half an answer before the end of the message does not become a whole one after it.
#[tokio::test(start_paused = true)]
async fn half_an_early_answer_is_no_answer() {
    let (mut client, mut theirs) = by_hand("PIPELINING").await;
    let server = async move {
        hear(&mut theirs).await;
        say(&mut theirs, "250 ok\r\n250 ok\r\n354 go\r\n250 do").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        say(&mut theirs, "ne\r\n").await;
        hear(&mut theirs).await
    };
    let sending = async move {
        let verdicts = send(&mut client, &["r@b.example"], MESSAGE).await;
        assert_eq!(statuses(&verdicts), [Deferred], "{verdicts:?}");
        assert!(!client.is_reusable());
    };
    let (more, ()) = tokio::join!(server, sending);
    assert_eq!(more, "", "nothing of the message was sent");
}

/// The runner's own deadline: the future is dropped, and the connection cannot be reused.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_dropped_leaves_no_reusable_connection() {
    let server = Server {
        at: At::End,
        deed: Deed::Stall,
        ..Server::good()
    };
    let (ours, theirs) = duplex(1000);
    tokio::spawn(async move { server.serve(theirs).await });
    let mut client = Client::open(ours, "mx", &settings(Protocol::Smtp))
        .await
        .unwrap();
    let sending = send(&mut client, &["r@b.example"], MESSAGE);
    let dropped = tokio::time::timeout(Duration::from_secs(1), sending).await;
    assert!(dropped.is_err());
    assert!(!client.is_reusable());
    let verdicts = send(&mut client, &["r@b.example"], MESSAGE).await;
    assert_eq!(statuses(&verdicts), [Deferred]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_is_not_ended() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("bad sector"))
        }
    }
    // The same for a message that is longer or shorter than measured.
    let half = &b"a\0b\r\n"[..];
    let readers: [(&[&str], Box<dyn Read>); 6] = [
        (&[], Box::new(half)),
        (&[], Box::new(io::Cursor::new(half.repeat(3)))),
        (&[], Box::new(Read::chain(half, Broken))),
        (&["CHUNKING"], Box::new(Read::chain(half, Broken))),
        (&["CHUNKING"], Box::new(half)),
        (&["CHUNKING"], Box::new(io::Cursor::new(half.repeat(3)))),
    ];
    for (offers, reader) in readers {
        let server = Server {
            offers: if offers.is_empty() {
                &[]
            } else {
                &["CHUNKING"]
            },
            ..Server::good()
        };
        let (ours, theirs) = duplex(1000);
        let serving = tokio::spawn(async move { server.serve(theirs).await });
        let mut client = Client::open(ours, "mx", &settings(Protocol::Smtp))
            .await
            .unwrap();
        let transaction = Transaction {
            sender: &ReversePath::Null,
            recipients: &addresses(&["r@b.example"]),
            shape: Shape::of(&half.repeat(2)[..]).unwrap(),
            dsn: None,
        };
        let verdicts = client.deliver(&transaction, reader).await;
        assert_eq!(statuses(&verdicts), [Deferred]);
        assert_eq!(verdicts[0].scope, Scope::Message, "{verdicts:?}");
        assert!(!client.is_reusable());
        client.quit().await;
        assert_eq!(serving.await.unwrap().messages.len(), 0);
    }
}

/// A message with a beginning already sent in more than one write.
#[tokio::test(start_paused = true)]
async fn a_long_message_that_ends_early_is_not_ended() {
    let message = b"Subject: x\n\n0123456789\n".repeat(10_000);
    for cut in [1, 70_000, message.len() - 1] {
        let (ours, theirs) = duplex(1000);
        let serving = tokio::spawn(async move { Server::good().serve(theirs).await });
        let settings = settings(Protocol::Smtp);
        let mut client = Client::open(ours, "mx", &settings).await.unwrap();
        let transaction = Transaction {
            sender: &ReversePath::Null,
            recipients: &addresses(&["r@b.example"]),
            shape: Shape::of(&message[..]).unwrap(),
            dsn: None,
        };
        let verdicts = client.deliver(&transaction, &message[..cut]).await;
        assert_eq!(statuses(&verdicts), [Deferred]);
        assert_eq!(
            verdicts[0].outcome.reply.to_string(),
            "4.3.0 the message cannot be read: its length has changed while sending the message"
        );
        client.quit().await;
        assert_eq!(serving.await.unwrap().messages.len(), 0, "{cut}");
    }
}

/// Wherever its end falls among the writes.
#[tokio::test(start_paused = true)]
async fn a_counted_message_of_any_length_arrives() {
    for length in [16_384, 65_535, 65_536, 65_537, 131_072] {
        let mut message = b"\n\0".to_vec();
        message.resize(length - 2, b'x');
        message.push(b'\n');
        let received = [b"\r\n", &message[1..length - 2], b"\r\n"].concat();
        let server = Server {
            offers: &["CHUNKING"],
            ..Server::good()
        };
        let (ours, theirs) = duplex(200_000);
        let serving = tokio::spawn(async move { server.serve(theirs).await });
        let settings = settings(Protocol::Smtp);
        let mut client = Client::open(ours, "mx", &settings).await.unwrap();
        let verdicts = send(&mut client, &["r@b.example"], &message).await;
        assert_eq!(statuses(&verdicts), [Delivered], "{length}: {verdicts:?}");
        client.quit().await;
        let seen = serving.await.unwrap().messages;
        assert!(seen == [&received[..]], "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The server sends anything at any time, whatever the client sends.
    #[test]
    fn whatever_a_server_says_it_comes_to_an_end(
        says in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(vec![
                    "220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250 ok\r\n", "250 ok\r\n",
                    "354 go\r\n", "550 no\r\n", "450 hm\r\n", "421 bye\r\n", "250-", "\r\n", "2",
                ]).prop_map(|text| text.as_bytes().to_vec()),
                1 => any::<Vec<u8>>(),
            ],
            0..12,
        ),
        waits: bool,
        lmtp: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(300);
            let server = tokio::spawn(async move {
                let mut input = [0; 1000];
                let mut got_all = Vec::new();
                for bytes in says {
                    if theirs.write_all(&bytes).await.is_err() {
                        break;
                    }
                    if waits {
                        let read = theirs.read(&mut input);
                        let read = tokio::time::timeout(Duration::from_secs(1), read).await;
                        got_all.extend_from_slice(&input[..read.map_or(0, Result::unwrap)]);
                    }
                }
                let rest = theirs.read_to_end(&mut got_all);
                let _ = tokio::time::timeout(Duration::from_secs(100_000), rest).await;
                got_all
            });
            let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
            let mut verdicts = Vec::new();
            if let Ok(mut client) = Client::open(ours, "mx", &settings(protocol)).await {
                verdicts = send(&mut client, &["a@b", "c@d"], MESSAGE).await;
                client.quit().await;
            }
            let got = server.await.unwrap();
            let whole = got.windows(5).any(|five| five == b"\r\n.\r\n");
            for status in statuses(&verdicts) {
                assert!(whole || !matches!(status, Delivered | Unknown), "{status:?}");
            }
        });
    }
}
