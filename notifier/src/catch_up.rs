//! Fills a gap in the event topic from the event log in MySQL.
//!
//! Which partner is in which partition is the producer's affair, so every endpoint is looked at: from its last
//! recorded delivery, less a margin for what was under way out of order, through its partner's log. What is not
//! recorded is recorded as due now; retries deliver it within their bounds. Only then is the partition consumed, so
//! that its watermark cannot pass over the gap. Bounded: one page of one endpoint at a time.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{EventId, PartnerId, event_position};
use sqlx::MySqlPool;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock;
use crate::dispatch::is_wanted;
use crate::due::DueBoard;
use crate::endpoints::{Endpoint, Endpoints};
use crate::store::deliveries::{self, DeliveryRow};
use crate::store::{DeliveryKey, Status, catch_up as store};

/// Events read at a time.
const PAGE: u32 = 500;
/// How far behind its last recorded event an endpoint may have unrecorded ones: more than are ever under way.
pub const MARGIN: u64 = 50_000;
/// The pause after an error.
const ERROR_WAIT: Duration = Duration::from_secs(1);

/// Fills gaps.
pub struct CatchUp {
    /// For the log and the deliveries.
    pub pool: MySqlPool,
    /// Whom events go to.
    pub endpoints: Arc<Endpoints>,
    /// Where due deliveries are announced.
    pub due: Arc<DueBoard>,
}

impl CatchUp {
    /// Fills on request, telling which request is done, until the consumer is gone.
    pub async fn run(self, mut asked: mpsc::UnboundedReceiver<u64>, filled: std::sync::mpsc::Sender<u64>) {
        while let Some(request) = asked.recv().await {
            loop {
                match self.fill().await {
                    Ok(added) => {
                        tracing::info!(deliveries = added, "gap in the event topic filled from MySQL");
                        break;
                    }
                    Err(error) => tracing::warn!(error = %error, "gap in the event topic not filled yet"),
                }
                tokio::time::sleep(ERROR_WAIT).await;
            }
            if filled.send(request).is_err() {
                return;
            }
        }
    }

    async fn fill(&self) -> Result<usize, sqlx::Error> {
        self.endpoints.refresh().await?;
        let snapshot = self.endpoints.snapshot();
        let mut added = 0;
        let open: Vec<_> = snapshot.all().filter(|endpoint| !endpoint.disabled).collect();
        let ids: Vec<_> = open.iter().map(|endpoint| (endpoint.id, endpoint.partner)).collect();
        let last = store::last_recorded(&self.pool, &ids).await?;
        for endpoint in open {
            added += self.fill_endpoint(endpoint, last.get(&endpoint.id).copied()).await?;
        }
        Ok(added)
    }

    async fn fill_endpoint(&self, endpoint: &Endpoint, last: Option<Uuid>) -> Result<usize, sqlx::Error> {
        let partner = PartnerId::from_uuid(endpoint.partner);
        let position = last.and_then(|event| event_position(partner, EventId::from_uuid(event)));
        let mut after = position.map_or(0, |(_, sequence)| sequence.saturating_sub(MARGIN));
        let mut added = 0;
        loop {
            let events = store::events_after(&self.pool, endpoint.partner, after, PAGE).await?;
            let Some(end) = events.last() else { return Ok(added) };
            after = end.sequence;
            let wanted = events.iter().filter(|event| is_wanted(event, endpoint));
            let keys: Vec<_> =
                wanted.map(|event| DeliveryKey { endpoint: endpoint.id, event: event.id.uuid() }).collect();
            added += self.add_missing(endpoint, &keys).await?;
        }
    }

    async fn add_missing(&self, endpoint: &Endpoint, keys: &[DeliveryKey]) -> Result<usize, sqlx::Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let (recorded, _) = deliveries::recorded(&self.pool, keys, Some(clock::now())).await?;
        let now = clock::now();
        let missing = keys.iter().filter(|key| !recorded.contains(key));
        let rows: Vec<_> = missing
            .map(|key| DeliveryRow {
                key: *key,
                partner: endpoint.partner,
                status: Status::Pending,
                attempts: 0,
                next_attempt_at: Some(now),
                leased_by: None,
                created_at: now,
                finished_at: None,
            })
            .collect();
        if rows.is_empty() {
            return Ok(0);
        }
        let mut connection = self.pool.acquire().await?;
        // When another process was faster with one of them, 1062 has the whole gap looked at again.
        deliveries::insert(&mut connection, Uuid::nil(), &rows, &[]).await?;
        self.due.add(endpoint.id, now);
        Ok(rows.len())
    }
}
