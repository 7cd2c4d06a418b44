//! Whether the ledger is whole, and how the parts of the bank are.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::checkpoint::Hash;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::Reader;
use crate::app::App;
use crate::body::FromQuery;
use crate::cursor;
use crate::problem::{Code, Problem};
use crate::store::{analytics, offsets, system as store};
use crate::system::Service;

/// A finished round of the reconciler.
#[derive(Debug, Serialize, ToSchema)]
pub struct Round {
    /// `new`: what came since the round before, and what can be compared at once; `full`: the whole ledger.
    #[schema(example = "new")]
    kind: &'static str,
    /// `whole` or `broken`.
    #[schema(example = "whole")]
    verdict: &'static str,
    /// When it began.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = String, example = "2026-01-31T12:00:01.000000Z")]
    finished_at: Timestamp,
    /// What was compared and found: checks by invariant, rows by table, the first bad rows.
    #[schema(value_type = Object, example = json!({"checks": {"I1": 1200}, "rows": {"entries": 2400}, "findings": [], "resumed": true, "seconds": 0.4}))]
    report: Value,
}

impl From<store::RoundRow> for Round {
    fn from(row: store::RoundRow) -> Self {
        Self {
            kind: if row.kind == 1 { "new" } else { "full" },
            verdict: if row.status == 1 { "whole" } else { "broken" },
            started_at: row.started_at,
            finished_at: row.finished_at,
            report: serde_json::from_str(&row.report).unwrap_or_default(),
        }
    }
}

/// The last checkpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointHead {
    /// Counts from 1 without gaps.
    #[schema(example = 4711)]
    number: u64,
    /// When it was taken.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    taken_at: Timestamp,
    /// Accounts that had changed.
    #[schema(example = 120)]
    accounts: u64,
    /// The root of their Merkle tree, hexadecimal.
    #[schema(value_type = String, example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    root: Hash,
    /// When it stood in the folder and on the topic; nothing while it does not.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00.200000Z")]
    published_at: Option<Timestamp>,
}

/// Whether the ledger is whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reconciliation {
    /// The last round over what is new.
    new: Option<Round>,
    /// The last round over everything.
    full: Option<Round>,
    /// The last checkpoint; nothing when none was taken.
    checkpoint: Option<CheckpointHead>,
    /// Rounds, newest first, of the last 30 days.
    data: Vec<Round>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AZmZmQAAcACAAAAAAAAAAA")]
    next: Option<String>,
}

/// Which rounds.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer.
    #[param(example = "AZmZmQAAcACAAAAAAAAAAA")]
    cursor: Option<String>,
}

/// Reconciliation
///
/// The last verdicts on the ledger, the last checkpoint, and the history.
#[utoipa::path(
    get, path = "/v1/reconciliation", tag = "system", operation_id = "read_reconciliation", security(("access_token" = [])),
    params(Page),
    responses(
        (status = 200, description = "The verdicts", body = Reconciliation, example = json!({"new": null, "full": null, "checkpoint": {"number": 4711, "taken_at": "2026-01-31T12:00:00.000000Z", "accounts": 120, "root": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "published_at": "2026-01-31T12:00:00.200000Z"}, "data": [{"kind": "new", "verdict": "whole", "started_at": "2026-01-31T12:00:00.000000Z", "finished_at": "2026-01-31T12:00:01.000000Z", "report": {"checks": {"I1": 1200}, "rows": {"entries": 2400}, "findings": [], "resumed": true, "seconds": 0.4}}], "next": null})),
    )
)]
pub async fn reconciliation(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(page): FromQuery<Page>,
) -> Result<axum::Json<Reconciliation>, Problem> {
    let limit = cursor::limit(page.limit)?;
    let below = page.cursor.as_deref().map(|cursor| {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok());
        id.ok_or_else(|| Problem::plain(Code::InvalidCursor))
    });
    let below = below.transpose()?;
    let mut connection = app.pool.acquire().await?;
    let new = store::last_round(&mut connection, 1).await?;
    let full = store::last_round(&mut connection, 2).await?;
    let checkpoint = store::last_checkpoint(&mut connection).await?.map(|row| CheckpointHead {
        number: row.number,
        taken_at: row.taken_at,
        accounts: row.leaves,
        root: row.root,
        published_at: row.published_at,
    });
    // One more tells whether there is another page.
    let mut rows = store::rounds(&mut connection, below, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| URL_SAFE_NO_PAD.encode(row.id.as_bytes()));
    let data = rows.into_iter().map(Round::from).collect();
    Ok(axum::Json(Reconciliation {
        new: new.map(Round::from),
        full: full.map(Round::from),
        checkpoint,
        data,
        next,
    }))
}

/// A partition of a command topic.
#[derive(Debug, Serialize, ToSchema)]
pub struct Partition {
    /// The topic, without a prefix that topics of this bank may have.
    #[schema(example = "payments.commands.v1")]
    topic: &'static str,
    /// The partition.
    #[schema(example = 3)]
    partition: u16,
    /// Everything below is applied to the ledger.
    #[schema(example = 4712)]
    applied: u64,
    /// Events of everything below are known to be on their topic.
    #[schema(example = 4712)]
    announced: u64,
    /// Where the topic ends; nothing when Kafka does not say.
    #[schema(example = 4715)]
    end: Option<u64>,
    /// What is accepted and not applied; nothing when Kafka does not say.
    #[schema(example = 3)]
    lag: Option<u64>,
}

/// Versions of what runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Versions {
    /// Of this program.
    #[schema(example = "0.1.0")]
    admin_api: &'static str,
    /// The last migration.
    #[schema(example = "0012_analytics.sql")]
    schema: String,
    /// Of the database server.
    #[schema(example = "9.7.0")]
    mysql: String,
}

/// How old what is shown may be.
#[derive(Debug, Serialize, ToSchema)]
pub struct Staleness {
    /// Kafka says where its topics end.
    #[schema(example = true)]
    kafka_answers: bool,
    /// When figures were last looked after; nothing before the first time.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00.000000Z")]
    analytics_counted_at: Option<Timestamp>,
    /// Commands that are applied and not in the figures.
    #[schema(example = 0)]
    analytics_behind: u64,
    /// When the last checkpoint was taken.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00.000000Z")]
    checkpoint_taken_at: Option<Timestamp>,
    /// When the last round of the reconciler ended.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00.000000Z")]
    reconciled_at: Option<Timestamp>,
}

/// How the parts of the bank are.
#[derive(Debug, Serialize, ToSchema)]
pub struct System {
    /// By the database's clock.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    now: Timestamp,
    /// The services, at most two seconds ago.
    services: Vec<Service>,
    /// The partitions of the command topics.
    partitions: Vec<Partition>,
    /// All that is accepted and not applied; nothing when Kafka does not say.
    #[schema(example = 3)]
    lag: Option<u64>,
    /// Versions of what runs.
    versions: Versions,
    /// How old what is shown may be.
    staleness: Staleness,
}

/// System
///
/// Lag and positions of each partition, health of each service, versions, and how old figures and proofs are.
#[utoipa::path(
    get, path = "/v1/system", tag = "system", operation_id = "read_system", security(("access_token" = [])),
    responses(
        (status = 200, description = "The parts", body = System, example = json!({"now": "2026-01-31T12:00:00.000000Z", "services": [{"name": "processor", "address": "10.0.0.6:9100", "status": "ready", "components": {"mysql": "up", "kafka": "up"}, "certificate_expires_at": null}], "partitions": [{"topic": "payments.commands.v1", "partition": 3, "applied": 4712, "announced": 4712, "end": 4715, "lag": 3}], "lag": 3, "versions": {"admin_api": "0.1.0", "schema": "0012_analytics.sql", "mysql": "9.7.0"}, "staleness": {"kafka_answers": true, "analytics_counted_at": "2026-01-31T12:00:00.000000Z", "analytics_behind": 0, "checkpoint_taken_at": "2026-01-31T12:00:00.000000Z", "reconciled_at": "2026-01-31T12:00:00.000000Z"}})),
    )
)]
pub async fn system(State(app): State<Arc<App>>, _: Reader) -> Result<axum::Json<System>, Problem> {
    // Asked first: what is applied meanwhile makes a lag smaller, never negative.
    let standing = app.system.standing().await;
    let mut connection = app.pool.acquire().await?;
    let applied = offsets::applied(&mut connection).await?;
    let (schema, mysql, now) = store::versions(&mut connection).await?;
    let checkpoint = store::last_checkpoint(&mut connection).await?;
    let rounds = [store::last_round(&mut connection, 1).await?, store::last_round(&mut connection, 2).await?];
    drop(connection);
    let shown = analytics::shown(&app.pool).await?;
    let behind = match &shown {
        Some(shown) => analytics::behind(&app.pool, shown.number).await?,
        None => applied.iter().map(|at| at.next_offset).sum(),
    };
    let ends = standing.ends.as_ref().ok();
    let partitions: Vec<Partition> = applied
        .iter()
        .map(|at| {
            let end = ends.and_then(|ends| {
                ends.iter().find(|(source, partition, _)| (*source, *partition) == (at.source, at.partition))
            });
            let end = end.map(|(_, _, end)| *end);
            Partition {
                topic: at.source.topic().name,
                partition: at.partition,
                applied: at.next_offset,
                announced: at.announced_offset,
                end,
                lag: end.map(|end| end.saturating_sub(at.next_offset)),
            }
        })
        .collect();
    Ok(axum::Json(System {
        now,
        lag: partitions.iter().map(|partition| partition.lag).sum(),
        services: standing.services,
        partitions,
        versions: Versions { admin_api: env!("CARGO_PKG_VERSION"), schema, mysql },
        staleness: Staleness {
            kafka_answers: standing.ends.is_ok(),
            analytics_counted_at: shown.map(|shown| shown.counted_at),
            analytics_behind: behind,
            checkpoint_taken_at: checkpoint.map(|row| row.taken_at),
            reconciled_at: rounds.into_iter().flatten().map(|row| row.finished_at).max(),
        },
    }))
}
