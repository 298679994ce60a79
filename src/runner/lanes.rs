//! Fairness: one lane for each destination, served in turn.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::message::QueueId;
use crate::spool::Place;

/// A message that may be due, and where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub id: QueueId,
    pub place: Place,
}

/// What is waiting, by destination. A thousand messages for one destination do not hold up the
/// one for another: lanes take turns, and none may have all the jobs.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    waiting: HashMap<String, VecDeque<Candidate>>,
    turns: VecDeque<String>,
    in_hand: HashMap<String, usize>,
    waiting_count: usize,
    /// Who waits or is in hand.
    known: HashSet<QueueId>,
}

impl Lanes {
    /// Adds a candidate to its destination's lane, unless it waits or is in hand already.
    pub fn push(&mut self, lane: String, candidate: Candidate) -> bool {
        if !self.known.insert(candidate.id) {
            return false;
        }
        self.waiting_count += 1;
        let waiting = self.waiting.entry(lane.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(lane);
        }
        waiting.push_back(candidate);
        true
    }

    /// The next candidate of the next lane that has fewer than `cap` in hand.
    pub fn take(&mut self, cap: usize) -> Option<(String, Candidate)> {
        for _ in 0..self.turns.len() {
            let lane = self.turns.pop_front()?;
            if self.in_hand.get(&lane).is_some_and(|count| *count >= cap) {
                self.turns.push_back(lane);
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(&lane) else {
                continue;
            };
            let Some(candidate) = waiting.pop_front() else {
                continue;
            };
            match waiting.is_empty() {
                true => drop(self.waiting.remove(&lane)),
                false => self.turns.push_back(lane.clone()),
            }
            self.waiting_count -= 1;
            *self.in_hand.entry(lane.clone()).or_default() += 1;
            return Some((lane, candidate));
        }
        None
    }

    /// A candidate that was taken is no longer in hand.
    pub fn put_down(&mut self, lane: &str, id: QueueId) {
        self.known.remove(&id);
        if let Some(count) = self.in_hand.get_mut(lane) {
            *count -= 1;
            if *count == 0 {
                self.in_hand.remove(lane);
            }
        }
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting_count == 0
    }

    /// Who waits or is in hand.
    pub fn known(&self) -> &HashSet<QueueId> {
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(n: u8) -> Candidate {
        Candidate {
            id: QueueId::new(jiff::Timestamp::UNIX_EPOCH, [n; 10]),
            place: Place::Active,
        }
    }

    #[test]
    fn a_hundred_for_one_do_not_hold_up_the_one_for_another() {
        let mut lanes = Lanes::default();
        for n in 0..100 {
            lanes.push("busy".into(), candidate(n));
        }
        lanes.push("quiet".into(), candidate(100));
        let order: Vec<String> = (0..3)
            .filter_map(|_| lanes.take(10))
            .map(|(lane, _)| lane)
            .collect();
        assert_eq!(order, ["busy", "quiet", "busy"]);
    }

    #[test]
    fn no_lane_has_all_the_jobs() {
        let mut lanes = Lanes::default();
        for n in 0..5 {
            lanes.push("a".into(), candidate(n));
        }
        assert!(lanes.take(2).is_some() && lanes.take(2).is_some());
        assert_eq!(lanes.take(2), None);
        lanes.push("b".into(), candidate(9));
        assert_eq!(lanes.take(2).map(|(lane, _)| lane), Some("b".into()));
        lanes.put_down("a", candidate(0).id);
        assert_eq!(lanes.take(2).map(|(lane, _)| lane), Some("a".into()));
    }

    #[test]
    fn what_waits_is_not_queued_twice_and_all_come_out() {
        let mut lanes = Lanes::default();
        assert!(lanes.push("a".into(), candidate(1)));
        assert!(!lanes.push("b".into(), candidate(1)));
        assert!(lanes.take(1).is_some());
        assert!(lanes.is_empty() && lanes.take(9).is_none());
        assert!(!lanes.push("a".into(), candidate(1)));
        lanes.put_down("a", candidate(1).id);
        assert!(lanes.push("a".into(), candidate(1)));
    }
}
