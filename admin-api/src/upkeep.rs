//! What has to be done from time to time: data keys are sealed anew after a change of the key-encryption key, and
//! what is of no use any more is forgotten. Each step is small, and may be done by several replicas at once.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::UserId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::App;
use crate::store::{links, sessions, users};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// Rows of one step.
const BATCH: u32 = 200;

/// Goes round until `shutdown`.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match reseal(&app, &shutdown).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(keys.count = count, "data keys were sealed anew"),
            Err(error) => tracing::warn!(error = %error, "data keys cannot be sealed anew"),
        }
        if let Err(error) = forget(&app, &shutdown).await {
            tracing::warn!(error = %error, "what is of no use any more cannot be forgotten");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Seals all data keys under the current key-encryption key; returns how many were under another one.
async fn reseal(app: &App, shutdown: &CancellationToken) -> Result<u64, sqlx::Error> {
    let (mut above, mut count) = (UserId::from_uuid(Uuid::nil()), 0);
    while !shutdown.is_cancelled() {
        let rows = users::data_keys(&app.pool, above, BATCH).await?;
        let Some((last, _)) = rows.last() else { break };
        above = *last;
        for (user, sealed) in &rows {
            match app.personal.reseal(*user, sealed) {
                Ok(None) => {}
                Ok(Some(resealed)) => {
                    users::replace_data_key(&app.pool, *user, sealed, &resealed).await?;
                    count += 1;
                }
                Err(error) => {
                    tracing::error!(user.id = %user, error = %error, "a data key cannot be opened");
                }
            }
        }
    }
    Ok(count)
}

async fn forget(app: &App, shutdown: &CancellationToken) -> Result<(), sqlx::Error> {
    loop {
        let mut most = links::forget(&app.pool, BATCH).await?;
        most = most.max(sessions::forget(&app.pool, BATCH).await?);
        most = most.max(users::forget_registrations(&app.pool, BATCH).await?);
        if most < u64::from(BATCH) || shutdown.is_cancelled() {
            return Ok(());
        }
    }
}
