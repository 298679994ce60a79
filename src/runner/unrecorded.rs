//! What happens to a message if its outcome cannot be recorded.

use super::{Core, Error, MessageOutcome};
use crate::disk;
use crate::spool::Entry;

impl Core {
    /// Handles a finished message that could not be renamed to `done/`. That rename was to be the record of
    /// the last outcome, so the message's block must record it instead. If the disk had no room for the new
    /// name, the message is removed where it is.
    pub(super) fn not_finished(&self, mut entry: Entry, error: &disk::Error) -> MessageOutcome {
        let id = entry.id();
        let said = entry.say_done();
        match &said {
            Ok(()) if !error.is_full() => return self.trouble(id, &error.to_string()),
            // A disk that has no room for this either may still permit an unlink.
            Err(failed) if !failed.is_full() => {
                return match entry.say_in_history() {
                    Ok(()) => self.trouble(id, &failed.to_string()),
                    Err(error) => self.not_ended(&mut entry, &error),
                };
            }
            _ => {}
        }
        match (entry.forget_here(), said) {
            (Ok(true), _) => MessageOutcome::Finished,
            (Ok(false) | Err(_), Err(full)) => self.not_ended(&mut entry, &full),
            (Ok(false), Ok(())) => self.trouble(id, &error.to_string()),
            (Err(error), Ok(())) => self.trouble(id, &error.to_string()),
        }
    }

    /// Handles a finished message if its end could not be recorded in any way. If it ended without a
    /// delivery, for example because an operator discarded it, the next run may safely reach the same end.
    fn not_ended(&self, entry: &mut Entry, error: &disk::Error) -> MessageOutcome {
        if entry.owes_something() {
            MessageOutcome::Trouble(self.not_recorded(entry, error))
        } else {
            self.trouble(entry.id(), &error.to_string())
        }
    }

    /// Handles an outcome that could not be recorded. No other attempt may follow it: the message is frozen
    /// by moving it to `frozen/`, without a record, and the run stops. If only room was missing, the run
    /// goes on, because that need not affect other messages. If the message cannot be frozen either, the
    /// run stops in any case: this message would be delivered again, and so would others.
    pub(super) fn not_recorded(&self, entry: &mut Entry, error: &disk::Error) -> String {
        let (id, why) = (entry.id(), error.to_string());
        let held = entry.hold_unrecorded();
        tracing::error!(%id, error = why, "the outcome could not be recorded; frozen");
        if let Err(error) = &held {
            tracing::error!(%id, %error, "nor could it be frozen");
        }
        // Without room, other messages can still be delivered and recorded.
        if !error.is_full() || held.is_err() {
            self.fail(Error::NotRecorded {
                id,
                why: why.clone(),
            });
        }
        why
    }
}
