//! Octets between the protocol and a stream: buffers, TLS, deadlines.
//!
//! Writing and reading always happen at the same time. Otherwise a server that answers a thousand pipelined
//! RCPTs while the client writes them would fill its window, and both sides would wait for each other. And
//! if a server refuses a message half way, its reply is read before the writes fail.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::opening::OpenError;
use super::reply::{Form, ReplyParser, ServerReply};
use super::step::Step;
use super::tls::{Tls, handshake_error};
use super::verdict::Trouble;

/// Octets read at a time.
const READ: usize = 4096;

/// A stream, before and after TLS.
pub(super) enum Stream<S> {
    Clear(S),
    Tls(Box<TlsStream<S>>),
    /// The handshake did not complete.
    Gone,
}

/// A stream with its buffers.
pub(super) struct Wire<S> {
    stream: Stream<S>,
    parser: ReplyParser,
    /// Octets read but not parsed yet: `input[at..end]`.
    input: Box<[u8; READ]>,
    at: usize,
    end: usize,
    /// Octets to be sent: `out[written..]`. The code that appends to it also waits until it is written.
    pub(super) out: Vec<u8>,
    written: usize,
    needs_flush: bool,
    /// The error after which nothing more can be written. The server's last reply may still be read.
    write_error: Option<io::Error>,
}

/// The result of writing a block.
pub(super) enum Wrote {
    All,
    /// A reply arrived before everything was written.
    Reply(ServerReply),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Wire<S> {
        Wire {
            stream: Stream::Clear(stream),
            parser: ReplyParser::default(),
            input: Box::new([0; READ]),
            at: 0,
            end: 0,
            out: Vec::new(),
            written: 0,
            needs_flush: false,
            write_error: None,
        }
    }

    /// Sends the contents of `out`, and waits for a reply of this form.
    pub(super) async fn reply(
        &mut self,
        form: Form,
        within: Duration,
        until: Instant,
    ) -> Result<ServerReply, Trouble> {
        self.parser.expect(form);
        // A reply already received needs no timeout.
        if let Some(reply) = self.parse()? {
            return Ok(reply);
        }
        let end = until.min(deadline(within));
        let begun = Instant::now();
        timeout_at(end, poll_fn(|cx| self.poll_reply(cx)))
            .await
            .unwrap_or_else(|_| Err(self.timed_out(begun)))
    }

    /// Writes all of `out`; `within` limits the time without progress. Flushing is left to the next
    /// [`reply`](Wire::reply). Any reply ends the write.
    pub(super) async fn write(
        &mut self,
        within: Duration,
        until: Instant,
    ) -> Result<Wrote, Trouble> {
        loop {
            let before = self.written;
            let end = until.min(deadline(within));
            let begun = Instant::now();
            let progress = timeout_at(end, poll_fn(|cx| self.poll_body(cx, before)))
                .await
                .unwrap_or_else(|_| Err(self.timed_out(begun)))?;
            if let Some(reply) = progress {
                return Ok(Wrote::Reply(reply));
            }
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                return Ok(Wrote::All);
            }
        }
    }

    /// Checks for unexpected input without waiting. Returns the reply, an error at the end of the stream,
    /// or `None`.
    pub(super) async fn unasked(&mut self) -> Result<Option<ServerReply>, Trouble> {
        // The runtime polls its sockets before this returns.
        tokio::task::yield_now().await;
        if let Some(reply) = self.parse()? {
            return Ok(Some(reply));
        }
        loop {
            let look = poll_fn(|cx| Poll::Ready(self.poll_read(cx)));
            match look.await {
                Poll::Ready(read) => {
                    read?;
                    if let Some(reply) = self.parse()? {
                        return Ok(Some(reply));
                    }
                }
                Poll::Pending if self.has_input() => {
                    return Err(Trouble::Misplaced("half a line".into()));
                }
                Poll::Pending => return Ok(None),
            }
        }
    }

    /// Whether the server answers too early: input has arrived, but nothing of `out` was sent.
    pub(super) fn is_ahead(&self) -> bool {
        self.has_input() && self.written == 0 && !self.out.is_empty()
    }

    /// Whether there is unexpected input.
    pub(super) fn has_input(&self) -> bool {
        self.at < self.end || !self.parser.is_empty()
    }

    /// Negotiates TLS.
    pub(super) async fn encrypt(
        &mut self,
        tls: &Tls,
        host: &str,
        within: Duration,
        until: Instant,
    ) -> Result<(), OpenError> {
        if self.has_input() {
            return Err(OpenError::Injected);
        }
        let failed = |error: &dyn std::fmt::Display| OpenError::Tls(error.to_string());
        let (config, name) = tls.for_host(host).map_err(|error| failed(&error))?;
        let stream = match std::mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Clear(stream) => stream,
            _ => return Err(failed(&"TLS is already established")),
        };
        let end = until.min(deadline(within));
        let begun = Instant::now();
        let handshake = TlsConnector::from(config).connect(name, stream);
        match timeout_at(end, handshake).await {
            Ok(Ok(stream)) => {
                self.stream = Stream::Tls(Box::new(stream));
                Ok(())
            }
            Ok(Err(error)) => Err(failed(&handshake_error(&error))),
            Err(_) => Err(OpenError::Trouble {
                step: Step::Handshake,
                trouble: Trouble::TimedOut(begun.elapsed()),
            }),
        }
    }

    pub(super) fn stream(&self) -> &Stream<S> {
        &self.stream
    }

    /// Closes the stream, TLS first.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Gone => Poll::Ready(Ok(())),
        })
        .await
    }

    /// The error after a deadline. A failed write is reported rather than the timeout: it was only held
    /// back so that the server's last reply could be read.
    fn timed_out(&mut self, begun: Instant) -> Trouble {
        match self.write_error.take() {
            Some(error) => broke(&error),
            None => Trouble::TimedOut(begun.elapsed()),
        }
    }

    fn parse(&mut self) -> Result<Option<ServerReply>, Trouble> {
        let (took, reply) = self.parser.push(&self.input[self.at..self.end])?;
        self.at += took;
        Ok(reply)
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<ServerReply, Trouble>> {
        // The result is checked below, because a reply from the server takes precedence.
        let _ = self.poll_write_out(cx);
        loop {
            ready!(self.poll_read(cx))?;
            if let Some(reply) = self.parse()? {
                return Poll::Ready(Ok(reply));
            }
        }
    }

    /// Reads before it writes: a reply found then arrived before the octets that are written now. A reply
    /// after the last octets is not an early one.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        before: usize,
    ) -> Poll<Result<Option<ServerReply>, Trouble>> {
        loop {
            while self.poll_read(cx)?.is_ready() {
                if let Some(reply) = self.parse()? {
                    return Poll::Ready(Ok(Some(reply)));
                }
            }
            // Part of a reply has arrived: write nothing more before the rest.
            if self.has_input() || self.write_error.is_some() {
                return Poll::Pending;
            }
            let _ = self.poll_write(cx);
            if self.write_error.is_none() {
                break;
            }
            // Writing failed: read the server's last reply, if there is one.
        }
        if self.written > before || self.written == self.out.len() {
            Poll::Ready(Ok(None))
        } else {
            Poll::Pending
        }
    }

    /// Reads into the empty input buffer. The end of the stream is an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        if self.at < self.end {
            return Poll::Ready(Ok(()));
        }
        let mut buffer = ReadBuf::new(&mut self.input[..]);
        let read = match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Gone => Poll::Ready(Ok(())),
        };
        let read = ready!(read);
        let filled = buffer.filled().len();
        (self.at, self.end) = (0, filled);
        Poll::Ready(match (read, self.write_error.take()) {
            (Ok(()), _) if filled > 0 => Ok(()),
            (Ok(()), Some(error)) => Err(broke(&error)),
            (Ok(()), None) => Err(Trouble::Lost),
            (Err(error), _) => Err(broke(&error)),
        })
    }

    /// Writes and flushes everything.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.written < self.out.len() {
            ready!(self.poll_write(cx));
            if self.write_error.is_some() {
                return Poll::Ready(());
            }
        }
        self.out.clear();
        self.written = 0;
        if self.needs_flush {
            let flushed = match &mut self.stream {
                Stream::Clear(stream) => Pin::new(stream).poll_flush(cx),
                Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
                Stream::Gone => Poll::Ready(Ok(())),
            };
            if let Err(error) = ready!(flushed) {
                self.write_error = Some(error);
            }
            self.needs_flush = false;
        }
        Poll::Ready(())
    }

    /// Writes once.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let rest = &self.out[self.written..];
        if self.write_error.is_some() || rest.is_empty() {
            return Poll::Ready(());
        }
        let wrote = match &mut self.stream {
            Stream::Clear(stream) => Pin::new(stream).poll_write(cx, rest),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, rest),
            Stream::Gone => Poll::Ready(Ok(0)),
        };
        match ready!(wrote) {
            Ok(0) => self.write_error = Some(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.written += count;
                self.needs_flush = true;
            }
            Err(error) => self.write_error = Some(error),
        }
        Poll::Ready(())
    }
}

fn broke(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Trouble::Lost,
        _ => Trouble::Broke(error.to_string()),
    }
}

/// The instant after this duration, or after a year if the duration is longer.
pub(super) fn deadline(within: Duration) -> Instant {
    let now = Instant::now();
    let year = Duration::from_secs(365 * 24 * 3600);
    now.checked_add(within.min(year)).unwrap_or(now)
}
