//! Writes how endpoints fare, when it changes, and tells the partner's other endpoints of one that is disabled.
//!
//! One transaction: states locked in the order of their keys, then inserts only. What is stored decides, not what this
//! process remembers: whoever enables an endpoint again clears its row, and its five days begin anew.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use domain::ids::{EndpointId, EventId, PartnerId, event_position};
use domain::notice::{DisabledReason, NoticeType, disabled_data};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySqlPool, Row};
use uuid::Uuid;

use super::catch_up::push_last_event;
use super::notices::{NoticeInsert, push_notices};
use super::{execute, fetch, opt_instant, opt_text, uuid};
use crate::catch_up::MARGIN;

/// An endpoint that has failed for so long is disabled.
const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3_600);

/// A change of how an endpoint fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An attempt failed then.
    Failed(Timestamp),
    /// It succeeded again.
    Recovered,
    /// It said then that it is gone for good.
    Gone(Timestamp),
}

/// Whom a change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concerned {
    /// The endpoint.
    pub endpoint: Uuid,
    /// Whose it is.
    pub partner: Uuid,
    /// Endpoints of the partner that are told when it is disabled.
    pub told: Vec<Uuid>,
}

/// How an endpoint fares after its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The endpoint.
    pub endpoint: Uuid,
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// Why it was disabled just now.
    pub disabled: Option<DisabledReason>,
}

#[derive(Debug, Default)]
struct StateRow {
    failing_since: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<String>,
    missed_after: Option<u64>,
}

impl StateRow {
    /// Gives the reason when the endpoint is disabled by this.
    fn apply(&mut self, change: &Change) -> Option<(DisabledReason, Timestamp)> {
        let (at, reason) = match change {
            Change::Recovered => {
                self.failing_since = None;
                return None;
            }
            Change::Failed(at) => (*at, DisabledReason::Failing),
            Change::Gone(at) => (*at, DisabledReason::Gone),
        };
        let since = *self.failing_since.get_or_insert(at);
        if self.disabled_at.is_some() || (reason == DisabledReason::Failing && !is_due(since, at)) {
            return None;
        }
        self.disabled_at = Some(at);
        self.disabled_reason = Some(reason.as_str().to_owned());
        Some((reason, at))
    }
}

/// Whether an endpoint that fails since then is due to be disabled.
pub fn is_due(since: Timestamp, at: Timestamp) -> bool {
    let failing_for = u128::try_from(at.micros().saturating_sub(since.micros())).unwrap_or_default();
    failing_for >= FAILING_MAX.as_micros()
}

/// Applies the changes in one transaction.
pub async fn apply(pool: &MySqlPool, changes: &[(Concerned, Change)]) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut grouped: BTreeMap<Uuid, (&Concerned, Vec<&Change>)> = BTreeMap::new();
    for (concerned, change) in changes {
        grouped.entry(concerned.endpoint).or_insert_with(|| (concerned, Vec::new())).1.push(change);
    }
    if grouped.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = pool.acquire().await?;
    let written = apply_locked(&mut connection, &grouped).await;
    if written.is_err() {
        // When this fails too, the connection is broken, and the server rolls back by itself.
        let _ = execute(&mut connection, "ROLLBACK", 1).await;
    }
    written
}

async fn apply_locked(
    connection: &mut MySqlConnection,
    changes: &BTreeMap<Uuid, (&Concerned, Vec<&Change>)>,
) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut stored = lock(connection, changes.keys()).await?;
    let (mut new, mut old, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
    let mut notices = Vec::new();
    for (endpoint, (concerned, changes)) in changes {
        let known = stored.remove(endpoint);
        let is_new = known.is_none();
        let mut state = known.unwrap_or_default();
        let mut disabled = None;
        for change in changes {
            disabled = state.apply(change).or(disabled);
        }
        if let Some((reason, at)) = disabled {
            state.missed_after = Some(missed_after(connection, concerned).await?);
            notices.extend(news(concerned, reason, at, state.missed_after));
        }
        let disabled = disabled.map(|(reason, _)| reason);
        outcomes.push(Outcome { endpoint: *endpoint, failing_since: state.failing_since, disabled });
        if is_new { &mut new } else { &mut old }.push((*endpoint, state));
    }
    let mut sql = Sql::new();
    let mut statements = 1;
    // Rows that were not there are inserted plainly: when another process was faster, 1062 has all repeated.
    for (rows, end) in [
        (&new, "; "),
        (
            &old,
            " ON DUPLICATE KEY UPDATE failing_since = VALUES(failing_since), disabled_at = VALUES(disabled_at), \
             disabled_reason = VALUES(disabled_reason), missed_after = VALUES(missed_after); ",
        ),
    ] {
        if !rows.is_empty() {
            push(&mut sql, rows);
            sql.text(end);
            statements += 1;
        }
    }
    statements += push_notices(&mut sql, &notices);
    sql.text("COMMIT");
    execute(connection, sql.as_str(), statements).await?;
    Ok(outcomes)
}

async fn lock(
    connection: &mut MySqlConnection,
    endpoints: impl Iterator<Item = &Uuid>,
) -> Result<HashMap<Uuid, StateRow>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "START TRANSACTION; SELECT endpoint_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', failing_since), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', disabled_at), disabled_reason, missed_after \
         FROM endpoint_states FORCE INDEX (PRIMARY) WHERE endpoint_id IN (",
    );
    sql.list(endpoints, |sql, endpoint| {
        sql.uuid(*endpoint);
    });
    sql.text(") ORDER BY endpoint_id FOR UPDATE");
    let mut stored = HashMap::new();
    for row in fetch(connection, sql.as_str(), 2).await? {
        let state = StateRow {
            failing_since: opt_instant(&row, 1)?,
            disabled_at: opt_instant(&row, 2)?,
            disabled_reason: opt_text(&row, 3)?,
            missed_after: row.try_get(4)?,
        };
        stored.insert(uuid(&row, 0)?, state);
    }
    Ok(stored)
}

/// A sequence behind which events may have got no delivery: the last recorded one, less what may have been under way
/// out of order.
async fn missed_after(connection: &mut MySqlConnection, concerned: &Concerned) -> Result<u64, sqlx::Error> {
    let mut sql = Sql::new();
    push_last_event(&mut sql, concerned.endpoint, concerned.partner);
    let rows = fetch(connection, sql.as_str(), 1).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    let event = EventId::from_uuid(uuid(row, 1)?);
    let position = event_position(PartnerId::from_uuid(concerned.partner), event);
    Ok(position.map_or(0, |(_, sequence)| sequence.saturating_sub(MARGIN)))
}

/// The notices that an endpoint was disabled: one to each of the partner's other endpoints, and one without delivery
/// at the endpoint itself, for whoever tells its owner by other means.
fn news(
    concerned: &Concerned,
    reason: DisabledReason,
    at: Timestamp,
    missed_after: Option<u64>,
) -> Vec<NoticeInsert> {
    let data = disabled_data(EndpointId::from_uuid(concerned.endpoint), reason, at, missed_after);
    let notice = |endpoint: Uuid| NoticeInsert {
        endpoint,
        id: Uuid::new_v4(),
        partner: concerned.partner,
        notice_type: NoticeType::EndpointDisabled,
        data: data.clone(),
        created_at: at,
        is_delivered: endpoint != concerned.endpoint,
    };
    concerned.told.iter().copied().chain([concerned.endpoint]).map(notice).collect()
}

fn push(sql: &mut Sql, rows: &[(Uuid, StateRow)]) {
    sql.text(
        "INSERT INTO endpoint_states (endpoint_id, failing_since, disabled_at, disabled_reason, missed_after) \
         VALUES ",
    );
    sql.list(rows, |sql, (endpoint, row)| {
        sql.text("(").uuid(*endpoint).text(",").opt_datetime(row.failing_since.map(Timestamp::civil));
        sql.text(",").opt_datetime(row.disabled_at.map(Timestamp::civil)).text(",");
        sql.opt_string(row.disabled_reason.as_deref()).text(",").opt_int(row.missed_after).text(")");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_micros(day * 24 * 3_600 * 1_000_000)
    }

    #[test]
    fn five_days_of_failures_disable_and_what_is_stored_decides() {
        use DisabledReason::{Failing, Gone};
        let failing = |since| StateRow { failing_since: Some(at(since)), ..StateRow::default() };
        let owner =
            || StateRow { disabled_at: Some(at(1)), disabled_reason: Some("owner".to_owned()), ..failing(1) };
        let cases = [
            (StateRow::default(), Change::Failed(at(9)), None, Some(at(9))),
            (failing(5), Change::Failed(at(9)), None, Some(at(5))),
            (failing(4), Change::Failed(at(9)), Some(Failing), Some(at(4))),
            (failing(9), Change::Failed(at(1)), None, Some(at(9))),
            (failing(1), Change::Recovered, None, None),
            (StateRow::default(), Change::Gone(at(9)), Some(Gone), Some(at(9))),
            (owner(), Change::Failed(at(9)), None, Some(at(1))),
            (owner(), Change::Gone(at(9)), None, Some(at(1))),
        ];
        for (mut state, change, disabled, since) in cases {
            let told = format!("{state:?} {change:?}");
            assert_eq!(state.apply(&change).map(|(reason, _)| reason), disabled, "{told}");
            assert_eq!(state.failing_since, since, "{told}");
        }
    }
}
