//! A server that misbehaves once.

use std::future::pending;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::time::sleep;

/// A point in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Greeting,
    Hello,
    Mail,
    /// The first recipient.
    Rcpt,
    Data,
    /// After some of the message.
    Body,
    End,
    Nowhere,
}

/// The misbehaviour at that point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// The connection is dropped.
    Drop,
    /// Nothing more is sent, read or closed.
    Stall,
    /// This is sent instead, and the session continues.
    Say(&'static str),
    /// The correct reply is sent together with this.
    Also(&'static str),
    /// This is sent, and the connection is dropped.
    SayAndDrop(&'static str),
    /// The correct reply, one octet at a time with a pause after each.
    Slowly(Duration),
    /// The correct code, with 100 KB of text.
    AtLength,
}

pub(super) struct Server {
    pub pipelining: bool,
    pub lmtp: bool,
    pub at: At,
    pub deed: Deed,
    /// More lines for the reply to EHLO.
    pub offers: &'static [&'static str],
}

/// What a server has received.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub commands: Vec<String>,
    pub messages: Vec<Vec<u8>>,
}

impl Server {
    pub(super) fn good() -> Server {
        Server {
            pipelining: true,
            lmtp: false,
            at: At::Nowhere,
            deed: Deed::Drop,
            offers: &[],
        }
    }

    /// Serves until the connection ends.
    pub(super) async fn serve<S>(&self, stream: S) -> Seen
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut seen = Seen::default();
        let mut stream = BufReader::new(stream);
        let _ = self.converse(&mut stream, &mut seen).await;
        seen
    }

    async fn converse<S>(&self, stream: &mut BufReader<S>, seen: &mut Seen) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.say(stream, At::Greeting, "220 mx ready").await?;
        let (mut line, mut recipients) = (String::new(), 0);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            let verb = command.split([' ', ':']).next().unwrap_or_default();
            match verb {
                "EHLO" | "LHLO" => {
                    let mut reply = "250-mx\r\n".to_owned();
                    if self.pipelining {
                        reply.push_str("250-PIPELINING\r\n");
                    }
                    for offer in self.offers {
                        reply.push_str(&format!("250-{offer}\r\n"));
                    }
                    self.say(stream, At::Hello, &format!("{reply}250 8BITMIME"))
                        .await?;
                }
                "HELO" => self.say(stream, At::Nowhere, "250 mx").await?,
                "MAIL" => {
                    recipients = 0;
                    self.say(stream, At::Mail, "250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    let is_first = recipients == 0 && !command.contains("second");
                    let at = if is_first { At::Rcpt } else { At::Nowhere };
                    let is_refused = command.contains("unknown")
                        || at == self.at
                            && matches!(self.deed, Deed::Say(text) if !text.starts_with('2'));
                    recipients += usize::from(!is_refused);
                    let reply = if command.contains("unknown") {
                        "550 5.1.1 unknown"
                    } else {
                        "250 2.1.5 ok"
                    };
                    self.say(stream, at, reply).await?;
                }
                "DATA" if recipients == 0 && self.at != At::Data => {
                    self.say(stream, At::Nowhere, "503 5.5.1 no recipient")
                        .await?;
                }
                "DATA" => {
                    self.say(stream, At::Data, "354 go ahead").await?;
                    if self.at == At::Data
                        && matches!(self.deed, Deed::Say(text) if !text.starts_with('3'))
                    {
                        seen.commands.push(command);
                        continue;
                    }
                    if self.at == At::Body {
                        stream.read_exact(&mut [0; 4]).await?;
                        self.say(stream, At::Body, "").await?;
                    }
                    seen.messages.push(read_message(stream).await?);
                    self.answer(stream, recipients).await?;
                }
                "BDAT" => {
                    let size = command.split(' ').nth(1).unwrap().parse().unwrap();
                    let mut message = vec![0; size];
                    stream.read_exact(&mut message).await?;
                    seen.messages.push(message);
                    self.answer(stream, recipients).await?;
                }
                "RSET" => self.say(stream, At::Nowhere, "250 2.0.0 forgotten").await?,
                "QUIT" => {
                    seen.commands.push(command);
                    return self.say(stream, At::Nowhere, "221 2.0.0 bye").await;
                }
                _ => self.say(stream, At::Nowhere, "500 5.5.2 what?").await?,
            }
            seen.commands.push(command);
        }
    }

    async fn answer<S>(&self, stream: &mut BufReader<S>, recipients: usize) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for n in 0..if self.lmtp { recipients } else { 1 } {
            let at = if n == 0 { At::End } else { At::Nowhere };
            self.say(stream, at, "250 2.0.0 taken").await?;
        }
        Ok(())
    }

    async fn say<S>(&self, stream: &mut BufReader<S>, at: At, reply: &str) -> std::io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let line = |text: &str| format!("{text}\r\n");
        let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        if at != self.at || at == At::Nowhere {
            return stream.write_all(line(reply).as_bytes()).await;
        }
        match self.deed {
            Deed::Drop => Err(gone()),
            Deed::Stall => pending().await,
            Deed::Say(text) => stream.write_all(line(text).as_bytes()).await,
            Deed::Also(text) => {
                let both = line(reply) + &line(text);
                stream.write_all(both.as_bytes()).await
            }
            Deed::SayAndDrop(text) => {
                stream.write_all(line(text).as_bytes()).await?;
                Err(gone())
            }
            Deed::Slowly(each) => {
                for octet in line(reply).bytes() {
                    sleep(each).await;
                    stream.write_all(&[octet]).await?;
                }
                Ok(())
            }
            Deed::AtLength => {
                // The last line of the reply to EHLO, or the only line.
                let long = format!("{reply} {}", "x".repeat(100_000));
                stream.write_all(line(&long).as_bytes()).await
            }
        }
    }
}

/// Reads up to the lone dot, and removes the doubled dots.
async fn read_message<S>(stream: &mut BufReader<S>) -> std::io::Result<Vec<u8>>
where
    S: AsyncRead + Unpin,
{
    let mut message = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(message);
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
