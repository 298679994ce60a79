//! A bounded buffer of log lines, and the thread that writes them to the log.
//!
//! Logging never waits. A log that takes nothing (a stopped journald, a full `/dev/log`, a pipe that
//! nothing reads) blocks only this thread. Lines that no longer fit into the buffer are dropped and
//! counted. After the next line that the log takes, a line reports how many were lost.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use nix::syslog::Severity;

/// The capacity in octets. If a process logs faster than the log takes lines, the excess is dropped.
const ROOM: usize = 8 << 20;

/// Octets that a line counts for besides its text, so that the number of empty lines is bounded too.
const LINE: usize = 64;

/// How long the end of the process waits for the log to take one line; after that the log counts as
/// unread. A log takes a line in microseconds, or on a busy machine as soon as its reader is scheduled.
/// The limit is short because an MTA waits for the end of `receive`.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long the end of the process waits in total for a log that takes lines slowly; after that the rest
/// is dropped.
const MOST: Duration = Duration::from_secs(2);

/// One event, formatted for its sink.
pub(super) struct Line {
    pub severity: Severity,
    pub bytes: Vec<u8>,
}

/// The log that lines are written to. A write may block for ever.
pub(super) trait Sink: Send + 'static {
    fn write(&mut self, line: &Line) -> io::Result<()>;
}

/// The lines that are not yet written.
pub(super) struct Buffer {
    state: Mutex<State>,
    /// Signalled after a line is queued.
    filled: Condvar,
    /// Signalled after the sink has returned from a line.
    taken: Condvar,
    writer: OnceLock<ThreadId>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    octets: usize,
    /// The sink is writing a line.
    is_writing: bool,
    /// Lines that the sink has written or failed to write.
    through: u64,
    /// Lost lines that are not yet reported in the log.
    lost: u64,
    /// Nothing more is written, because the process ends or another log replaces this one.
    is_closed: bool,
}

impl Buffer {
    /// Starts the thread that writes to a sink.
    pub fn start(sink: impl Sink) -> io::Result<Arc<Buffer>> {
        let buffer = Arc::new(Buffer {
            state: Mutex::default(),
            filled: Condvar::new(),
            taken: Condvar::new(),
            writer: OnceLock::new(),
        });
        let writer = Arc::clone(&buffer);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_all(sink))?;
        Ok(buffer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a line, or drops and counts it if it does not fit.
    pub fn push(&self, line: Line) {
        let size = line.bytes.len() + LINE;
        let mut state = self.state();
        // The writer's own line (that lines were lost) always fits: the writer has just taken one out.
        let is_writer = self.writer.get() == Some(&thread::current().id());
        if state.is_closed || (state.octets + size > ROOM && !is_writer) {
            state.lost += 1;
            return;
        }
        state.octets += size;
        state.lines.push_back(line);
        drop(state);
        self.filled.notify_one();
    }

    fn write_all(&self, mut sink: impl Sink) {
        let _ = self.writer.set(thread::current().id());
        let mut state = self.state();
        loop {
            let Some(line) = state.lines.pop_front() else {
                if state.is_closed {
                    return;
                }
                state = (self.filled.wait(state)).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.octets -= line.bytes.len() + LINE;
            state.is_writing = true;
            drop(state);
            let written = sink.write(&line);
            state = self.state();
            state.is_writing = false;
            state.through += 1;
            let lost = match written {
                // The thread that closed the buffer reports the loss.
                _ if state.is_closed => 0,
                Ok(()) => std::mem::take(&mut state.lost),
                Err(_) => {
                    state.lost += 1;
                    0
                }
            };
            if lost > 0 {
                drop(state);
                tracing::warn!(
                    lines = lost,
                    "log lines were lost: the log did not take them"
                );
                state = self.state();
            }
            self.taken.notify_all();
        }
    }

    /// Waits briefly until everything is written, then closes the buffer; its thread ends after the
    /// current write. Returns the number of lost lines that are not yet reported.
    pub fn finish(&self) -> u64 {
        self.finish_within(PATIENCE, MOST)
    }

    fn finish_within(&self, patience: Duration, most: Duration) -> u64 {
        let end = Instant::now() + most;
        let mut state = self.state();
        while !state.is_closed && (!state.lines.is_empty() || state.is_writing) {
            let before = state.through;
            let waited = self.taken.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.through == before || Instant::now() >= end {
                break;
            }
        }
        let mut lost = std::mem::take(&mut state.lost);
        if !std::mem::replace(&mut state.is_closed, true) {
            lost += state.lines.len() as u64 + u64::from(state.is_writing);
            state.lines = VecDeque::new();
            state.octets = 0;
        }
        drop(state);
        self.filled.notify_one();
        lost
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink that takes a line when the test tells it to, and passes it on.
    struct Told {
        leave: Receiver<io::Result<()>>,
        taken: Sender<Vec<u8>>,
    }

    impl Sink for Told {
        fn write(&mut self, line: &Line) -> io::Result<()> {
            let result = self.leave.recv().unwrap_or(Ok(()));
            let _ = self.taken.send(line.bytes.clone());
            result
        }
    }

    fn told() -> (Arc<Buffer>, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let (say, leave) = channel();
        let (taken, lines) = channel();
        (Buffer::start(Told { leave, taken }).unwrap(), say, lines)
    }

    /// Waits until everything is written, with time enough for a busy machine.
    fn finish(buffer: &Buffer) -> u64 {
        const LONG: Duration = Duration::from_secs(60);
        buffer.finish_within(LONG, LONG)
    }

    fn line(bytes: &[u8]) -> Line {
        Line {
            severity: Severity::LOG_INFO,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn a_log_that_takes_nothing_holds_nothing_up() {
        let (buffer, _say, _lines) = told();
        let count = 3 * ROOM / (1024 + LINE);
        (0..count).for_each(|_| buffer.push(line(&[b'x'; 1024])));
        assert!(buffer.state().octets <= ROOM);
        assert_eq!(buffer.finish(), count as u64);
        buffer.push(line(b"after the end"));
        assert_eq!(buffer.finish(), 1);
        assert_eq!(buffer.finish(), 0);
    }

    #[test]
    fn the_thread_ends_after_the_last_line() {
        let (buffer, say, lines) = told();
        buffer.push(line(b"1"));
        say.send(Ok(())).unwrap();
        assert_eq!(finish(&buffer), 0);
        assert_eq!(lines.recv().unwrap(), b"1");
        // The thread has dropped the sink.
        assert!(lines.recv().is_err());
        // If the sink returns only after the end, the thread writes nothing more.
        let (buffer, say, lines) = told();
        buffer.push(line(b"1"));
        buffer.push(line(b"2"));
        while !buffer.state().is_writing {
            thread::yield_now();
        }
        assert_eq!(buffer.finish(), 2);
        say.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        assert_eq!(lines.recv().unwrap(), b"1");
        assert!(lines.recv().is_err());
        assert_eq!(buffer.finish(), 0);
    }

    #[test]
    fn the_end_waits_for_a_log_that_takes_lines() {
        let (buffer, say, lines) = told();
        buffer.push(line(b"1"));
        buffer.push(line(b"2"));
        buffer.push(line(b"3"));
        say.send(Ok(())).unwrap();
        say.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        let late = thread::spawn(move || {
            assert_eq!(lines.recv().unwrap(), b"1");
            assert_eq!(lines.recv().unwrap(), b"2");
            say.send(Ok(())).unwrap();
            assert_eq!(lines.recv().unwrap(), b"3");
        });
        // The second line was lost, which was reported after the third was written.
        assert_eq!(finish(&buffer), 0);
        late.join().unwrap();
    }

    /// A sink that fails at the second line. Its thread logs to the same buffer, like every thread of
    /// the program.
    struct Failing {
        lines: usize,
        buffer: Receiver<Arc<Buffer>>,
        taken: Sender<String>,
    }

    impl Sink for Failing {
        fn write(&mut self, line: &Line) -> io::Result<()> {
            use tracing_subscriber::layer::SubscriberExt;
            self.lines += 1;
            if let Ok(buffer) = self.buffer.try_recv() {
                let journal = super::super::Journald::new(buffer, crate::config::LogFormat::Text);
                let subscriber = tracing_subscriber::registry().with(journal);
                std::mem::forget(tracing::subscriber::set_default(subscriber));
            }
            if self.lines == 2 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let text = String::from_utf8_lossy(&line.bytes).into_owned();
            self.taken.send(text).map_err(io::Error::other)
        }
    }

    #[test]
    fn the_log_reports_how_many_lines_were_lost() {
        let (taken, lines) = channel();
        let (own, buffer) = channel();
        let sink = Failing {
            lines: 0,
            buffer,
            taken,
        };
        let buffer = Buffer::start(sink).unwrap();
        own.send(Arc::clone(&buffer)).unwrap();
        for bytes in ["1", "2", "3"] {
            buffer.push(line(bytes.as_bytes()));
        }
        let said: Vec<String> = lines.iter().take(3).collect();
        assert_eq!(said[..2], ["1", "3"]);
        assert!(said[2].contains("log lines were lost"), "{}", said[2]);
        assert!(said[2].contains("lines=1"), "{}", said[2]);
        assert_eq!(finish(&buffer), 0);
    }
}
