//! Takes a checkpoint.

use std::{collections::BTreeSet, time::Duration};

use domain::{
    checkpoint::{FORMAT, GENESIS, Hash, Leaf, Merkle, NO_AUDIT_HEAD, Statement},
    topic::Source,
};
use ed25519_dalek::SigningKey;
use sqlx::{MySqlConnection, MySqlPool};

use super::{
    CheckpointError,
    store::{self, Applied, Last},
};

/// More commands than these since the last checkpoint are not read again: reading all accounts is cheaper, and keeps the
/// snapshot short.
const COMMANDS_MAX: u64 = 200_000;

/// Takes the next checkpoint when the last one is older than `age`.
pub(super) async fn due(pool: &MySqlPool, key: &SigningKey, age: Duration) -> Result<(), CheckpointError> {
    let mut connection = pool.acquire().await?;
    store::begin_snapshot(&mut connection).await?;
    let looked = look(&mut connection, age).await;
    store::end(&mut connection).await?;
    drop(connection);
    let Some(Look { statement, leaves, positions }) = looked? else { return Ok(()) };
    let checkpoint = statement.sign(key);
    if store::insert(pool, &checkpoint, &leaves, &positions).await? {
        tracing::info!(
            checkpoint.number = statement.number,
            checkpoint.leaves = statement.leaves,
            "checkpoint taken"
        );
    }
    Ok(())
}

struct Look {
    statement: Statement,
    leaves: Vec<Leaf>,
    positions: String,
}

/// Reads, within the snapshot.
async fn look(connection: &mut MySqlConnection, age: Duration) -> Result<Option<Look>, CheckpointError> {
    let taken_at = store::now(connection).await?;
    let last = store::last(connection).await?;
    if let Some(last) = &last {
        let since = taken_at.micros() - last.checkpoint.statement.taken_at.micros();
        if u128::from(since.max(0).unsigned_abs()) < age.as_micros() {
            return Ok(None);
        }
    }
    let audit_head = store::audit_head(connection).await?;
    let positions = store::positions(connection).await?;
    let leaves = match &last {
        Some(last) => since(connection, last, &positions).await?,
        None => store::heads_of_all(connection).await?,
    };
    let mut merkle = Merkle::default();
    for leaf in &leaves {
        merkle.push(leaf);
    }
    let statement = Statement {
        format: FORMAT,
        number: last.as_ref().map_or(0, |last| last.checkpoint.statement.number) + 1,
        taken_at,
        leaves: merkle.leaves(),
        root: merkle.root(),
        previous: last.as_ref().map_or(GENESIS, |last| last.checkpoint.statement.digest()),
        audit_head: audit_head.map_or(NO_AUDIT_HEAD, Hash),
    };
    // Numbers only, so this does not fail.
    let positions = serde_json::to_string(&positions).unwrap_or_default();
    Ok(Some(Look { statement, leaves, positions }))
}

/// The heads of the accounts that changed since the last checkpoint.
async fn since(
    connection: &mut MySqlConnection,
    last: &Last,
    positions: &[Applied],
) -> Result<Vec<Leaf>, CheckpointError> {
    let number = last.checkpoint.statement.number;
    let before: Vec<Applied> =
        serde_json::from_str(&last.positions).map_err(|_| CheckpointError::Stored(number))?;
    let from = |at: &Applied| {
        let same = |it: &&Applied| (it.source, it.partition) == (at.source, at.partition);
        before.iter().find(same).map_or(0, |it| it.next_offset)
    };
    let commands: u64 = positions.iter().map(|at| at.next_offset.saturating_sub(from(at))).sum();
    if commands > COMMANDS_MAX {
        return Ok(store::heads_of_all(connection).await?);
    }
    let mut accounts = BTreeSet::new();
    for at in positions.iter().filter(|at| at.next_offset > from(at)) {
        store::moved(connection, at, from(at), &mut accounts).await?;
        if at.source == Source::Bank.code() {
            store::redriven(connection, at, from(at), &mut accounts).await?;
        }
    }
    Ok(store::heads_of(connection, &accounts).await?)
}
