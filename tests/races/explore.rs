//! Which schedules there are, one after the other.
//!
//! A schedule is who begins, and at which decisions somebody else goes on than who had the turn
//! (or somebody is killed); whoever ends leaves the turn to the other. A run of a schedule shows
//! where further changes could be made: these are its children, and so every schedule with up to
//! so many changes is run once, those with few of them first.
//!
//! A change is not tried where a schedule that is tried has the same effect:
//!
//! - **At a call that touches nothing that the other process touches**, in any schedule so far
//!   ([`Touched`]): it may as well be made behind that call, as the call and all that the other
//!   does may change places. The number of changes stays what it was. When a schedule shows the
//!   other touching something new, everything begins again with that known; so in the end nothing
//!   was left out because of something that was not known.
//! - **Back to a process whose pending call does not conflict with anything done since it was
//!   interrupted**: that call may as well be made before the interruption, and so on until one
//!   conflicts or it ends; that needs no more changes than before.
//! - **Kills at a call that leaves nothing behind**: a kill at the next one that does has the same
//!   effect. **Kills of who is not having the turn**, but where the other is about to try a lock:
//!   locks are all that goes with a process.

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
    /// Changes of the turn that nothing forced.
    pub changes: usize,
    /// Changes in schedules in which somebody is killed; none if nobody is.
    pub with_kill: Option<usize>,
    /// Of more schedules with the same number of changes only a sample is run: every n-th.
    pub most: usize,
}

impl Bound {
    /// Up to so many changes, in the ordinary run, and one more in the long one.
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

    /// A quarter as many, and no change more in the long run: for programs of a thousand calls
    /// each, of which three changes make more schedules than memory holds.
    pub fn costly(self) -> Bound {
        Bound {
            changes: self.changes - usize::from(proof::long()),
            most: self.most / 4,
            ..self
        }
    }

    /// Somebody is killed as well, in schedules with up to so many changes.
    pub fn kills(self, changes: usize) -> Bound {
        Bound {
            with_kill: Some(changes + usize::from(proof::long())),
            ..self
        }
    }
}

/// As many are remembered.
const MAX_KNOWN: usize = 3000;

/// What came of an exploration.
pub struct Explored {
    pub schedules: usize,
    pub complete: bool,
    /// What went wrong in the first schedule in which something did.
    pub failure: Option<String>,
}

/// A schedule that is to be run, and the run that showed it to be possible.
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
                println!("{name}: not run, as only this is: {only}");
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
    /// What came of schedules, for when everything begins again.
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
            // With what is new the schedules so far would be others.
            if self.learned {
                return;
            }
            level = next;
        }
    }

    /// The processes must do again what they did, or there is no way to explore anything. Who did
    /// not, as the machine was slow and a pause in a process ended early, is asked again.
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
        // Whether the one that was interrupted could tell what happened since.
        let mut felt = !interrupted;
        for at in since..trace.steps.len() {
            let step = &trace.steps[at];
            let (process, other) = (step.process(), 1 - step.process());
            let Some(op) = &step.at[process] else { break };
            // With the other one gone there is nothing to change; but this one may be killed.
            let alone = step.at[other].is_none();
            let fresh = at == since;
            // The turn went over by itself: what was interrupted then is not what is pending.
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

/// What a panic said.
pub fn caught(work: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("?").to_owned()
    })
}
