//! Reads of MySQL for an answer: bounded, and refused at once while MySQL is away.

use std::time::Duration;

use uuid::Uuid;

use crate::app::App;
use crate::problem::{Code, Problem};
use crate::store::StoreError;

/// A read that takes longer has met a server that hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(4);
const RETRY_AFTER_S: u32 = 1;

/// MySQL cannot be read at the moment.
pub fn unavailable() -> Problem {
    Problem::plain(Code::Unavailable).retry_after(RETRY_AFTER_S)
}

/// What `read` gives, in time.
pub async fn within<T>(
    app: &App,
    request_id: Uuid,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Problem> {
    if !app.lookup.is_up() {
        return Err(unavailable());
    }
    match tokio::time::timeout(READ_TIMEOUT, read).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) if error.is_passing() => {
            tracing::warn!(error = %error, request.id = %request_id, "not read");
            Err(unavailable())
        }
        Ok(Err(error)) => {
            tracing::error!(error = %error, request.id = %request_id, "cannot be read");
            Err(Problem::plain(Code::Internal))
        }
        Err(_) => Err(unavailable()),
    }
}
