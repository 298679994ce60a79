//! Turns: two processes at once, call by call, in an order that a seed decides.
//!
//! Each call waits until it is its process's turn. The turn is drawn when both processes wait, or one has ended. A
//! process that makes no call for a while (its threads wait for a timer or for each other) loses its turn, so no
//! process waits forever.

use std::time::Duration;

use super::states::Random;

/// How long a turn waits for a process that makes no call; then the other process may go on.
pub const PATIENCE: Duration = Duration::from_millis(10);

pub struct Turns {
    random: Random,
    /// The probability, in eighths, that the same process goes on.
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

    /// Reports that a call of this process waits.
    pub fn wait(&mut self, process: usize) {
        self.waiting[process] += 1;
    }

    /// Returns whether this process makes its call now. If so, the call no longer waits.
    pub fn is_mine(&mut self, process: usize, free: bool) -> bool {
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
        if !free || self.turn != Some(process) {
            return false;
        }
        self.waiting[process] -= 1;
        self.impatient = false;
        true
    }

    /// Reports that the call has returned.
    pub fn over(&mut self) {
        self.turn = None;
    }

    /// Reports that no call was made for [`PATIENCE`].
    pub fn lose_patience(&mut self) {
        self.impatient = true;
    }

    /// Reports that a process has ended.
    pub fn leave(&mut self, process: usize) {
        self.left[process] = true;
    }
}
