//! What the program logs, grouped by the spool that it names.

use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Warnings and errors, one line each.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub struct Said;

impl Said {
    /// Starts to record every event.
    pub fn listen() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Said).unwrap());
    }

    /// The recorded events that name a path below a directory.
    pub fn about(dir: &Path) -> Vec<String> {
        let dir = dir.display().to_string();
        let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter()
            .filter(|line| line.contains(&dir))
            .cloned()
            .collect()
    }
}

/// The fields of an event, without those that differ every time.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Said {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        SAID.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
