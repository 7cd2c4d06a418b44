//! Statements of the reconciler about what it found; the ledger itself is read by the verifier.

use std::collections::BTreeSet;

use sqlx::{MySqlPool, Row};
use uuid::Uuid;
use verifier::Report;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// How long rounds are kept.
const KEPT_DAYS: u32 = 30;
/// Rounds that are forgotten at a time.
const FORGOTTEN_MAX: u32 = 1_000;
/// Bytes of the state in one row.
const PIECE: usize = 1 << 20;

/// What a round reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::evidence) enum Kind {
    /// What is new, and what can be compared at once.
    New,
    /// Everything.
    Full,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::New => 1,
            Self::Full => 2,
        }
    }
}

/// The last round of a kind.
#[derive(Debug, Clone)]
pub(in crate::evidence) struct Round {
    pub(in crate::evidence) age_seconds: f64,
    pub(in crate::evidence) rows_per_second: f64,
}

/// What the last rounds found.
#[derive(Debug, Clone, Default)]
pub(in crate::evidence) struct Standing {
    pub(in crate::evidence) broken: BTreeSet<String>,
    pub(in crate::evidence) new: Option<Round>,
    pub(in crate::evidence) full: Option<Round>,
}

/// The clock of MySQL in microseconds since 1970: when a round begins.
pub(super) async fn begin(pool: &MySqlPool) -> Result<i64> {
    let sql = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
    sqlx::query(sql).fetch_one(pool).await?.try_get(0)
}

/// Leaves a row about a finished round, and forgets old ones.
pub(super) async fn note(pool: &MySqlPool, kind: Kind, began: i64, report: &Report) -> Result<()> {
    // Words and numbers only, so this does not fail.
    let text = serde_json::to_string(report).unwrap_or_default();
    sqlx::query(
        "INSERT INTO reconciliations (id, kind, started_at, finished_at, status, report) \
         VALUES (?, ?, '1970-01-01' + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6), ?, ?)",
    )
    .bind(Uuid::now_v7().as_bytes().as_slice())
    .bind(kind.code())
    .bind(began)
    .bind(if report.is_whole() { 1_u8 } else { 2 })
    .bind(text)
    .execute(pool)
    .await?;
    sqlx::query(
        "DELETE FROM reconciliations WHERE kind = ? AND finished_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY LIMIT ?",
    )
    .bind(kind.code())
    .bind(KEPT_DAYS)
    .bind(FORGOTTEN_MAX)
    .execute(pool)
    .await
    .map(drop)
}

/// The last round of each kind.
pub(super) async fn standing(pool: &MySqlPool) -> Result<Standing> {
    let mut standing = Standing::default();
    for kind in [Kind::New, Kind::Full] {
        let row = sqlx::query(
            "SELECT report, TIMESTAMPDIFF(MICROSECOND, finished_at, UTC_TIMESTAMP(6)) FROM reconciliations \
             WHERE kind = ? ORDER BY finished_at DESC LIMIT 1",
        )
        .bind(kind.code())
        .fetch_optional(pool)
        .await?;
        let Some(row) = row else { continue };
        let text: String = row.try_get_unchecked(0)?;
        let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let findings = report["findings"].as_array().into_iter().flatten();
        standing.broken.extend(findings.filter_map(|it| it["invariant"].as_str().map(str::to_owned)));
        let rows = report["rows"].as_object().into_iter().flatten();
        let rows: f64 = rows.filter_map(|(_, rows)| rows.as_f64()).sum();
        let round = Round {
            age_seconds: row.try_get::<i64, _>(1)? as f64 / 1e6,
            rows_per_second: rows / report["seconds"].as_f64().unwrap_or_default().max(1e-3),
        };
        match kind {
            Kind::New => standing.new = Some(round),
            Kind::Full => standing.full = Some(round),
        }
    }
    Ok(standing)
}

/// The state that was stored last.
pub(super) async fn state(pool: &MySqlPool) -> Result<Option<Vec<u8>>> {
    let last = sqlx::query("SELECT id FROM reconciliation_states ORDER BY id DESC LIMIT 1");
    let Some(last) = last.fetch_optional(pool).await? else { return Ok(None) };
    let id: Vec<u8> = last.try_get(0)?;
    let pieces = sqlx::query("SELECT bytes FROM reconciliation_states WHERE id = ? ORDER BY piece").bind(id);
    let mut state = Vec::new();
    for piece in pieces.fetch_all(pool).await? {
        state.extend(piece.try_get::<&[u8], _>(0)?);
    }
    Ok(Some(state))
}

/// Stores a state in place of all others.
pub(super) async fn save_state(pool: &MySqlPool, state: &[u8]) -> Result<()> {
    let id = Uuid::now_v7();
    let mut transaction = pool.begin().await?;
    for (number, piece) in state.chunks(PIECE).enumerate() {
        sqlx::query("INSERT INTO reconciliation_states (id, piece, bytes) VALUES (?, ?, ?)")
            .bind(id.as_bytes().as_slice())
            .bind(number as u32)
            .bind(piece)
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query("DELETE FROM reconciliation_states WHERE id <> ?")
        .bind(id.as_bytes().as_slice())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
