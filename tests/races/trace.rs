//! The trace of one schedule: readable, and the same each time the schedule runs.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use mailspool::testing::message::QueueId;

use super::touch::{Sees, Touched};
use super::turns::{Choice, Op};

/// A decision, and the calls that the processes were at.
#[derive(Clone, Debug)]
pub struct Raw {
    pub choice: Choice,
    pub at: [Option<Op>; 2],
}

/// A decision, with readable calls.
#[derive(Debug)]
pub struct Step {
    pub choice: Choice,
    pub at: [Option<Arc<Shown>>; 2],
}

/// A readable call, and what it touches.
#[derive(Debug)]
pub struct Shown {
    pub text: String,
    pub name: &'static str,
    pub touched: Touched,
}

#[derive(Debug, Default)]
pub struct Trace {
    pub steps: Vec<Step>,
}

pub const NAMES: [&str; 2] = ["A", "B"];

/// Names for queue ids: those known beforehand are `m1`, `m2`, …; the others are named after the process that first
/// used them, and numbered.
struct Ids {
    names: HashMap<String, String>,
    made: [usize; 2],
}

impl Ids {
    fn named(&mut self, process: usize, path: &Path) -> String {
        let mut text = path.to_string_lossy().into_owned();
        if text == "." {
            text.clear();
        } else if let Some(rest) = text.strip_prefix("./") {
            text = rest.to_owned();
        }
        let mut named = String::new();
        for part in text.split_inclusive(['/', '.']) {
            let (word, end) = match part.char_indices().last() {
                Some((at, '/' | '.')) => part.split_at(at),
                _ => (part, ""),
            };
            if word.len() == 36 && word.bytes().filter(|byte| *byte == b'-').count() == 4 {
                named.push_str(self.name(process, word))
            } else {
                named.push_str(word)
            }
            named.push_str(end);
        }
        named
    }

    fn name(&mut self, process: usize, id: &str) -> &str {
        let made = &mut self.made[process];
        self.names.entry(id.to_owned()).or_insert_with(|| {
            *made += 1;
            format!("{}{made}", NAMES[process].to_lowercase())
        })
    }
}

impl Trace {
    pub fn new(raw: Vec<Raw>, known: &[QueueId], sees: [Sees; 2]) -> Trace {
        let name = |(n, id): (usize, &QueueId)| (id.to_string(), format!("m{}", n + 1));
        let mut ids = Ids {
            names: known.iter().enumerate().map(name).collect(),
            made: [0, 0],
        };
        let (mut at, mut moved) = ([None, None], None);
        let step = |raw: Raw| {
            let mut show = |process: usize| {
                let op = raw.at[process].as_ref()?;
                let path = ids.named(process, &op.path);
                let to = op.to.as_ref().map(|to| ids.named(process, to));
                let touched = Touched::by(op, &path, to.as_deref(), sees[process]);
                // The path of the spool differs in each schedule.
                let path = match op.path.is_absolute() {
                    true => "the spool",
                    false if path.is_empty() => ".",
                    false => &path,
                };
                let to = to.map_or_else(String::new, |to| format!(" -> {to}"));
                Some(Arc::new(Shown {
                    text: format!("{} {path}{to}", op.name),
                    name: op.name,
                    touched,
                }))
            };
            // Only the process that made a call has moved to another one.
            for process in [0, 1] {
                if moved.is_none_or(|moved| moved == process) {
                    at[process] = show(process);
                }
            }
            let (Choice::Go(process) | Choice::Kill(process)) = raw.choice;
            moved = Some(process);
            Step {
                at: at.clone(),
                choice: raw.choice,
            }
        };
        Trace {
            steps: raw.into_iter().map(step).collect(),
        }
    }

    /// Whether the first `count` decisions are the same as those of another trace.
    pub fn begins_as(&self, other: &Trace, count: usize) -> bool {
        let same = |a: &Step, b: &Step| a.choice == b.choice && a.call() == b.call();
        self.steps.len() >= count
            && self.steps[..count]
                .iter()
                .zip(&other.steps[..count])
                .all(|(a, b)| same(a, b))
    }
}

impl Step {
    pub fn process(&self) -> usize {
        let (Choice::Go(process) | Choice::Kill(process)) = self.choice;
        process
    }

    /// The call that was made.
    pub fn call(&self) -> &str {
        let call = self.at[self.process()].as_ref();
        call.map_or("", |shown| &shown.text)
    }
}

impl fmt::Display for Trace {
    /// Two columns, one for each process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            let kill = match step.choice {
                Choice::Kill(_) => "KILLED at ",
                Choice::Go(_) => "",
            };
            let line = format!("{kill}{}", step.call());
            match step.process() {
                0 => writeln!(text, "{number:>4}  A  {line}")?,
                _ => writeln!(text, "{number:>4}  {:50}B  {line}", "")?,
            }
        }
        f.write_str(&text)
    }
}
