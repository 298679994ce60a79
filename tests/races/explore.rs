//! The enumeration of schedules.
//!
//! A schedule says which process begins, and at which decisions the other process goes on or a process is killed.
//! When a process ends, the other one goes on. The run of a schedule shows where further changes can be made: these
//! are its children. So every schedule up to a number of changes is run once, those with fewer changes first.
//!
//! A change is not tried if a schedule that is tried has the same effect:
//!
//! - **A change at a call that touches nothing that the other process touches**, in any schedule so far
//!   ([`Touched`]). The change may as well come after that call, because the call commutes with everything that the
//!   other process does. The number of changes stays the same. When a schedule shows the other process touching
//!   something new, the exploration starts again with that known, so in the end no change was skipped for lack of
//!   knowledge.
//! - **A change back to an interrupted process if its pending call does not conflict with anything done since the
//!   interruption.** That call may as well come before the interruption, and so may the next ones, until one
//!   conflicts or the process ends. This needs no more changes.
//! - **A kill at a call that changes nothing permanently.** A kill at the next call that does has the same effect.
//! - **A kill of the process that does not have the turn**, except when the other is about to try a lock. A kill
//!   releases only the process's locks.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::proof;
use super::schedule::{Change, Schedule};
use super::touch::Touched;
use super::trace::Trace;
use super::turns::Choice;

/// How far schedules are explored.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The most voluntary changes of the turn.
    pub changes: usize,
    /// The most changes in schedules with a kill; none if there are no kills.
    pub with_kill: Option<usize>,
    /// The most schedules with the same number of changes. If there are more, only every n-th is run.
    pub most: usize,
}

impl Bound {
    /// Returns the bound of up to `changes` changes; one more with `MAILSPOOL_LONG`.
    pub fn of(changes: usize) -> Bound {
        let (more, most) = if proof::long() { (1, 2_000) } else { (0, 180) };
        let asked = std::env::var("MAILSPOOL_RACE_SAMPLES").ok();
        let most = asked.map_or(most, |most| most.parse().unwrap());
        Bound {
            changes: changes + more,
            with_kill: None,
            most,
        }
    }

    /// Returns the bound with a quarter of the schedules, and without the extra change of `MAILSPOOL_LONG`. It is
    /// for programs of a thousand calls, which have more schedules with three changes than fit into memory.
    pub fn costly(self) -> Bound {
        Bound {
            changes: self.changes - usize::from(proof::long()),
            most: self.most / 4,
            ..self
        }
    }

    /// Adds schedules with a kill and up to `changes` changes; one more with `MAILSPOOL_LONG`.
    pub fn kills(self, changes: usize) -> Bound {
        Bound {
            with_kill: Some(changes + usize::from(proof::long())),
            ..self
        }
    }
}

/// The most traces that are kept for the next round; the others are run again.
const MAX_KNOWN: usize = 3000;

/// The result of an exploration.
pub struct Explored {
    pub schedules: usize,
    pub complete: bool,
    /// The error of the first schedule that failed.
    pub failure: Option<String>,
}

/// A schedule to run, and the trace of the schedule that it extends.
struct Child {
    schedule: Schedule,
    parent: Option<Arc<Trace>>,
}

/// Explores the schedules of two processes. `run` runs one and judges it.
pub fn explore(
    name: &str,
    bound: Bound,
    mut run: impl FnMut(&Schedule) -> (Arc<Trace>, Result<(), String>),
) -> Explored {
    if let Some(only) = replayed() {
        return match only.strip_prefix(&format!("{name}: ")) {
            Some(schedule) => replay(name, &Schedule::parse(schedule), run),
            None => {
                println!("{name}: not run, because MAILSPOOL_RACE is set: {only}");
                Explored::whole(0)
            }
        };
    }
    let mut all = [Touched::default(), Touched::default()];
    let mut known = HashMap::new();
    loop {
        let mut round = Round {
            name,
            bound,
            all: all.clone(),
            known: std::mem::take(&mut known),
            learned: false,
            explored: Explored::whole(0),
            longest: [0, 0],
        };
        round.go(&mut run);
        if round.explored.failure.is_some() || !round.learned {
            round.print();
            return round.explored;
        }
        (all, known) = (round.all, round.known);
    }
}

struct Round<'a> {
    name: &'a str,
    bound: Bound,
    /// What each process touched, in all schedules so far.
    all: [Touched; 2],
    /// Traces of schedules, reused when the exploration starts again.
    known: HashMap<Schedule, Arc<Trace>>,
    learned: bool,
    explored: Explored,
    /// The most calls of each process.
    longest: [usize; 2],
}

impl Round<'_> {
    fn go(&mut self, run: &mut impl FnMut(&Schedule) -> (Arc<Trace>, Result<(), String>)) {
        let first = |first| Child {
            schedule: Schedule {
                first,
                changes: Vec::new(),
            },
            parent: None,
        };
        let mut level = vec![first(0), first(1)];
        while !level.is_empty() {
            let step = level.len().div_ceil(self.bound.most);
            self.explored.complete &= step == 1;
            let mut next = Vec::new();
            for child in level.iter().step_by(step) {
                self.explored.schedules += 1;
                let (trace, judged) = match self.known.get(&child.schedule) {
                    Some(trace) => (Arc::clone(trace), Ok(())),
                    None => self.run_as_planned(child, run),
                };
                if let Err(why) = judged {
                    self.explored.failure = Some(self.describe(&child.schedule, &trace, &why));
                    return;
                }
                if self.known.len() < MAX_KNOWN {
                    let trace = Arc::clone(&trace);
                    self.known.insert(child.schedule.clone(), trace);
                }
                self.learn(&trace);
                self.children(&child.schedule, &trace, &mut next);
            }
            // What was learned changes which schedules are skipped.
            if self.learned {
                return;
            }
            level = next;
        }
    }

    /// Runs a schedule. Its beginning must be the same as its parent's. If it is not, because the machine was slow
    /// and a pause in a process ended early, it runs again. Panics after too many tries.
    fn run_as_planned(
        &self,
        child: &Child,
        run: &mut impl FnMut(&Schedule) -> (Arc<Trace>, Result<(), String>),
    ) -> (Arc<Trace>, Result<(), String>) {
        const MAX_TRIES: usize = 20;
        let mut others = 0;
        loop {
            let (trace, judged) = run(&child.schedule);
            let count = child.schedule.changes.last().map_or(0, |(at, _)| *at);
            let as_planned = child
                .parent
                .as_ref()
                .is_none_or(|parent| trace.begins_as(parent, count));
            if as_planned || judged.is_err() {
                return (trace, judged);
            }
            others += 1;
            if others == MAX_TRIES {
                let parent = child.parent.as_ref().map(ToString::to_string);
                panic!(
                    "{}: {} does not begin again as it did:\n{}\nbut:\n{trace}",
                    self.name,
                    child.schedule,
                    parent.unwrap_or_default()
                );
            }
        }
    }

    fn learn(&mut self, trace: &Trace) {
        let mut calls = [0, 0];
        for step in &trace.steps {
            let process = step.process();
            if let (Choice::Go(_), Some(op)) = (step.choice, &step.at[process]) {
                calls[process] += 1;
                self.learned |= self.all[process].join(&op.touched);
            }
        }
        for (longest, calls) in self.longest.iter_mut().zip(calls) {
            *longest = calls.max(*longest);
        }
    }

    fn children(&self, schedule: &Schedule, trace: &Arc<Trace>, next: &mut Vec<Child>) {
        if let Some((_, Change::Kill(_))) = schedule.changes.last() {
            return;
        }
        let (since, interrupted) = match schedule.changes.last() {
            Some((at, _)) => (*at, true),
            None => (0, false),
        };
        let changes = schedule.changes.len();
        let may_kill = self.bound.with_kill.is_some_and(|most| changes <= most);
        let mut push = |at: usize, change: Change| {
            let mut schedule = schedule.clone();
            schedule.changes.push((at, change));
            let parent = Some(Arc::clone(trace));
            next.push(Child { schedule, parent });
        };
        // Whether the interrupted process could notice what happened since.
        let mut felt = !interrupted;
        for at in since..trace.steps.len() {
            let step = &trace.steps[at];
            let (process, other) = (step.process(), 1 - step.process());
            let Some(op) = &step.at[process] else { break };
            // After the other process has ended, this one can only be killed.
            let alone = step.at[other].is_none();
            let fresh = at == since;
            // The turn changed because a process ended, so the pending call is not the interrupted one.
            felt |= at > since && trace.steps[at - 1].process() != process;
            if may_kill && !(fresh && interrupted) {
                if op.touched.leaves_something() {
                    push(at, Change::Kill(process));
                }
                if !alone && !fresh && op.name == "lock" {
                    push(at, Change::Kill(other));
                }
            }
            let seen = op.touched.conflicts(&self.all[other]);
            if !alone && !fresh && felt && seen && changes < self.bound.changes {
                push(at, Change::Switch);
            }
            if let (false, Some(pending)) = (felt, &step.at[other]) {
                felt = op.touched.conflicts(&pending.touched);
            }
        }
    }

    fn describe(&self, schedule: &Schedule, trace: &Trace, why: &str) -> String {
        format!(
            "{}: {why}\n\nin the schedule\n\n{trace}\n\
             MAILSPOOL_RACE='{}: {schedule}' runs this one alone (number {} here)",
            self.name, self.name, self.explored.schedules
        )
    }

    fn print(&self) {
        let Explored {
            schedules,
            complete,
            ..
        } = self.explored;
        let whole = if complete { "complete" } else { "a sample" };
        let Bound {
            changes, with_kill, ..
        } = self.bound;
        let kills = with_kill.map_or_else(String::new, |most| format!(", kills with up to {most}"));
        let [a, b] = self.longest;
        println!(
            "{}: {schedules} schedules, {whole}: up to {changes} changes{kills}; up to {a} and {b} calls",
            self.name
        );
    }
}

impl Explored {
    fn whole(schedules: usize) -> Explored {
        Explored {
            schedules,
            complete: true,
            failure: None,
        }
    }
}

fn replayed() -> Option<String> {
    std::env::var("MAILSPOOL_RACE").ok()
}

fn replay(
    name: &str,
    schedule: &Schedule,
    mut run: impl FnMut(&Schedule) -> (Arc<Trace>, Result<(), String>),
) -> Explored {
    let (trace, judged) = run(schedule);
    println!("{name}: {schedule}\n{trace}");
    Explored {
        failure: judged.err(),
        ..Explored::whole(1)
    }
}

/// Runs `work` and returns the message of its panic as an error.
pub fn caught(work: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("?").to_owned()
    })
}
