//! Fairness: one lane for each destination, served in turn.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::message::QueueId;
use crate::spool::{Destination, Queue};

/// A message that may be due, and the queue in which it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub id: QueueId,
    pub queue: Queue,
}

/// What a message waits for in its destination's lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// For another message of this process.
    Turn(Destination),
    /// For a connection of another process.
    Full(Destination),
    /// For a slot of this destination's transport; other processes have them all.
    TransportSlot(Destination),
}

/// Waiting messages by destination. Lanes take turns, so a thousand messages for one destination do not
/// delay the one message for another.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    waiting: HashMap<Destination, VecDeque<Candidate>>,
    turns: VecDeque<Destination>,
    waiting_count: usize,
    /// Messages that wait or are in progress.
    known: HashSet<QueueId>,
}

impl Lanes {
    /// Adds a candidate to its destination's lane, unless it waits or is in progress already.
    pub fn push(&mut self, lane: Destination, candidate: Candidate) -> bool {
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

    /// Puts back a candidate after `put_down`, first in its lane.
    pub fn push_back_in(&mut self, lane: Destination, candidate: Candidate) {
        if !self.known.insert(candidate.id) {
            return;
        }
        self.waiting_count += 1;
        let waiting = self.waiting.entry(lane.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(lane);
        }
        waiting.push_front(candidate);
    }

    /// Removes all candidates that wait for a destination. Returns how many there were.
    pub fn dismiss(&mut self, lane: &Destination) -> usize {
        let waiting = self.waiting.remove(lane).unwrap_or_default();
        self.turns.retain(|turn| turn != lane);
        for candidate in &waiting {
            self.known.remove(&candidate.id);
        }
        self.waiting_count -= waiting.len();
        waiting.len()
    }

    /// Removes all candidates that wait for a destination of a transport. Returns how many there were.
    pub fn dismiss_all(&mut self, transport: &str) -> usize {
        let lanes: Vec<Destination> = self.turns.iter().cloned().collect();
        let its = lanes.iter().filter(|lane| lane.transport == transport);
        its.map(|lane| self.dismiss(lane)).sum()
    }

    /// Takes the next candidate of the next lane that has room for one more.
    pub fn take(
        &mut self,
        room: impl Fn(&Destination) -> bool,
    ) -> Option<(Destination, Candidate)> {
        for _ in 0..self.turns.len() {
            let lane = self.turns.pop_front()?;
            if !room(&lane) {
                self.turns.push_back(lane);
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(&lane) else {
                continue;
            };
            let Some(candidate) = waiting.pop_front() else {
                continue;
            };
            if waiting.is_empty() {
                drop(self.waiting.remove(&lane))
            } else {
                self.turns.push_back(lane.clone())
            }
            self.waiting_count -= 1;
            return Some((lane, candidate));
        }
        None
    }

    /// Whether one of the next lanes has room. Not all lanes are checked, because there may be very many.
    pub fn next_have(&self, room: impl Fn(&Destination) -> bool) -> bool {
        const MAX_LOOKS: usize = 32;
        self.turns.iter().take(MAX_LOOKS).any(room)
    }

    /// Notes that a candidate is no longer in progress.
    pub fn put_down(&mut self, id: QueueId) {
        self.known.remove(&id);
    }

    /// Whether no candidate waits.
    pub fn is_empty(&self) -> bool {
        self.waiting_count == 0
    }

    /// Messages that wait or are in progress.
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
            queue: Queue::Active,
        }
    }

    fn destination(name: &str) -> Destination {
        Destination {
            transport: "out".into(),
            next_hop: name.into(),
        }
    }

    fn any(_: &Destination) -> bool {
        true
    }

    #[test]
    fn a_hundred_for_one_do_not_hold_up_the_one_for_another() {
        let mut lanes = Lanes::default();
        for n in 0..100 {
            lanes.push(destination("busy"), candidate(n));
        }
        lanes.push(destination("quiet"), candidate(100));
        let order: Vec<String> = (0..3)
            .filter_map(|_| lanes.take(any))
            .map(|(lane, _)| lane.next_hop)
            .collect();
        assert_eq!(order, ["busy", "quiet", "busy"]);
    }

    #[test]
    fn a_lane_without_room_is_passed_over() {
        let mut lanes = Lanes::default();
        lanes.push(destination("shut"), candidate(1));
        lanes.push(destination("open"), candidate(2));
        let open = |lane: &Destination| lane.next_hop == "open";
        assert_eq!(
            lanes.take(open).map(|(lane, _)| lane),
            Some(destination("open"))
        );
        assert_eq!(lanes.take(open), None);
        assert!(!lanes.is_empty());
    }

    #[test]
    fn a_candidate_put_back_is_the_next_one() {
        let mut lanes = Lanes::default();
        for n in 0..3 {
            lanes.push(destination("a"), candidate(n));
        }
        let (lane, first) = lanes.take(any).unwrap();
        lanes.put_down(first.id);
        lanes.push_back_in(lane, first);
        assert_eq!(lanes.take(any).map(|(_, candidate)| candidate), Some(first));
    }

    #[test]
    fn a_dismissed_candidate_may_come_again() {
        let mut lanes = Lanes::default();
        for n in 0..3 {
            lanes.push(destination("a"), candidate(n));
        }
        lanes.push(destination("b"), candidate(9));
        assert_eq!(lanes.dismiss(&destination("a")), 3);
        assert_eq!(lanes.dismiss(&destination("a")), 0);
        assert!(lanes.push(destination("a"), candidate(1)));
        let next = |lanes: &mut Lanes| lanes.take(any).map(|(lane, _)| lane);
        assert_eq!(next(&mut lanes), Some(destination("b")));
        assert_eq!(next(&mut lanes), Some(destination("a")));
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_transport_is_dismissed_with_all_its_destinations() {
        let mut lanes = Lanes::default();
        for n in 0..4 {
            lanes.push(destination(&format!("host{}", n % 2)), candidate(n));
        }
        let other = Destination {
            transport: "other".into(),
            next_hop: "host0".into(),
        };
        lanes.push(other.clone(), candidate(9));
        assert_eq!(lanes.dismiss_all("out"), 4);
        assert_eq!(lanes.take(any), Some((other, candidate(9))));
        assert!(lanes.is_empty());
    }

    #[test]
    fn what_waits_is_not_queued_twice_and_all_come_out() {
        let mut lanes = Lanes::default();
        assert!(lanes.push(destination("a"), candidate(1)));
        assert!(!lanes.push(destination("b"), candidate(1)));
        assert!(lanes.take(any).is_some());
        assert!(lanes.is_empty() && lanes.take(any).is_none());
        assert!(!lanes.push(destination("a"), candidate(1)));
        lanes.put_down(candidate(1).id);
        assert!(lanes.push(destination("a"), candidate(1)));
    }
}
