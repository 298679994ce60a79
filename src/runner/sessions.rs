//! Sessions that are open and idle, for the next message to the same destination.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::transport::Session;

/// A transport's name and a destination of its.
pub(super) type Hop = (String, String);

/// Idle sessions, the one used last at the back.
#[derive(Default)]
pub(super) struct Sessions {
    idle: Mutex<VecDeque<(Hop, Box<dyn Session>)>>,
}

impl Sessions {
    /// Takes an idle session to a hop, the one used last.
    pub fn take(&self, hop: &Hop) -> Option<Box<dyn Session>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|(of, _)| of == hop)?;
        idle.remove(at).map(|(_, session)| session)
    }

    /// Keeps a session that may be used again. At most `most` are kept; the one that was idle
    /// longest is returned, to be closed.
    #[must_use]
    pub fn keep(
        &self,
        hop: Hop,
        session: Box<dyn Session>,
        most: usize,
    ) -> Option<Box<dyn Session>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back((hop, session));
        match idle.len() > most {
            true => idle.pop_front().map(|(_, session)| session),
            false => None,
        }
    }

    /// Closes them all.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, session) in idle {
            session.close().await;
        }
    }
}
