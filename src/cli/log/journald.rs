//! Log lines for journald in its native protocol: one datagram of fields per event.
//!
//! `MESSAGE` is the whole line as in a log file, so that `journalctl` shows it. Each field of the event
//! is also a journal field, such as `MAILSPOOL_ID`.

use std::fmt::Debug;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use nix::syslog::Severity;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::buffer::{Buffer, Line, Sink};
use super::visible;
use crate::config::LogFormat;
use crate::message::text::shortened;

/// The socket that journald reads.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The most octets of a field; longer ones are cut. An event must fit into one datagram, at most 200 KB by
/// default.
const MOST: usize = 8 << 10;

/// Facility "mail", as for syslog.
const FACILITY: &str = "2";

/// Sends datagrams to journald.
pub(super) struct Socket(UnixDatagram);

impl Socket {
    /// Opens a socket, or fails if journald is not running.
    pub fn new() -> io::Result<Socket> {
        let socket = UnixDatagram::unbound()?;
        // Keep the socket unconnected: a restarted journald has a new socket.
        UnixDatagram::unbound()?.connect(SOCKET)?;
        Ok(Socket(socket))
    }
}

impl Sink for Socket {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.0.send_to(&line.bytes, SOCKET).map(drop)
    }
}

/// A layer that turns each event into a datagram.
pub(super) struct Journald {
    buffer: Arc<Buffer>,
    format: LogFormat,
}

impl Journald {
    pub fn new(buffer: Arc<Buffer>, format: LogFormat) -> Journald {
        Journald { buffer, format }
    }
}

impl<S: Subscriber> Layer<S> for Journald {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let mut bytes = Vec::new();
        put("MESSAGE", &fields.line(level, self.format), &mut bytes);
        put("PRIORITY", priority(level), &mut bytes);
        put("SYSLOG_FACILITY", FACILITY, &mut bytes);
        put("SYSLOG_IDENTIFIER", "mailspool", &mut bytes);
        for (name, value, _) in &fields.0 {
            if let Some(name) = journal_name(name) {
                put(&name, &plain(value), &mut bytes);
            }
        }
        // The datagram itself contains the severity.
        let severity = Severity::LOG_INFO;
        self.buffer.push(Line { severity, bytes });
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// Returns a field's name in the journal; none for the message.
fn journal_name(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase().replace(['.', '-'], "_");
    (name != "MESSAGE").then(|| format!("MAILSPOOL_{name}"))
}

/// Appends a field with its length before the value, so that no value can be mistaken for another field.
fn put(name: &str, value: &str, datagram: &mut Vec<u8>) {
    let value = shortened(value.to_owned(), MOST);
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The fields of an event, in their order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value, Quoted)>);

/// Whether text lines quote a value: strings are quoted, values formatted with `Debug` are not. This
/// matches the other logs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    No,
    Yes,
}

impl Fields {
    fn line(&self, level: Level, format: LogFormat) -> String {
        let text = match format {
            LogFormat::Json => self.object(level).to_string(),
            LogFormat::Text => self.text(),
        };
        visible(&text, format)
    }

    fn object(&self, level: Level) -> Value {
        let mut object = Map::new();
        object.insert("level".to_owned(), level.as_str().into());
        for (name, value, _) in &self.0 {
            object.insert((*name).to_owned(), value.clone());
        }
        Value::Object(object)
    }

    fn text(&self) -> String {
        let is_message = |field: &&(&str, Value, Quoted)| field.0 == "message";
        let messages = self.0.iter().filter(is_message);
        let mut words: Vec<String> = messages.map(|(_, value, _)| plain(value)).collect();
        let others = self.0.iter().filter(|field| !is_message(field));
        words.extend(others.map(|(name, value, quoted)| match quoted {
            Quoted::Yes => format!("{name}={:?}", plain(value)),
            Quoted::No => format!("{name}={}", plain(value)),
        }));
        words.join(" ")
    }

    fn push(&mut self, field: &Field, value: impl Into<Value>, quoted: Quoted) {
        self.0.push((field.name(), value.into(), quoted));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value, Quoted::No);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value, Quoted::No);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value, Quoted::No);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value, Quoted::No);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value, Quoted::Yes);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push(field, format!("{value:?}"), Quoted::No);
    }
}
