//! The retry policy, and the program's implementation: a default schedule, and separate schedules for
//! domains, transports and the null sender.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{ReplyRule, Schedule, Status};
use crate::message::domain::key;
use crate::message::{Address, QueueId, Reply, ReversePath};

/// An attempt with a temporary failure or an unknown outcome for one recipient.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    /// The message. It was accepted at [`QueueId::accepted`].
    pub id: QueueId,
    /// When the age of the message starts: at its acceptance, or at its release if it has one.
    #[doc(hidden)]
    pub begin: Timestamp,
    /// Its sender. A message from the null sender cannot be returned.
    pub sender: &'a ReversePath,
    /// The recipient.
    pub recipient: &'a Address,
    /// The transport, if known.
    #[doc(hidden)]
    pub transport: Option<&'a str>,
    /// The attempts that have ended for this recipient, including this one.
    pub attempts: u32,
    /// [`Status::Deferred`] or [`Status::Unknown`].
    pub status: Status,
    /// The reply of the destination, or a text of this program.
    pub reply: &'a Reply,
    /// When it failed.
    pub now: Timestamp,
}

impl FailedAttempt<'_> {
    /// The age of the message. If a clock went back, the age is zero instead of negative.
    pub fn age(&self) -> SignedDuration {
        let age = self.now.duration_since(self.begin);
        age.max(SignedDuration::ZERO)
    }
}

/// Decides when the next attempt for a recipient is made. The program uses `Schedules`; an embedding
/// program may supply another policy.
///
/// ```
/// use jiff::{SignedDuration, Timestamp};
/// use mailspool::testing::queue::{FailedAttempt, RetryPolicy};
///
/// /// After 1, 2, 4, ... minutes, up to an hour; ten attempts, and one if the mailbox is full.
/// struct Doubling;
///
/// impl RetryPolicy for Doubling {
///     fn next_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp> {
///         let is_full = failed.reply.enhanced.is_some_and(|code| (code.subject, code.detail) == (2, 2));
///         if is_full || failed.attempts >= 10 {
///             return None;
///         }
///         let minutes = (1 << (failed.attempts - 1)).min(60);
///         Some(failed.now + SignedDuration::from_mins(minutes))
///     }
///
///     fn longest_delay(&self) -> SignedDuration {
///         SignedDuration::from_mins(60)
///     }
/// }
/// ```
pub trait RetryPolicy: Send + Sync {
    /// Returns the time of the next attempt, or `None` to give up. Then the sender is notified; a message
    /// from the null sender is frozen instead.
    fn next_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp>;

    /// Returns an upper limit for the delays of this policy. A message with a later time is due at once,
    /// because only a wrong clock can have set it.
    fn longest_delay(&self) -> SignedDuration;

    /// Returns when the last attempt for this recipient is made, if the policy sets such a time. Attempts
    /// are not postponed beyond it while the destination is down.
    fn last_attempt(&self, _failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        None
    }
}

/// A default schedule, separate schedules for domains and transports, a lifetime for mail from the null
/// sender, and rules for certain replies.
///
/// The schedule of the recipient's domain takes precedence over that of the transport. Each recipient has a
/// separate time for its next attempt; the message waits for the earliest.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedules {
    default: Pair,
    transports: BTreeMap<String, Pair>,
    /// Indexed by [`key`] of the domain.
    domains: BTreeMap<String, Pair>,
    null_lifetime: SignedDuration,
    rules: Vec<ReplyRule>,
}

/// A schedule, and the part of it within the null sender's lifetime.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    usual: Schedule,
    null: Schedule,
}

/// Which setting a schedule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryScope {
    /// The recipient's domain.
    Domain,
    /// The transport.
    Transport,
    /// The default, for mail without another schedule.
    Default,
}

impl Default for Schedules {
    /// [`Schedule::default`] for all mail, a day for the null sender, no rules.
    fn default() -> Schedules {
        Schedules::new(Schedule::default())
    }
}

impl Schedules {
    /// The default lifetime of mail from the null sender: a day. After it, the message fails.
    pub const NULL_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

    /// Uses this schedule for all mail, and [`Schedules::NULL_LIFETIME`] for the null sender.
    pub fn new(default: Schedule) -> Schedules {
        let null_lifetime = Schedules::NULL_LIFETIME;
        Schedules {
            default: Pair::new(default, null_lifetime),
            transports: BTreeMap::new(),
            domains: BTreeMap::new(),
            null_lifetime,
            rules: Vec::new(),
        }
    }

    /// Sets the lifetime of mail from the null sender. A schedule that ends earlier stays in effect. If the
    /// lifetime is zero, the first failure is permanent.
    pub fn with_null_lifetime(mut self, lifetime: SignedDuration) -> Schedules {
        self.null_lifetime = lifetime;
        let others = self
            .transports
            .values_mut()
            .chain(self.domains.values_mut());
        for pair in others.chain([&mut self.default]) {
            pair.null = pair.usual.ended_at(lifetime);
        }
        self
    }

    /// Sets the schedule of a transport.
    pub fn with_transport(mut self, name: impl Into<String>, schedule: Schedule) -> Schedules {
        let pair = Pair::new(schedule, self.null_lifetime);
        self.transports.insert(name.into(), pair);
        self
    }

    /// Sets the schedule of a domain, not including its subdomains.
    pub fn with_domain(mut self, domain: &str, schedule: Schedule) -> Schedules {
        let pair = Pair::new(schedule, self.null_lifetime);
        self.domains.insert(key(domain).into_owned(), pair);
        self
    }

    /// Appends a rule. The first rule that matches decides.
    pub fn with_rule(mut self, rule: ReplyRule) -> Schedules {
        self.rules.push(rule);
        self
    }

    /// Returns the schedule for a domain and a transport, and the setting that it comes from.
    pub fn choose(
        &self,
        is_null_sender: bool,
        domain: Option<&str>,
        transport: Option<&str>,
    ) -> (&Schedule, RetryScope) {
        let domain = domain.filter(|_| !self.domains.is_empty());
        let of_domain = domain.and_then(|name| self.domains.get(&*key(name)));
        let of_transport = transport.and_then(|name| self.transports.get(name));
        let (pair, source) = match (of_domain, of_transport) {
            (Some(pair), _) => (pair, RetryScope::Domain),
            (None, Some(pair)) => (pair, RetryScope::Transport),
            (None, None) => (&self.default, RetryScope::Default),
        };
        if is_null_sender {
            (&pair.null, source)
        } else {
            (&pair.usual, source)
        }
    }

    /// The default schedule.
    pub fn default_schedule(&self) -> &Schedule {
        &self.default.usual
    }

    /// The lifetime of mail from the null sender.
    #[cfg(feature = "testing")]
    pub fn null_lifetime(&self) -> SignedDuration {
        self.null_lifetime
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[ReplyRule] {
        &self.rules
    }

    fn chosen(&self, failed: &FailedAttempt<'_>) -> &Schedule {
        let is_null = *failed.sender == ReversePath::Null;
        self.choose(is_null, failed.recipient.domain(), failed.transport)
            .0
    }
}

impl Pair {
    fn new(usual: Schedule, null_lifetime: SignedDuration) -> Pair {
        Pair {
            null: usual.ended_at(null_lifetime),
            usual,
        }
    }
}

impl RetryPolicy for Schedules {
    fn next_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        let mut rules = self.rules.iter();
        let rule = rules.find(|rule| rule.matches(failed.reply, failed.age()));
        self.chosen(failed)
            .next(failed, rule.map(|rule| rule.after))
    }

    fn longest_delay(&self) -> SignedDuration {
        let rule = self.rules.iter().map(|rule| rule.after).max();
        let all = self.transports.values().chain(self.domains.values());
        let all = all.chain([&self.default]);
        let furthest = all.map(|pair| pair.usual.furthest(rule));
        furthest.max().unwrap_or_default()
    }

    fn last_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        self.chosen(failed).last_attempt(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::EnhancedCode;
    use crate::queue::{Glob, Outcome, StatusPattern};

    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn every(minutes: i32, lifetime: i32) -> Schedule {
        let schedule = Schedule::of_delays(vec![MINUTE * minutes], MINUTE * lifetime);
        schedule.unwrap().with_jitter(0.0).unwrap()
    }

    fn rule(status: &str, reply: Option<&str>, after: i32, until: Option<i32>) -> ReplyRule {
        ReplyRule {
            status: (!status.is_empty()).then(|| status.parse::<StatusPattern>().unwrap()),
            reply: reply.map(Glob::new),
            after: MINUTE * after,
            until: until.map(|until| MINUTE * until),
        }
    }

    /// Returns the delay in minutes after an attempt that fails at this age.
    fn ahead(
        policy: &impl RetryPolicy,
        (sender, to, transport): (&str, &str, Option<&str>),
        (attempts, age): (u32, i32),
        reply: &str,
    ) -> Option<f64> {
        let id = QueueId::new("2026-11-22T00:00:00Z".parse().unwrap(), [9; 10]);
        let (code, words) = EnhancedCode::at_start_of(reply).unwrap();
        let outcome = Outcome::deferred(code, words);
        let now = id.accepted() + MINUTE * age;
        let failed = FailedAttempt {
            id,
            begin: id.accepted(),
            sender: &ReversePath::parse(sender.as_bytes()).unwrap(),
            recipient: &Address::parse(to).unwrap(),
            transport,
            attempts,
            status: outcome.status,
            reply: &outcome.reply,
            now,
        };
        let next = policy.next_attempt(&failed)?;
        assert!(next.duration_since(now) <= policy.longest_delay());
        assert!(attempts < 3 || next <= policy.last_attempt(&failed).unwrap());
        Some(next.duration_since(now).as_secs_f64() / 60.0)
    }

    #[test]
    fn domains_precede_transports_and_both_precede_the_default() {
        let schedules = Schedules::new(every(30, 600))
            .with_transport("relay", every(20, 60))
            .with_domain("Example.ORG", every(10, 40))
            .with_domain("bücher.test", every(15, 60))
            .with_null_lifetime(MINUTE * 45);
        for (mail, expected, last) in [
            (("s@z", "a@x", None), 30.0, 600),
            (("s@z", "a@x", Some("other")), 30.0, 600),
            (("s@z", "a@x", Some("relay")), 20.0, 60),
            (("s@z", "a@example.org", Some("relay")), 10.0, 40),
            (("s@z", "a@EXAMPLE.org", None), 10.0, 40),
            (("s@z", "a@sub.example.org", None), 30.0, 600),
            (("s@z", "root", None), 30.0, 600),
            (("s@z", "a@xn--bcher-kva.test", None), 15.0, 60),
            (("", "a@x", None), 30.0, 45),
            (("", "a@x", Some("relay")), 20.0, 45),
            (("", "a@example.org", Some("relay")), 10.0, 40),
        ] {
            assert_eq!(
                ahead(&schedules, mail, (1, 0), "4.0.0 x"),
                Some(expected),
                "{mail:?}"
            );
            let before = ahead(&schedules, mail, (9, last - 1), "4.0.0 x");
            assert_eq!(before, Some(1.0), "{mail:?}");
            assert_eq!(
                ahead(&schedules, mail, (3, last), "4.0.0 x"),
                None,
                "{mail:?}"
            );
            let hardly = ahead(&schedules, mail, (2, last), "4.0.0 x");
            assert_eq!(hardly, Some(expected), "{mail:?}");
        }
        assert!(schedules.longest_delay() >= MINUTE * 30);
    }

    #[test]
    fn a_null_sender_may_have_no_second_attempt() {
        let at_once = Schedules::default().with_null_lifetime(SignedDuration::ZERO);
        assert_eq!(ahead(&at_once, ("", "a@x", None), (1, 0), "4.0.0 x"), None);
        assert!(ahead(&at_once, ("s@z", "a@x", None), (1, 0), "4.0.0 x").is_some());
        let schedules = Schedules::default();
        let (null, _) = schedules.choose(true, None, None);
        assert_eq!(null.lifetime(), SignedDuration::from_hours(24));
    }

    #[test]
    fn the_first_rule_that_matches_decides_within_the_lifetime() {
        let schedules = Schedules::new(every(30, 600))
            .with_rule(rule("", Some("*greylist*"), 5, Some(60)))
            .with_rule(rule("4.2.2", None, 240, None))
            .with_rule(rule("4.7", Some("*try ? later"), 7, None))
            .with_rule(rule("4.2", None, 9, None));
        let to = ("s@z", "a@x", None);
        for (attempts, age, reply, expected) in [
            (1, 0, "4.7.1 You are Greylisted, come back", 5.0),
            (2, 59, "4.2.2 GREYLISTED", 5.0),
            (2, 60, "4.7.1 greylisted", 30.0),
            (1, 0, "4.2.2 full", 240.0),
            (4, 500, "4.2.2 full", 100.0),
            (1, 0, "4.2.1 off", 9.0),
            (1, 0, "4.20.2 off", 30.0),
            (1, 0, "4.7.0 Try 5 Later", 7.0),
            (1, 0, "4.7.0 try 55 later", 30.0),
            // Past the lifetime with few attempts: no rule lengthens the delay.
            (1, 600, "4.2.2 full", 30.0),
        ] {
            let got = ahead(&schedules, to, (attempts, age), reply);
            assert_eq!(got, Some(expected), "{age} {reply}");
        }
        assert_eq!(ahead(&schedules, to, (3, 600), "4.2.2 full"), None);
        assert!(schedules.longest_delay() >= MINUTE * 240);
        let null = schedules.with_null_lifetime(MINUTE * 100);
        assert_eq!(
            ahead(&null, ("", "a@x", None), (1, 0), "4.2.2 full"),
            Some(100.0)
        );
    }

    #[test]
    fn jitter_and_cap_apply_to_rules() {
        let schedule = every(30, 600).with_jitter(0.5).unwrap();
        let full = rule("4.2.2", None, 240, None);
        let jittery = Schedules::new(schedule.clone()).with_rule(full.clone());
        let got = ahead(&jittery, ("s@z", "a@x", None), (1, 0), "4.2.2 x").unwrap();
        assert!((240.0..=360.1).contains(&got) && got != 240.0, "{got}");
        let capped = Schedules::new(schedule.with_cap(MINUTE * 60).unwrap()).with_rule(full);
        let got = ahead(&capped, ("s@z", "a@x", None), (1, 0), "4.2.2 x");
        assert_eq!(got, Some(60.0));
    }
}
