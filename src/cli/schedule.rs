//! `schedule`: when a message accepted now would be attempted, and why.

use std::io::{self, BufWriter};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::args::{Global, Schedule as Args};
use super::exit::Failure;
use super::output::{finish, json_line, put};
use super::site::Site;
use super::table;
use super::way::because;
use crate::config::Config;
use crate::message::{Address, ReversePath, printable};
use crate::queue::{ReplyRule, RetryScope, Schedule};

/// The schedule as JSON. Absent values are null; durations are in seconds.
#[derive(Serialize)]
struct Plan {
    address: Option<String>,
    /// The number of the `[[route]]`, counted from 1.
    route: Option<usize>,
    transport: Option<String>,
    /// The place of the schedule in the configuration.
    schedule: String,
    because: String,
    null_sender: bool,
    accepted: Timestamp,
    lifetime: i64,
    jitter: f64,
    cap: Option<i64>,
    attempts: Vec<Attempt>,
    rules: Vec<Rule>,
    /// What happens to the message if the last attempt fails: `bounced` or `frozen`.
    then: &'static str,
    #[serde(skip)]
    way: Option<String>,
    #[serde(skip)]
    null_attempts: (usize, SignedDuration),
}

#[derive(Serialize)]
struct Attempt {
    number: usize,
    age: i64,
    /// The earliest time.
    time: Timestamp,
    /// The latest time, with all jitter.
    latest: Timestamp,
    #[serde(skip)]
    exact: (SignedDuration, SignedDuration),
}

#[derive(Serialize)]
struct Rule {
    status: Option<String>,
    reply: Option<String>,
    after: i64,
    until: Option<i64>,
}

/// `mailspool schedule`.
pub(super) fn schedule(global: &Global, args: &Args) -> Result<(), Failure> {
    let site = Site::look(global)?;
    let given = args.address.as_ref();
    let to = given.map(|given| site.address(given));
    let now = Timestamp::now();
    let accepted = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let sender = if args.bounce {
        ReversePath::Null
    } else {
        site.sender(args.from.as_ref())?
    };
    let plan = plan(&site.config, &sender, to.transpose()?, accepted);
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        json_line(&mut out, &plan)?
    } else {
        put(&mut out, &text(&plan))?
    }
    finish(out)
}

fn plan(config: &Config, sender: &ReversePath, to: Option<Address>, accepted: Timestamp) -> Plan {
    let schedules = &config.retry;
    let bounce = *sender == ReversePath::Null;
    let rule = to
        .as_ref()
        .and_then(|to| config.routes.rule_for(sender, to));
    let transport = rule.map(|(_, rule)| rule.transport.as_str());
    let domain = to.as_ref().and_then(Address::domain);
    let (schedule, scope) = schedules.choose(bounce, domain, transport);
    let (null, _) = schedules.choose(true, domain, transport);
    let name = |name: Option<&str>| printable(name.unwrap_or_default());
    let (place, because_of) = match scope {
        RetryScope::Domain => (
            format!("[[retry.domain]] {}", name(domain)),
            "the domain has a schedule".to_owned(),
        ),
        RetryScope::Transport => (
            format!("[transport.{}.retry]", name(transport)),
            "the transport has a schedule and the domain has none".to_owned(),
        ),
        RetryScope::Default => ("[retry]".to_owned(), others(domain, transport)),
    };
    let default = *schedules.default_schedule() == Schedule::default();
    let because_of = if scope == RetryScope::Default && default {
        format!("{because_of}; it is the default")
    } else {
        because_of
    };
    let way = to.as_ref().map(|_| match rule {
        None => "none: no route matches".to_owned(),
        Some((number, rule)) => format!("{}, by {}", rule.transport, because(number, rule)),
    });
    Plan {
        address: to.as_ref().map(Address::to_string),
        route: rule.map(|(number, _)| number + 1),
        transport: transport.map(str::to_owned),
        schedule: place,
        because: because_of,
        null_sender: bounce,
        accepted,
        lifetime: schedule.lifetime().as_secs(),
        jitter: schedule.jitter(),
        cap: schedule.cap().map(|cap| cap.as_secs()),
        attempts: attempts(schedule, accepted),
        rules: rules(schedules.rules(), schedule),
        then: if bounce { "frozen" } else { "bounced" },
        way,
        null_attempts: (null.ages().len() + 1, null.lifetime()),
    }
}

/// Explains why the default schedule applies.
fn others(domain: Option<&str>, transport: Option<&str>) -> String {
    match (domain, transport) {
        (None, None) => "for all mail without another schedule".to_owned(),
        (Some(_), None) => "the domain has no schedule".to_owned(),
        (None, Some(_)) => "the transport has no schedule".to_owned(),
        (Some(_), Some(_)) => "neither the domain nor the transport has a schedule".to_owned(),
    }
}

/// Returns the first attempt, which is immediate, and those of the schedule.
fn attempts(schedule: &Schedule, accepted: Timestamp) -> Vec<Attempt> {
    let zero = SignedDuration::ZERO;
    let mut before = zero;
    let ages = std::iter::once((zero, zero)).chain(schedule.attempts());
    let at = |age: SignedDuration| {
        let second = SignedDuration::from_secs(1);
        let up = age + (second - SignedDuration::from_nanos(1));
        let whole = SignedDuration::from_secs(up.as_secs());
        accepted.saturating_add(whole).unwrap_or(Timestamp::MAX)
    };
    ages.enumerate()
        .map(|(n, (age, latest))| Attempt {
            number: n + 1,
            age: age.as_secs(),
            time: at(age),
            latest: at(latest),
            exact: (age, age - std::mem::replace(&mut before, age)),
        })
        .collect()
}

/// Returns the rules, with their delays limited to the schedule's cap.
fn rules(rules: &[ReplyRule], schedule: &Schedule) -> Vec<Rule> {
    let rule = |rule: &ReplyRule| Rule {
        status: rule.status.as_ref().map(ToString::to_string),
        reply: rule.reply.as_ref().map(|glob| glob.as_str().to_owned()),
        after: schedule
            .cap()
            .unwrap_or(rule.after)
            .min(rule.after)
            .as_secs(),
        until: rule.until.map(|until| until.as_secs()),
    };
    rules.iter().map(rule).collect()
}

impl Rule {
    fn text(&self) -> String {
        let status = self
            .status
            .as_ref()
            .map(|status| format!("status {status}"));
        let reply = self.reply.as_ref();
        let reply = reply.map(|glob| format!("text {:?}", printable(glob)));
        let what: Vec<String> = [status, reply].into_iter().flatten().collect();
        let span = |seconds| table::span(SignedDuration::from_secs(seconds));
        let young = self.until.map_or(String::new(), |until| {
            format!(" while the message is younger than {}", span(until))
        });
        let (what, after) = (what.join(" and "), span(self.after));
        format!("After a reply with {what}: {after} later{young}.")
    }
}

fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<12}{}\n", printable(value)));
    };
    if let Some(address) = &plan.address {
        line("Address", address);
    }
    if let Some(way) = &plan.way {
        line("Transport", way);
    }
    line("Schedule", &format!("{} ({})", plan.schedule, plan.because));
    if plan.null_sender {
        line("Sender", "the null sender");
    }
    text.push('\n');
    let row = |attempt: &Attempt| {
        let (age, delay) = attempt.exact;
        let delay = if delay.is_zero() {
            String::new()
        } else {
            table::span(delay)
        };
        let cells = vec![
            attempt.number.to_string(),
            table::span(age),
            delay,
            table::time(attempt.time),
        ];
        (cells, None)
    };
    let rows = plan.attempts.iter().map(row).collect();
    text.push_str(&table::table(&["No", "Age", "After", "Time"], rows));
    text.push('\n');
    for words in notes(plan) {
        text.push_str(&format!("{words}\n"));
    }
    text
}

/// Returns the lines below the table.
fn notes(plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    if plan.jitter > 0.0 && plan.attempts.len() > 2 {
        let percent = (plan.jitter * 1000.0).round() / 10.0;
        notes.push(format!(
            "Each but the last may be up to {percent} % of its delay later (jitter); runs begin at \
             whole minutes."
        ));
    }
    if let Some(cap) = plan.cap {
        let cap = table::span(SignedDuration::from_secs(cap));
        notes.push(format!("No delay is longer than {cap} (cap)."));
    }
    notes.extend(plan.rules.iter().map(Rule::text));
    notes.push(match (plan.null_sender, plan.attempts.len()) {
        (true, 1) => "If the first attempt fails, the message is frozen.".to_owned(),
        (true, _) => "If the last attempt fails, the message is frozen.".to_owned(),
        (false, _) => "If the last attempt fails, the sender gets a bounce.".to_owned(),
    });
    if !plan.null_sender {
        let (count, lifetime) = plan.null_attempts;
        let (span, plural) = (table::span(lifetime), if count == 1 { "" } else { "s" });
        notes.push(format!(
            "From the null sender: {count} attempt{plural} in {span}, then frozen (--bounce shows them)."
        ));
    }
    notes
}
