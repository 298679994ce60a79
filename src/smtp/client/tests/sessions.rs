//! Sessions with correct servers: how few writes there are, and how a connection is reused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;

use super::server::{At, Deed, Seen, Server};
use super::*;
use Status::{Deferred, Delivered, Failed};

/// Counts writes.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn serve(server: Server, room: usize) -> (DuplexStream, JoinHandle<Seen>) {
    let (ours, theirs) = duplex(room);
    let serving = tokio::spawn(async move { server.serve(theirs).await });
    (ours, serving)
}

#[tokio::test(start_paused = true)]
async fn a_small_message_is_two_writes() {
    let (ours, serving) = serve(Server::good(), 100_000);
    let writes = Arc::new(AtomicUsize::new(0));
    let stream = Counting(ours, Arc::clone(&writes));
    let mut client = Client::open(stream, "mx", &settings(Protocol::Smtp))
        .await
        .unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    for count in 1..=3 {
        let verdicts = send(&mut client, &["a@b", "c@d"], MESSAGE).await;
        assert_eq!(statuses(&verdicts), [Delivered; 2]);
        assert_eq!(writes.load(Ordering::Relaxed), 1 + 2 * count);
    }
    client.quit().await;
    let seen = serving.await.unwrap();
    assert_eq!(seen.messages, [RECEIVED; 3]);
}

/// A session is used as `dyn`, in futures that move between threads.
#[tokio::test(start_paused = true)]
async fn deliveries_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let (mut client, _theirs) = is_send(by_hand("HELP")).await;
    drop(is_send(send(&mut client, &["a@b"], MESSAGE)));
    is_send(client.is_alive()).await;
    is_send(client.quit()).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_after_refusals() {
    for pipelining in [false, true] {
        let server = Server {
            pipelining,
            ..Server::good()
        };
        let (ours, serving) = serve(server, 1000);
        let mut client = Client::open(ours, "mx", &settings(Protocol::Smtp))
            .await
            .unwrap();
        let refused = send(&mut client, &["unknown@b"], MESSAGE).await;
        assert_eq!(statuses(&refused), [Failed]);
        assert_eq!(refused[0].outcome.reply.remote.as_deref(), Some("mx"));
        assert!(client.is_alive().await);
        let verdicts = send(&mut client, &["a@b", "unknown@b"], MESSAGE).await;
        assert_eq!(statuses(&verdicts), [Delivered, Failed]);
        // No RSET after a message that was answered.
        let verdicts = send(&mut client, &["a@b"], MESSAGE).await;
        assert_eq!(statuses(&verdicts), [Delivered]);
        client.quit().await;
        let seen = serving.await.unwrap();
        let resets = seen.commands.iter().filter(|c| *c == "RSET").count();
        assert_eq!(resets, 1, "{:?}", seen.commands);
        assert_eq!(seen.messages, [RECEIVED; 2]);
        assert_eq!(seen.commands.last().map(String::as_str), Some("QUIT"));
    }
}

/// The server answers while the client is still writing, through a pipe that holds almost nothing: a client
/// that only wrote would wait forever.
#[tokio::test(start_paused = true)]
async fn a_thousand_recipients_through_a_small_pipe() {
    for lmtp in [false, true] {
        let server = Server {
            lmtp,
            ..Server::good()
        };
        let (ours, serving) = serve(server, 16);
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let mut client = Client::open(ours, "mx", &settings(protocol)).await.unwrap();
        let all: Vec<_> = (0..1000)
            .map(|n| match n % 10 {
                3 => format!("unknown{n}@b"),
                _ => format!("{n}@b"),
            })
            .collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let message = b"Subject: x\n\n.line\n".repeat(20_000);
        let verdicts = send(&mut client, &all, &message).await;
        for (n, status) in statuses(&verdicts).into_iter().enumerate() {
            assert_eq!(status, if n % 10 == 3 { Failed } else { Delivered }, "{n}");
        }
        assert!(client.is_reusable());
        client.quit().await;
        let seen = serving.await.unwrap();
        let expected = b"Subject: x\r\n\r\n.line\r\n".repeat(20_000);
        assert!(seen.messages == [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn octets_that_data_cannot_carry_go_counted() {
    let message = [b"Subject: x\n\na\0b\n.\n".repeat(20_000), b"end".to_vec()].concat();
    let server = Server {
        offers: &["CHUNKING"],
        ..Server::good()
    };
    let (ours, serving) = serve(server, 1000);
    let mut client = Client::open(ours, "mx", &settings(Protocol::Smtp))
        .await
        .unwrap();
    for message in [&message[..], MESSAGE] {
        let verdicts = send(&mut client, &["a@b"], message).await;
        assert_eq!(statuses(&verdicts), [Delivered], "{verdicts:?}");
    }
    client.quit().await;
    let seen = serving.await.unwrap();
    let counted = [
        b"Subject: x\r\n\r\na\0b\r\n.\r\n".repeat(20_000),
        b"end\r\n".to_vec(),
    ]
    .concat();
    assert!(seen.messages == [counted, RECEIVED.to_vec()]);
    assert!(seen.commands.iter().any(|command| command == "DATA"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_gone_is_noticed_before_the_next_message() {
    let (mut client, mut theirs) = by_hand("HELP").await;
    assert!(client.is_alive().await);
    say(&mut theirs, "421 4.4.2 idle for too long\r\n").await;
    drop(theirs);
    let verdicts = send(&mut client, &["a@b"], MESSAGE).await;
    assert_eq!(statuses(&verdicts), [Deferred]);
    assert_eq!(verdicts[0].scope, Scope::Host);
    let words = verdicts[0].outcome.reply.to_string();
    assert_eq!(words, "421 4.4.2 idle for too long");
    assert!(!client.is_alive().await);
}

#[tokio::test(start_paused = true)]
async fn goodbye_does_not_take_long() {
    let (client, _theirs) = by_hand("HELP").await;
    let begun = Instant::now();
    client.quit().await;
    assert_eq!(begun.elapsed(), Deadlines::default().quit);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_us_is_told_goodbye() {
    let server = Server {
        at: At::Greeting,
        deed: Deed::Say("554 5.7.1 you again"),
        ..Server::good()
    };
    let (ours, serving) = serve(server, 1000);
    let error = Client::open(ours, "mx", &settings(Protocol::Smtp)).await;
    let error = error.err().unwrap();
    let text = "mx refused (waiting for the greeting): 554 5.7.1 you again";
    assert_eq!(error.to_string(), text);
    assert_eq!(serving.await.unwrap().commands, ["QUIT"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_says_what_it_knows() {
    let server = Server {
        offers: &["SIZE 1000", "X-OWN thing"],
        ..Server::good()
    };
    let (ours, _serving) = serve(server, 1000);
    let client = Client::open(ours, "mx", &settings(Protocol::Smtp))
        .await
        .unwrap();
    let info = client.info();
    assert_eq!(info.greeting, "mx ready");
    assert_eq!(info.capabilities.max_size, Some(1000));
    let lines = ["PIPELINING", "SIZE 1000", "X-OWN thing", "8BITMIME"];
    assert_eq!(info.capabilities.lines, lines);
    assert_eq!((info.tls.as_ref(), info.mechanism), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_connection_carries_no_more_transactions_than_the_server_takes() {
    let server = Server {
        offers: &["LIMITS MAILMAX=2"],
        ..Server::good()
    };
    let (ours, serving) = serve(server, 100_000);
    let mut client = Client::open(ours, "mx", &settings(Protocol::Smtp))
        .await
        .unwrap();
    // A message that is not sent to the server does not count.
    let unsendable = send(&mut client, &["\u{f6}@b"], MESSAGE).await;
    assert_eq!(statuses(&unsendable), [Failed]);
    for is_reusable in [true, false] {
        let verdicts = send(&mut client, &["a@b"], MESSAGE).await;
        assert_eq!(statuses(&verdicts), [Delivered]);
        assert_eq!(client.is_reusable(), is_reusable);
        assert_eq!(client.is_alive().await, is_reusable);
    }
    client.quit().await;
    let seen = serving.await.unwrap();
    assert_eq!(seen.messages.len(), 2);
    assert_eq!(seen.commands.last().map(String::as_str), Some("QUIT"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_ehlo_with_a_line_without_its_code_is_one() {
    let (ours, mut theirs) = duplex(1000);
    let settings = settings(Protocol::Smtp);
    let opening = Client::open(ours, "mx", &settings);
    let serving = async {
        say(&mut theirs, "220-mx\r\n*** no spam ***\r\n220 ready\r\n").await;
        hear(&mut theirs).await;
        say(&mut theirs, "250-mx\r\nDSN\r\n250 PIPELINING\r\n").await;
    };
    let (client, ()) = tokio::join!(opening, serving);
    let info = client.unwrap().info().clone();
    assert_eq!(info.greeting, "mx ready");
    assert!(info.capabilities.pipelining && !info.capabilities.dsn);
}
