//! The service's own statements outside seeding.

use sqlx::{Executor, MySqlPool};

/// Whether MySQL answers.
pub(crate) async fn ping(pool: &MySqlPool) -> Result<(), sqlx::Error> {
    pool.execute("DO 1").await.map(drop)
}
