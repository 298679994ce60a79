//! Who decides when a failed attempt is made again, and the schedules of the program: one for
//! all mail, and those that domains, transports and the null sender have of their own.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{ReplyRule, Schedule, Status};
use crate::message::domain::key;
use crate::message::{Address, QueueId, Reply, ReversePath};

/// An attempt that failed temporarily for one recipient, or whose end nobody knows.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    /// The message; it was accepted at [`QueueId::accepted`].
    pub id: QueueId,
    /// From when its age counts: its acceptance, or its release if it was held until then.
    pub begin: Timestamp,
    /// Its sender. To the null sender nobody can return anything.
    pub sender: &'a ReversePath,
    /// The recipient.
    pub recipient: &'a Address,
    /// By which transport, as far as that is known.
    pub transport: Option<&'a str>,
    /// How many attempts have ended for this recipient, this one included.
    pub attempts: u32,
    /// [`Status::Deferred`] or [`Status::Unknown`].
    pub status: Status,
    /// In whose words.
    pub reply: &'a Reply,
    /// When it failed.
    pub now: Timestamp,
}

impl FailedAttempt<'_> {
    /// How old the message is. A clock that ran backwards makes it younger than new: it counts
    /// as new.
    pub fn age(&self) -> SignedDuration {
        let age = self.now.duration_since(self.begin);
        age.max(SignedDuration::ZERO)
    }
}

/// Decides when a recipient is tried again. [`Schedules`] is what the program uses; an embedder
/// may give another.
///
/// ```
/// use jiff::{SignedDuration, Timestamp};
/// use mailspool::queue::{FailedAttempt, RetryPolicy};
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
    /// The time of the next attempt; none to give up: then the sender is told, or the message
    /// is frozen if its sender is null.
    fn next_attempt(&self, failed: &FailedAttempt<'_>) -> Option<Timestamp>;

    /// No delay this policy gives to anybody is longer. What is further ahead is due at once:
    /// only a clock that was wrong explains it.
    fn longest_delay(&self) -> SignedDuration;

    /// When this recipient is tried for the last time, if there is such a time: it is not put off
    /// beyond that while its destination is down.
    fn last_attempt(&self, _failed: &FailedAttempt<'_>) -> Option<Timestamp> {
        None
    }
}

/// A schedule for all mail, those that domains and transports have of their own, a lifetime for
/// mail from the null sender, and rules for certain replies.
///
/// The recipient's domain goes before the transport. Each recipient of a message has its own
/// next time; the message waits for the earliest.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedules {
    default: Pair,
    transports: BTreeMap<String, Pair>,
    /// By [`key`].
    domains: BTreeMap<String, Pair>,
    null_lifetime: SignedDuration,
    rules: Vec<ReplyRule>,
}

/// A schedule, and what is left of it for the null sender.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    usual: Schedule,
    null: Schedule,
}

/// Whose a schedule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The recipient's domain's.
    Domain,
    /// The transport's.
    Transport,
    /// That of all mail which has no other.
    Default,
}

impl Default for Schedules {
    /// [`Schedule::default`] for everybody, a day for the null sender, no rules.
    fn default() -> Schedules {
        Schedules::new(Schedule::default())
    }
}

impl Schedules {
    /// How long mail from the null sender is tried, if nothing else is said: a day.
    pub const NULL_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

    /// This schedule for everybody; [`Schedules::NULL_LIFETIME`] for the null sender.
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

    /// Sets how long mail from the null sender is tried, unless its schedule ends before. After
    /// no time at all its first failure is its last.
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

    /// Gives a transport a schedule of its own.
    pub fn with_transport(mut self, name: impl Into<String>, schedule: Schedule) -> Schedules {
        let pair = Pair::new(schedule, self.null_lifetime);
        self.transports.insert(name.into(), pair);
        self
    }

    /// Gives a domain, but not those below it, a schedule of its own.
    pub fn with_domain(mut self, domain: &str, schedule: Schedule) -> Schedules {
        let pair = Pair::new(schedule, self.null_lifetime);
        self.domains.insert(key(domain).into_owned(), pair);
        self
    }

    /// Adds a rule, behind those there are: the first that matches decides.
    pub fn with_rule(mut self, rule: ReplyRule) -> Schedules {
        self.rules.push(rule);
        self
    }

    /// The schedule for what goes by this transport to a recipient in this domain, and whose it
    /// is.
    pub fn choose(
        &self,
        is_null_sender: bool,
        domain: Option<&str>,
        transport: Option<&str>,
    ) -> (&Schedule, Whose) {
        let domain = domain.filter(|_| !self.domains.is_empty());
        let of_domain = domain.and_then(|name| self.domains.get(&*key(name)));
        let of_transport = transport.and_then(|name| self.transports.get(name));
        let (pair, whose) = match (of_domain, of_transport) {
            (Some(pair), _) => (pair, Whose::Domain),
            (None, Some(pair)) => (pair, Whose::Transport),
            (None, None) => (&self.default, Whose::Default),
        };
        if is_null_sender {
            (&pair.null, whose)
        } else {
            (&pair.usual, whose)
        }
    }

    /// The schedule of all mail that has no other.
    pub fn default_schedule(&self) -> &Schedule {
        &self.default.usual
    }

    /// Transports with a schedule of their own.
    pub fn transports(&self) -> impl Iterator<Item = (&str, &Schedule)> {
        let all = self.transports.iter();
        all.map(|(name, pair)| (name.as_str(), &pair.usual))
    }

    /// Domains, in their ASCII form, with a schedule of their own.
    pub fn domains(&self) -> impl Iterator<Item = (&str, &Schedule)> {
        let all = self.domains.iter();
        all.map(|(name, pair)| (name.as_str(), &pair.usual))
    }

    /// How long mail from the null sender is tried.
    pub fn null_lifetime(&self) -> SignedDuration {
        self.null_lifetime
    }

    /// The rules, in their order.
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

    /// In how many minutes an attempt is repeated that failed at this age.
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
    fn a_domain_goes_before_a_transport_and_both_before_the_rest() {
        let schedules = Schedules::new(every(30, 600))
            .with_transport("relay", every(20, 60))
            .with_domain("Example.ORG", every(10, 40))
            .with_domain("bücher.test", every(15, 60))
            .with_null_lifetime(MINUTE * 45);
        for (whose, expected, last) in [
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
                ahead(&schedules, whose, (1, 0), "4.0.0 x"),
                Some(expected),
                "{whose:?}"
            );
            let before = ahead(&schedules, whose, (9, last - 1), "4.0.0 x");
            assert_eq!(before, Some(1.0), "{whose:?}");
            assert_eq!(
                ahead(&schedules, whose, (3, last), "4.0.0 x"),
                None,
                "{whose:?}"
            );
            let hardly = ahead(&schedules, whose, (2, last), "4.0.0 x");
            assert_eq!(hardly, Some(expected), "{whose:?}");
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
            // Past its time, and hardly tried: no rule stretches that.
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
    fn a_rule_has_jitter_and_a_cap_as_any_delay() {
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
