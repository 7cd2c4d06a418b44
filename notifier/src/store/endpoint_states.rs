//! Writes how endpoints fare, when it changes.

use std::collections::{BTreeMap, HashMap};

use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::{execute, fetch, opt_instant, opt_text, uuid};

/// A change of how an endpoint fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began to fail.
    Failing(Timestamp),
    /// It succeeded again.
    Recovered,
    /// It gets no more deliveries, and why.
    Disabled(Timestamp, &'static str),
}

#[derive(Debug, Default)]
struct StateRow {
    failing_since: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<String>,
}

impl StateRow {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Failing(at) => self.failing_since = self.failing_since.or(Some(at)),
            Change::Recovered => self.failing_since = None,
            Change::Disabled(at, reason) => {
                if self.disabled_at.is_none() {
                    self.disabled_at = Some(at);
                    self.disabled_reason = Some(reason.to_owned());
                }
            }
        }
    }
}

/// Applies the changes in one transaction.
pub async fn apply(pool: &MySqlPool, changes: &[(Uuid, Change)]) -> Result<(), sqlx::Error> {
    let mut grouped: BTreeMap<Uuid, Vec<Change>> = BTreeMap::new();
    for (endpoint, change) in changes {
        grouped.entry(*endpoint).or_default().push(*change);
    }
    if grouped.is_empty() {
        return Ok(());
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
    changes: &BTreeMap<Uuid, Vec<Change>>,
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new();
    sql.text(
        "START TRANSACTION; SELECT endpoint_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', failing_since), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', disabled_at), disabled_reason \
         FROM endpoint_states FORCE INDEX (PRIMARY) WHERE endpoint_id IN (",
    );
    sql.list(changes.keys(), |sql, endpoint| {
        sql.uuid(*endpoint);
    });
    sql.text(") ORDER BY endpoint_id FOR UPDATE");
    let mut stored = HashMap::new();
    for row in fetch(connection, sql.as_str(), 2).await? {
        let state = StateRow {
            failing_since: opt_instant(&row, 1)?,
            disabled_at: opt_instant(&row, 2)?,
            disabled_reason: opt_text(&row, 3)?,
        };
        stored.insert(uuid(&row, 0)?, state);
    }
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for (endpoint, changes) in changes {
        let known = stored.remove(endpoint);
        let group = if known.is_some() { &mut old } else { &mut new };
        let mut state = known.unwrap_or_default();
        for change in changes {
            state.apply(*change);
        }
        group.push((*endpoint, state));
    }
    let mut sql = Sql::new();
    let mut statements = 1;
    // Rows that were not there are inserted plainly: when another process was faster, 1062 has all repeated.
    for (rows, end) in [
        (&new, "; "),
        (
            &old,
            " ON DUPLICATE KEY UPDATE failing_since = VALUES(failing_since), disabled_at = VALUES(disabled_at), \
             disabled_reason = VALUES(disabled_reason); ",
        ),
    ] {
        if !rows.is_empty() {
            push(&mut sql, rows);
            sql.text(end);
            statements += 1;
        }
    }
    sql.text("COMMIT");
    execute(connection, sql.as_str(), statements).await.map(drop)
}

fn push(sql: &mut Sql, rows: &[(Uuid, StateRow)]) {
    sql.text(
        "INSERT INTO endpoint_states (endpoint_id, failing_since, disabled_at, disabled_reason) VALUES ",
    );
    sql.list(rows, |sql, (endpoint, row)| {
        sql.text("(").uuid(*endpoint).text(",").opt_datetime(row.failing_since.map(Timestamp::civil));
        sql.text(",").opt_datetime(row.disabled_at.map(Timestamp::civil)).text(",");
        sql.opt_string(row.disabled_reason.as_deref()).text(")");
    });
}
