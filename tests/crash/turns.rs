//! Turns: two processes at once, call by call, in an order that a seed decides.
//!
//! Each call waits until it is its process's turn. Whose turn it is, is drawn when both processes
//! wait, or one has ended; a process that lets its turn pass (its threads wait for a timer, or for
//! each other) loses it, so nobody is held up for ever.

use std::time::Duration;

use super::states::Random;

/// So long a process that makes no call is waited for.
pub const PATIENCE: Duration = Duration::from_millis(10);

pub struct Turns {
    random: Random,
    /// In so many of eight draws the same process goes on.
    stay: usize,
    last: usize,
    turn: Option<usize>,
    waiting: [usize; 2],
    left: [bool; 2],
    impatient: bool,
}

impl Turns {
    pub fn new(seed: u64) -> Turns {
        let mut random = Random(seed);
        Turns {
            stay: random.below(8),
            last: random.below(2),
            random,
            turn: None,
            waiting: [0; 2],
            left: [false; 2],
            impatient: false,
        }
    }

    /// A call of this process waits.
    pub fn wait(&mut self, who: usize) {
        self.waiting[who] += 1;
    }

    /// Whether this process makes its call now; then it waits no longer.
    pub fn is_mine(&mut self, who: usize, free: bool) -> bool {
        let ready = |one: usize| self.waiting[one] > 0 || self.left[one];
        if self.turn.is_none() && free && (self.impatient || ready(0) && ready(1)) {
            let same = self.random.below(8) < self.stay;
            let wanted = if same { self.last } else { 1 - self.last };
            let chosen = if self.waiting[wanted] > 0 {
                wanted
            } else {
                1 - wanted
            };
            self.turn = Some(chosen);
            self.last = chosen;
        }
        if !free || self.turn != Some(who) {
            return false;
        }
        self.waiting[who] -= 1;
        self.impatient = false;
        true
    }

    /// The call is over.
    pub fn over(&mut self) {
        self.turn = None;
    }

    /// Nothing happened for a while.
    pub fn lose_patience(&mut self) {
        self.impatient = true;
    }

    /// A process has ended.
    pub fn leave(&mut self, who: usize) {
        self.left[who] = true;
    }
}
