//! What is known of sessions, remembered for two seconds.
//!
//! A token is valid as long as its session: a log-out, a revocation or another role takes effect when what is
//! remembered is read again, at the latest after [`AGE_MAX`], on the replica that did it at once. While MySQL is away,
//! nobody is let in on what was remembered longer ago.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use sqlx::MySqlPool;
use uuid::Uuid;

use crate::store::sessions::{self as store, SessionRow};

/// How old what is remembered may be: well below the 5 s within which a revocation counts.
pub const AGE_MAX: Duration = Duration::from_secs(2);
/// Sessions remembered, some 150 bytes each.
const SESSIONS_MAX: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();

/// Remembers sessions.
pub struct Sessions {
    known: Mutex<LruCache<Uuid, (Instant, SessionRow)>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { known: Mutex::new(LruCache::new(SESSIONS_MAX)) }
    }
}

impl Sessions {
    /// The session, read at most [`AGE_MAX`] ago.
    pub async fn find(&self, pool: &MySqlPool, session: Uuid) -> Result<Option<SessionRow>, sqlx::Error> {
        // The age counts from before the read: what changed during it may have been missed.
        let asked = Instant::now();
        let known = self.lock().get(&session).copied();
        if let Some((_, row)) = known.filter(|(read_at, _)| read_at.elapsed() < AGE_MAX) {
            return Ok(Some(row));
        }
        let row = store::by_id(pool, session).await?;
        match row {
            Some(row) => drop(self.lock().put(session, (asked, row))),
            None => drop(self.lock().pop(&session)),
        }
        Ok(row)
    }

    /// Forgets a session that this process changed.
    pub fn forget(&self, session: Uuid) {
        self.lock().pop(&session);
    }

    /// Forgets everything, after a change to all sessions of a user.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<Uuid, (Instant, SessionRow)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
