//! `[notice]`: what senders are told besides failures.

use super::raw::Raw;
use super::value::Text;
use super::{Error, signed};
use crate::queue::{DelayAges, Schedule};

impl Text<'_> {
    /// The ages at which a sender is told of a delay.
    pub(super) fn delays(&self, raw: &Raw) -> Result<DelayAges, Error> {
        let Some(given) = &raw.notice.delay else {
            return Ok(DelayAges::default());
        };
        let ages: Vec<_> = given.get_ref().iter().map(|age| signed(age.0)).collect();
        if ages.iter().any(|age| *age < Schedule::SHORTEST) {
            let what = "a delay is told at an age of at least a minute; an empty list: never";
            return Err(self.error(given.span(), what));
        }
        Ok(DelayAges::new(ages))
    }
}
