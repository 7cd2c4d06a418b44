//! Works off replays: makes what they cover due again, in order, a bounded step at a time.
//!
//! No step is made while many deliveries of the endpoint are due, so live traffic, which takes turns with
//! them, is not starved, and an endpoint that fails is not buried. A step is one transaction with the replay's own row,
//! so a killed notifier loses none and repeats none; of two notifiers, one takes a step.

use std::sync::Arc;
use std::time::Duration;

use domain::replay::ReplayKind;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::due::DueBoard;
use crate::endpoints::{Endpoint, Endpoints, Snapshot};
use crate::store::replays::{self as store, Cursor, ReplayRow, Step};
use crate::{clock, metrics};

/// How often open replays are looked at, and the pause between two steps of one.
const INTERVAL: Duration = Duration::from_millis(500);
/// Deliveries of one step: with the interval, the rate of a replay.
const STEP: u32 = 250;
/// Events of one step that only looks for missing ones.
const LOOK: u32 = 1_000;
/// No step is made while so many deliveries of the endpoint are due.
const DUE_MAX: u32 = 500;
/// Replays of one round.
const REPLAYS_MAX: u32 = 64;

/// Works off replays.
pub struct Replayer {
    /// For replays, events and deliveries.
    pub pool: MySqlPool,
    /// Whom they go to.
    pub endpoints: Arc<Endpoints>,
    /// Where due deliveries are announced.
    pub due: Arc<DueBoard>,
}

impl Replayer {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.round().await {
                tracing::warn!(error = %error, "replays cannot be worked off");
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn round(&self) -> Result<(), sqlx::Error> {
        let replays = store::due(&self.pool, clock::now(), REPLAYS_MAX).await?;
        metrics::set("wired_notifier_open_replays", replays.len() as f64);
        if replays.is_empty() {
            return Ok(());
        }
        let snapshot = self.endpoints.renewed().await?;
        for replay in replays {
            // One that cannot be worked off must not hold up the others.
            if let Err(error) = self.step(&replay, &snapshot).await {
                tracing::warn!(replay.id = %replay.id, error = %error, "step of a replay failed");
            }
        }
        Ok(())
    }

    async fn step(&self, replay: &ReplayRow, snapshot: &Snapshot) -> Result<(), sqlx::Error> {
        let now = clock::now();
        if !store::take(&self.pool, replay, clock::after(now, INTERVAL)).await? {
            return Ok(());
        }
        let Some(endpoint) = snapshot.get(replay.endpoint).filter(|endpoint| !endpoint.disabled) else {
            return Ok(());
        };
        if store::due_deliveries(&self.pool, replay.endpoint, now, DUE_MAX).await? >= DUE_MAX {
            return Ok(());
        }
        let step = self.plan(replay, endpoint).await?;
        let Some(queued) = store::write(&self.pool, &step, now).await? else { return Ok(()) };
        metrics::add("wired_notifier_replayed_total", usize::try_from(queued).unwrap_or(usize::MAX));
        if queued > 0 {
            self.due.add(replay.endpoint, now);
        }
        if step.is_last {
            tracing::info!(replay.id = %replay.id, endpoint.id = %replay.endpoint, "replay done");
        }
        Ok(())
    }

    async fn plan<'a>(&self, replay: &'a ReplayRow, endpoint: &Endpoint) -> Result<Step<'a>, sqlx::Error> {
        match replay.kind {
            ReplayKind::Event => {
                let events = replay.event.into_iter().collect();
                Ok(Step { replay, events, unwanted: 0, cursor: Cursor::default(), is_last: true })
            }
            ReplayKind::Failed => self.plan_failed(replay).await,
            ReplayKind::Range => self.plan_range(replay, endpoint, STEP).await,
            ReplayKind::Missing => self.plan_range(replay, endpoint, LOOK).await,
        }
    }

    async fn plan_failed<'a>(&self, replay: &'a ReplayRow) -> Result<Step<'a>, sqlx::Error> {
        let since = replay.since.unwrap_or(replay.created_at);
        let after = replay.cursor.delivery;
        let found = store::failed(&self.pool, replay.endpoint, since, replay.created_at, after, STEP).await?;
        let cursor = Cursor { delivery: found.last().copied().or(after), ..replay.cursor };
        let is_last = found.len() < STEP as usize;
        let events = found.into_iter().map(|(_, event)| event).collect();
        Ok(Step { replay, events, unwanted: 0, cursor, is_last })
    }

    async fn plan_range<'a>(
        &self,
        replay: &'a ReplayRow,
        endpoint: &Endpoint,
        limit: u32,
    ) -> Result<Step<'a>, sqlx::Error> {
        let (from, to) = replay.range.unwrap_or((1, 0));
        let after = replay.cursor.sequence.unwrap_or(from.saturating_sub(1));
        let found = store::events(&self.pool, replay.partner, after, to, limit).await?;
        let last = found.last().map(|(sequence, ..)| *sequence);
        let is_last = found.len() < limit as usize || last == Some(to);
        let looked_at = found.len();
        let wanted = found.into_iter().filter_map(|(_, event, event_type)| {
            event_type.filter(|event_type| endpoint.subscribes(*event_type)).map(|_| event)
        });
        let events: Vec<Uuid> = wanted.collect();
        let unwanted = (looked_at - events.len()) as u64;
        let cursor = Cursor { sequence: last.or(replay.cursor.sequence), ..replay.cursor };
        Ok(Step { replay, events, unwanted, cursor, is_last })
    }
}
