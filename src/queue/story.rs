//! What happens to one message, for the tests of the queue's decisions.

use jiff::{SignedDuration, Timestamp};

use super::{
    Action, DelayAges, Event, Occasion, Outcome, RetryPolicy, Schedule, State, Step, What,
    next_step, recipient_result,
};
use crate::message::{
    Address, EnhancedCode, Entrance, Envelope, NoticeKind, QueueId, ReversePath, Submission,
};

/// A message with two recipients, the clock, and the configuration that applies to it.
pub(super) struct Story {
    pub(super) state: State,
    pub(super) now: Timestamp,
    pub(super) began: Timestamp,
    pub(super) schedule: Schedule,
    pub(super) delays: DelayAges,
}

impl Story {
    pub(super) fn new(sender: &str) -> Story {
        Story::released(sender, None)
    }

    /// A message accepted at the start, with its release `ahead` of that.
    pub(super) fn released(sender: &str, ahead: Option<SignedDuration>) -> Story {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let envelope = Envelope {
            sender: ReversePath::parse(sender.as_bytes()).unwrap(),
            recipients: ["a@x", "b@y"]
                .map(|text| Address::parse(text).unwrap())
                .to_vec(),
            submission: Submission {
                release: ahead.map(|ahead| now + ahead),
                ..Submission::by(Entrance::Active)
            },
        };
        Story {
            state: State::new(QueueId::new(now, [1; 10]), &envelope),
            now,
            began: now,
            schedule: Schedule::default(),
            delays: DelayAges::never(),
        }
    }

    /// Sets NOTIFY for the first and the second recipient.
    pub(super) fn wishing(mut self, first: &str, second: &str) -> Story {
        for (recipient, text) in self.state.recipients.iter_mut().zip([first, second]) {
            recipient.dsn.notify = (!text.is_empty()).then(|| text.parse().unwrap());
        }
        self
    }

    /// The step that sends a notice about these recipients. Their attempt began now.
    pub(super) fn told(&self, kind: NoticeKind, about: &[usize]) -> Step {
        Step::Notify(Occasion {
            kind,
            cause: self.now,
            recipients: about.to_vec(),
        })
    }

    pub(super) fn bounce(&self, about: &[usize]) -> Step {
        self.told(NoticeKind::Bounce, about)
    }

    pub(super) fn is_told(&mut self, kind: NoticeKind, about: &[usize]) -> Step {
        let recipients = about
            .iter()
            .map(|n| self.state.recipients[*n].address.clone());
        self.happens(What::Notice {
            kind,
            id: None,
            recipients: recipients.collect(),
            warn: self.delays.next(self.state.begin, Some(self.now), self.now),
        })
    }

    pub(super) fn step(&self) -> Step {
        next_step(&self.state, self.now, self.schedule.longest_delay())
    }

    pub(super) fn happens(&mut self, what: What) -> Step {
        self.state.apply(&Event { at: self.now, what });
        self.step()
    }

    pub(super) fn starts(&mut self) -> Step {
        self.state.in_use = true;
        self.began = self.now;
        self.step()
    }

    pub(super) fn ends(&mut self, outcomes: &[(usize, Outcome)]) -> Step {
        self.ends_by(Some("t"), outcomes)
    }

    /// Without a transport, the attempt is interrupted, and the next holder of the lock records its
    /// outcome.
    pub(super) fn ends_by(
        &mut self,
        transport: Option<&str>,
        outcomes: &[(usize, Outcome)],
    ) -> Step {
        let results = outcomes.iter().map(|(n, outcome)| {
            let address = self.state.recipients[*n].address.clone();
            recipient_result(
                &self.state,
                &address,
                transport,
                outcome.clone(),
                &self.schedule,
                &self.delays,
                self.now,
            )
        });
        let results = results.collect();
        // The next holder of the lock counts the interruption, because it finds the mark of the
        // attempt.
        self.state.interrupted += u32::from(transport.is_none());
        self.state.in_use = false;
        self.happens(What::Outcome {
            began: self.began,
            transport: transport.map(str::to_owned),
            results,
        })
    }

    pub(super) fn acts(&mut self, action: Action) -> Step {
        self.happens(What::Action(action))
    }
}

/// An outcome of final delivery.
pub(super) fn ok() -> Outcome {
    Outcome::delivered("ok")
}

/// A temporary failure.
pub(super) fn later() -> Outcome {
    Outcome::deferred(EnhancedCode::new(4, 0, 0), "later")
}

/// A permanent failure.
pub(super) fn never() -> Outcome {
    Outcome::failed(EnhancedCode::new(5, 0, 0), "never")
}
