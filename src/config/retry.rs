//! `[retry]`: schedules, for which mail they apply, and rules for replies.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use toml::Spanned;

use super::raw::{Raw, RawPhase, RawRetryDomain, RawRetryRule, ScheduleKeys};
use super::value::{Span, Text, at};
use super::{Error, signed};
use crate::message::domain;
use crate::queue::schedule::ScheduleError;
use crate::queue::{Glob, Phase, ReplyRule, Rhythm, Schedule, Schedules, StatusPattern};

impl Text<'_> {
    /// Returns all schedules. A transport's or domain's schedule takes missing keys from `[retry]`.
    pub(super) fn schedules(&self, raw: &mut Raw) -> Result<Schedules, Error> {
        let retry = raw.retry.schedule();
        let default = self.schedule(retry, &Schedule::default())?;
        let mut schedules = Schedules::new(default.clone());
        for (name, transport) in &mut raw.transport {
            if let Some(own) = &mut transport.retry {
                let schedule = self.schedule(own.get_ref().schedule(), &default)?;
                own.get_mut().fill(&schedule);
                schedules = schedules.with_transport(name.get_ref(), schedule);
            }
        }
        let mut seen = BTreeSet::new();
        for own in &mut raw.retry.domain {
            let name = self.retry_domain(own)?;
            let key = domain::key(name.get_ref()).into_owned();
            if !seen.insert(key.clone()) {
                let what = format!("a second schedule for {:?}", name.get_ref());
                return Err(self.error(name.span(), what));
            }
            let schedule = self.schedule(own.schedule(), &default)?;
            own.fill(&schedule);
            schedules = schedules.with_domain(&key, schedule);
            own.domain = Some(at(key));
        }
        let name = |own: &RawRetryDomain| own.domain.clone().map(Spanned::into_inner);
        raw.retry.domain.sort_by_cached_key(name);
        for rule in &mut raw.retry.rule {
            schedules = schedules.with_rule(self.reply_rule(rule, &default)?);
        }
        raw.retry.fill(&default);
        let lifetime = signed(raw.bounce.lifetime.get_ref().0);
        if !lifetime.is_zero() && lifetime < Schedule::SHORTEST {
            let what = "a lifetime of bounces is \"0\" or at least a minute";
            return Err(self.error(raw.bounce.lifetime.span(), what));
        }
        Ok(schedules.with_null_lifetime(lifetime))
    }

    /// Returns how long to keep mail that was frozen because it failed and has no sender to notify.
    pub(super) fn frozen_lifetime(&self, raw: &Raw) -> Result<Option<SignedDuration>, Error> {
        let given = &raw.frozen.lifetime;
        let lifetime = given.get_ref().0.map(|span| signed(span.0));
        match lifetime {
            Some(time) if time < Schedule::SHORTEST => {
                let what = "a lifetime of frozen mail is \"never\" or at least a minute";
                Err(self.error(given.span(), what))
            }
            lifetime => Ok(lifetime),
        }
    }

    fn retry_domain<'a>(&self, own: &'a RawRetryDomain) -> Result<&'a Spanned<String>, Error> {
        let place = own.schedule().place();
        let Some(name) = &own.domain else {
            let what = "a [[retry.domain]] needs `domain`";
            return Err(self.error(place.unwrap_or(0..0), what));
        };
        self.hostname(name)?;
        match place {
            Some(_) => Ok(name),
            None => Err(self.error(name.span(), "a [[retry.domain]] needs a key of a schedule")),
        }
    }

    /// Returns a schedule from these keys; missing keys come from `base`.
    fn schedule(&self, keys: ScheduleKeys<'_>, base: &Schedule) -> Result<Schedule, Error> {
        let rhythm = match (keys.phases, keys.delays) {
            (Some(_), Some(delays)) => {
                let what = "a schedule has either `phases` or `delays`";
                return Err(self.error(delays.span(), what));
            }
            (Some(phases), None) => Rhythm::Phases(phases.get_ref().iter().map(phase).collect()),
            (None, Some(delays)) => {
                let delays = delays.get_ref().iter();
                Rhythm::Delays(delays.map(|delay| signed(delay.0)).collect())
            }
            (None, None) => base.rhythm().clone(),
        };
        let time = |given: &Spanned<Span>| signed(given.get_ref().0);
        let lifetime = match keys.phases {
            Some(_) => keys.lifetime.map(time),
            None => Some(keys.lifetime.map_or(base.lifetime(), time)),
        };
        let cap = keys.cap.map(time).or(base.cap());
        let jitter = keys.jitter.map_or(base.jitter(), |given| *given.get_ref());
        Schedule::from_parts(rhythm, lifetime, cap, jitter).map_err(|error| {
            let place = match error {
                ScheduleError::Jitter => keys.jitter.map(Spanned::span),
                ScheduleError::Cap => keys.cap.map(Spanned::span),
                ScheduleError::Lifetime => keys.lifetime.map(Spanned::span),
                _ => None,
            };
            self.error(place.or(keys.place()).unwrap_or(0..0), error)
        })
    }

    fn reply_rule(&self, rule: &mut RawRetryRule, default: &Schedule) -> Result<ReplyRule, Error> {
        let (place, after) = (rule.after.span(), signed(rule.after.get_ref().0));
        if rule.status.is_none() && rule.reply.is_none() {
            let what = "a [[retry.rule]] needs `status` or `reply`, or both";
            return Err(self.error(place, what));
        }
        if !(Schedule::SHORTEST..=Schedule::LONGEST_LIFETIME).contains(&after) {
            return Err(self.error(place, ScheduleError::Delay));
        }
        if default.cap().is_some_and(|cap| cap < after) {
            return Err(self.error(place, "`after` is longer than `cap` of [retry]"));
        }
        let status = rule.status.as_ref().map(|given| {
            let status = given.get_ref().parse::<StatusPattern>();
            status.map_err(|error| self.error(given.span(), error))
        });
        let status = status.transpose()?;
        rule.status = status.as_ref().map(|status| at(status.to_string()));
        let until = rule.until.as_ref();
        let until = until.map(|given| self.some_time(given).map(signed));
        Ok(ReplyRule {
            status,
            reply: rule.reply.as_ref().map(|given| Glob::new(given.get_ref())),
            after,
            until: until.transpose()?,
        })
    }
}

fn phase(raw: &RawPhase) -> Phase {
    Phase {
        until: signed(raw.until.0),
        every: signed(raw.every.0),
        factor: raw.factor,
    }
}
