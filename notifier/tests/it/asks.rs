//! What ingest writes for the owner of an endpoint: pings, replays, changes of settings.

use domain::ids::{EndpointId, EventId, PartnerId};
use domain::notice::{Flaw, Verdict, ping_data};
use domain::replay::{ReplayKind, ReplayStatus};
use domain::seal::Place;
use sqlx::{MySqlPool, Row};
use testkit::wait_until;
use uuid::Uuid;

use crate::harness::{BOUND, World};

fn bytes(id: &Uuid) -> &[u8] {
    id.as_bytes().as_slice()
}

/// A ping as it stands in the database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pinged {
    pub(crate) verdict: Verdict,
    pub(crate) clock_skew_s: Option<i32>,
    /// Status of the delivery and number of attempts.
    pub(crate) delivery: (u8, u8),
}

/// What a replay has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) status: ReplayStatus,
    pub(crate) queued: u64,
    pub(crate) skipped: u64,
}

/// What is to be sent again.
pub(crate) enum Ask {
    Event(EventId),
    FailedForAnHour,
    Range(u64, u64),
    Missing(u64, u64),
}

impl World {
    /// Asks for a ping.
    pub(crate) async fn ping(
        &self,
        partner: PartnerId,
        endpoint: EndpointId,
        flaw: Option<Flaw>,
        secret: Option<Uuid>,
    ) -> EventId {
        let id = Uuid::new_v4();
        let mut transaction = self.env.pool().begin().await.unwrap();
        sqlx::query(
            "INSERT INTO notices (endpoint_id, id, partner_id, type, flaw, secret_id, data, created_at, next_attempt_at)
            VALUES (?, ?, ?, 1, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .bind(bytes(&endpoint.uuid()))
        .bind(bytes(&id))
        .bind(bytes(&partner.uuid()))
        .bind(flaw.map(Flaw::code))
        .bind(secret.map(|secret| secret.as_bytes().to_vec()))
        .bind(ping_data(endpoint))
        .execute(&mut *transaction)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, created_at)
            VALUES (?, ?, ?, 1, 0, UTC_TIMESTAMP(6))",
        )
        .bind(bytes(&endpoint.uuid()))
        .bind(bytes(&id))
        .bind(bytes(&partner.uuid()))
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        EventId::from_uuid(id)
    }

    /// Waits until a ping is answered.
    pub(crate) async fn pinged(&self, ping: EventId) -> Pinged {
        wait_until("the ping to be answered", BOUND, async || {
            let row = sqlx::query(
                "SELECT n.verdict, n.clock_skew_s, d.status, d.attempts FROM notices n
                JOIN deliveries d ON d.endpoint_id = n.endpoint_id AND d.event_id = n.id
                WHERE n.id = ? AND n.verdict IS NOT NULL AND n.next_attempt_at IS NULL AND d.finished_at IS NOT NULL",
            )
            .bind(bytes(&ping.uuid()))
            .fetch_optional(self.env.pool())
            .await
            .unwrap()?;
            Some(Pinged {
                verdict: Verdict::from_code(row.get(0)).unwrap(),
                clock_skew_s: row.get(1),
                delivery: (row.get(2), row.get(3)),
            })
        })
        .await
    }

    /// Asks for a replay.
    pub(crate) async fn replay(&self, partner: PartnerId, endpoint: EndpointId, ask: Ask) -> Uuid {
        let (id, mut event, mut since, mut range) = (Uuid::now_v7(), None, None, (None, None));
        let kind = match ask {
            Ask::Event(asked) => {
                event = Some(asked.uuid().as_bytes().to_vec());
                ReplayKind::Event
            }
            Ask::FailedForAnHour => {
                since = Some(3_600);
                ReplayKind::Failed
            }
            Ask::Range(from, to) => {
                range = (Some(from), Some(to));
                ReplayKind::Range
            }
            Ask::Missing(from, to) => {
                range = (Some(from), Some(to));
                ReplayKind::Missing
            }
        };
        sqlx::query(
            "INSERT INTO replays (id, endpoint_id, partner_id, kind, status, event_id, since, from_sequence, to_sequence, created_at, next_step_at)
            VALUES (?, ?, ?, ?, 1, ?, UTC_TIMESTAMP(6) - INTERVAL ? SECOND, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .bind(bytes(&id))
        .bind(bytes(&endpoint.uuid()))
        .bind(bytes(&partner.uuid()))
        .bind(kind.code())
        .bind(event)
        .bind(since)
        .bind(range.0)
        .bind(range.1)
        .execute(self.env.pool())
        .await
        .unwrap();
        id
    }

    /// Waits until a replay is done.
    pub(crate) async fn replayed(&self, replay: Uuid) -> Replayed {
        wait_until("the replay to end", BOUND, async || {
            let row = sqlx::query(
                "SELECT status, queued, skipped FROM replays WHERE id = ? AND finished_at IS NOT NULL",
            )
            .bind(bytes(&replay))
            .fetch_optional(self.env.pool())
            .await
            .unwrap()?;
            let status = ReplayStatus::from_code(row.get(0)).unwrap();
            Some(Replayed { status, queued: row.get(1), skipped: row.get(2) })
        })
        .await
    }

    /// Changes an endpoint; `set` is what stands behind SET.
    pub(crate) async fn change(&self, endpoint: EndpointId, set: &str) {
        sqlx::query(&format!("UPDATE endpoints SET version = version + 1, {set} WHERE id = ?"))
            .bind(bytes(&endpoint.uuid()))
            .execute(self.env.pool())
            .await
            .unwrap();
    }

    /// Gives an endpoint headers, as JSON.
    pub(crate) async fn set_headers(&self, endpoint: EndpointId, json: &str) {
        let row = endpoint.uuid();
        let place = Place { table: "endpoints", column: "headers_sealed", row: row.as_bytes() };
        let sealed = self.kek.keys.seal(json.as_bytes(), &place, [7; 12]);
        sqlx::query("UPDATE endpoints SET version = version + 1, headers_sealed = ? WHERE id = ?")
            .bind(sealed)
            .bind(bytes(&row))
            .execute(self.env.pool())
            .await
            .unwrap();
    }

    /// Disables an endpoint, as its owner does, or enables it.
    pub(crate) async fn set_disabled(&self, endpoint: EndpointId, disabled: bool) {
        let set = if disabled {
            "INSERT INTO endpoint_states (endpoint_id, disabled_at, disabled_reason) VALUES (?, UTC_TIMESTAMP(6), 'owner')
            ON DUPLICATE KEY UPDATE disabled_at = VALUES(disabled_at), disabled_reason = VALUES(disabled_reason)"
        } else {
            "UPDATE endpoint_states SET failing_since = NULL, disabled_at = NULL, disabled_reason = NULL WHERE endpoint_id = ?"
        };
        sqlx::query(set).bind(bytes(&endpoint.uuid())).execute(self.env.pool()).await.unwrap();
        self.change(endpoint, "description = NULL").await;
    }

    /// The ids of an endpoint's secrets, oldest first.
    pub(crate) async fn secret_ids(&self, endpoint: EndpointId) -> Vec<Uuid> {
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT id FROM endpoint_secrets WHERE endpoint_id = ? ORDER BY created_at, id",
        )
        .bind(bytes(&endpoint.uuid()))
        .fetch_all(self.env.pool())
        .await
        .unwrap();
        ids.iter().map(|id| Uuid::from_slice(id).unwrap()).collect()
    }

    /// How many rows a query with one endpoint counts.
    pub(crate) async fn count(&self, sql: &str, endpoint: EndpointId) -> i64 {
        count(self.env.pool(), sql, endpoint).await
    }
}

async fn count(pool: &MySqlPool, sql: &str, endpoint: EndpointId) -> i64 {
    sqlx::query_scalar(sql).bind(bytes(&endpoint.uuid())).fetch_one(pool).await.expect("rows can be counted")
}
