//! Verifying the audit log on request: one verification at a time over all processes, in the background, with its
//! progress and its end in a table that every process reads.
//!
//! The same as `wired verify-ledger` does of the audit log, with the checkpoints that this service itself publishes.
//! Whoever does not trust this service runs that, with a read-only user and a copy of the checkpoints.

mod store;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::ids::{UserId, VerificationId};
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::App;
use crate::audit::{Action, Entry};
use crate::evidence::lease::Lease;
use crate::problem::Problem;

/// How long a dead process keeps the next verification waiting.
const LEASE: Duration = Duration::from_secs(15);
/// Between two notes of how far it is.
const INTERVAL: Duration = Duration::from_secs(1);
/// One that was not seen for so long does not run any more.
const LOST_AFTER_S: i64 = 20;
/// Rows read in a second: customers come first.
const ROWS_PER_SECOND: NonZeroU32 = NonZeroU32::new(50_000).unwrap();

/// Where checkpoints are published, and the public key that they are signed with.
#[derive(Debug, Clone)]
pub struct Published {
    /// The folder.
    pub folder: PathBuf,
    /// The key.
    pub public_key: [u8; 32],
}

/// Where a verification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditVerificationStatus)]
pub enum Status {
    /// It goes on.
    Running,
    /// Nothing was altered.
    Whole,
    /// Something was: see the findings.
    Broken,
    /// The log could not be read to its end.
    Failed,
    /// Its process ended before it did.
    Interrupted,
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Running | Self::Interrupted => 1,
            Self::Whole => 2,
            Self::Broken => 3,
            Self::Failed => 4,
        }
    }
}

/// A verification of the audit log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AuditVerification)]
pub struct Verification {
    /// The id.
    #[schema(value_type = String, example = "vrf_01k9q5m3v7f8h9j0kamcneprqs")]
    id: VerificationId,
    /// Where it stands.
    status: Status,
    /// Who asked.
    #[schema(value_type = String, example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    asked_by: UserId,
    /// When it began.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    started_at: Timestamp,
    /// When it ended, or was last seen.
    #[schema(value_type = String, example = "2026-01-31T12:00:20.000000Z")]
    seen_at: Timestamp,
    /// Rows of the log whose links are verified.
    #[schema(example = 123_456)]
    verified: u64,
    /// The first rows that are wrong; nothing while it runs.
    #[schema(value_type = Option<Vec<Object>>, example = json!([]))]
    findings: Option<Value>,
    /// What the checkpoints vouch for, and what they do not.
    #[schema(example = "2160 checkpoints, taken from … to …, vouch for …")]
    statement: Option<String>,
}

/// Begins a verification, or finds the one that runs.
pub async fn begin(app: &Arc<App>, caller: &Caller) -> Result<Verification, Problem> {
    let lease = Lease::new(app.pool.clone(), "audit_verification", LEASE);
    if !lease.take().await? {
        if let Some(running) = store::last(&app.pool).await? {
            return Ok(running);
        }
        return Err(Problem::plain(crate::problem::Code::Unavailable).retry_after(1));
    }
    let id = Uuid::now_v7();
    let begun = async {
        let mut transaction = app.pool.begin().await?;
        store::begin(&mut transaction, id, caller.user).await?;
        let target = Some(VerificationId::from_uuid(id).to_string());
        let entry = Entry { target, ..Entry::own(caller.user, Action::VerifyAudit, caller.origin) };
        crate::store::audit::write(&mut transaction, &entry).await?;
        transaction.commit().await?;
        store::last(&app.pool).await
    };
    match begun.await {
        Ok(Some(verification)) => {
            let app = app.clone();
            tokio::spawn(async move {
                let lost = CancellationToken::new();
                lease.keep_during(&lost, work(&app, id)).await;
                lease.release().await;
            });
            Ok(verification)
        }
        Ok(None) => Err(Problem::internal(&"a verification vanished")),
        Err(error) => {
            lease.release().await;
            Err(error.into())
        }
    }
}

/// The last verification.
pub async fn last(pool: &MySqlPool) -> Result<Option<Verification>, Problem> {
    Ok(store::last(pool).await?)
}

async fn work(app: &App, id: Uuid) {
    let verified = AtomicU64::new(0);
    let told = |links| verified.store(links, Ordering::Relaxed);
    let checkpoints = app.checkpoints.as_ref().map(|it| (it.folder.as_path(), &it.public_key));
    let verifying = verifier::verify_audit(&app.pool, checkpoints, Some(ROWS_PER_SECOND), &told);
    let mut verifying = std::pin::pin!(verifying);
    let ended = loop {
        tokio::select! {
            ended = &mut verifying => break ended,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if let Err(error) = store::seen(&app.pool, id, verified.load(Ordering::Relaxed)).await {
            tracing::debug!(error = %error, "how far a verification is cannot be stored");
        }
    };
    let (status, report) = match ended {
        Ok((report, vouched)) => {
            if let Some(first) = report.findings.first() {
                tracing::error!(finding.first = %first, "the audit log is broken");
            }
            let status = if report.is_whole() { Status::Whole } else { Status::Broken };
            (status, json!({ "report": report, "statement": vouched.statement() }))
        }
        Err(error) => {
            tracing::warn!(error = %error, "the audit log could not be read to its end");
            (Status::Failed, json!({}))
        }
    };
    let noted =
        store::end(&app.pool, id, verified.load(Ordering::Relaxed), status, &report.to_string()).await;
    if let Err(error) = noted {
        tracing::warn!(error = %error, "what a verification found cannot be stored");
    }
}
