//! Sessions and their refresh tokens.

use domain::ids::UserId;
use domain::time::Timestamp;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::{Columns, bytes};
use crate::personal::Index;
use crate::roles::{Role, UserStatus};

/// What a request needs to know of the session that its token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRow {
    /// Whose.
    pub user: UserId,
    /// The user's role now.
    pub role: Role,
    /// Where the user stands now.
    pub status: UserStatus,
    /// Whether the user has a second factor.
    pub totp_confirmed: bool,
    /// Whether it was given in this session.
    pub second_factor: bool,
    /// When the user last proved who they are in this session.
    pub proven_at: Timestamp,
    /// Whether the session was neither revoked nor has expired.
    pub is_live: bool,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// The database's clock.
    pub now: Timestamp,
}

const COLUMNS: &str = "SELECT s.user_id, u.role, u.status, u.totp_confirmed_at IS NOT NULL, s.second_factor, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.proven_at), \
     s.revoked_at IS NULL AND s.expires_at > UTC_TIMESTAMP(6), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', s.expires_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) \
     FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = ?";

/// The session with this id.
pub async fn by_id(
    db: impl sqlx::MySqlExecutor<'_>,
    session: Uuid,
) -> Result<Option<SessionRow>, sqlx::Error> {
    let row = sqlx::query(COLUMNS).bind(&session.as_bytes()[..]).fetch_optional(db).await?;
    row.map(|row| {
        let mut columns = Columns::new(&row);
        Ok(SessionRow {
            user: columns.user()?,
            role: columns.named(Role::from_number)?,
            status: columns.named(UserStatus::from_number)?,
            totp_confirmed: columns.take::<i64>()? != 0,
            second_factor: columns.take::<u8>()? != 0,
            proven_at: Timestamp::from_micros(columns.take()?),
            is_live: columns.take::<i64>()? != 0,
            expires_at: Timestamp::from_micros(columns.take()?),
            now: Timestamp::from_micros(columns.take()?),
        })
    })
    .transpose()
}

/// Begins a session that lives for so many seconds.
pub async fn insert(
    db: &mut MySqlConnection,
    session: Uuid,
    user: UserId,
    address: &Index,
    second_factor: bool,
    seconds: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (id, user_id, address_index, created_at, expires_at, proven_at, second_factor) \
         VALUES (?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? SECOND, UTC_TIMESTAMP(6), ?)",
    )
    .bind(&session.as_bytes()[..])
    .bind(bytes(user))
    .bind(&address[..])
    .bind(seconds)
    .bind(second_factor)
    .execute(db)
    .await
    .map(drop)
}

/// Adds a refresh token to a session.
pub async fn insert_refresh_token(
    db: &mut MySqlConnection,
    token: &[u8; 32],
    session: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id) VALUES (?, ?)")
        .bind(&token[..])
        .bind(&session.as_bytes()[..])
        .execute(db)
        .await
        .map(drop)
}

/// The session of a refresh token, with its row locked, and whether the token was used before.
pub async fn lock_by_refresh_token(
    db: &mut MySqlConnection,
    token: &[u8; 32],
) -> Result<Option<(Uuid, bool)>, sqlx::Error> {
    let found = sqlx::query("SELECT session_id FROM refresh_tokens WHERE token_hash = ?")
        .bind(&token[..])
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let session = Columns::new(&row).uuid()?;
    // The session first, as everywhere; then whether the token was used is asked again.
    sqlx::query("SELECT id FROM sessions WHERE id = ? FOR UPDATE")
        .bind(&session.as_bytes()[..])
        .fetch_optional(&mut *db)
        .await?;
    let row = sqlx::query("SELECT used_at IS NOT NULL FROM refresh_tokens WHERE token_hash = ? FOR UPDATE")
        .bind(&token[..])
        .fetch_optional(&mut *db)
        .await?;
    let used = row.map(|row| Columns::new(&row).take::<i64>()).transpose()?;
    Ok(used.map(|used| (session, used != 0)))
}

/// The token was used.
pub async fn use_refresh_token(db: &mut MySqlConnection, token: &[u8; 32]) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE refresh_tokens SET used_at = UTC_TIMESTAMP(6) WHERE token_hash = ?")
        .bind(&token[..])
        .execute(db)
        .await
        .map(drop)
}

/// Ends one session.
pub async fn revoke(db: &mut MySqlConnection, session: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sessions SET revoked_at = UTC_TIMESTAMP(6) WHERE id = ? AND revoked_at IS NULL")
        .bind(&session.as_bytes()[..])
        .execute(db)
        .await
        .map(drop)
}

/// Ends one session of this user. `false`: the user has no such live session.
pub async fn revoke_own(db: &mut MySqlConnection, session: Uuid, user: UserId) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE sessions SET revoked_at = UTC_TIMESTAMP(6) \
         WHERE id = ? AND user_id = ? AND revoked_at IS NULL AND expires_at > UTC_TIMESTAMP(6)",
    )
    .bind(&session.as_bytes()[..])
    .bind(bytes(user))
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Live sessions of a user, newest first: id, when it began, when it ends. They are bounded where they begin.
pub async fn live(pool: &MySqlPool, user: UserId) -> Result<Vec<(Uuid, Timestamp, Timestamp)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at) FROM sessions \
         WHERE user_id = ? AND revoked_at IS NULL AND expires_at > UTC_TIMESTAMP(6) ORDER BY id DESC LIMIT 100",
    )
    .bind(bytes(user))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            let id = columns.uuid()?;
            Ok((id, Timestamp::from_micros(columns.take()?), Timestamp::from_micros(columns.take()?)))
        })
        .collect()
}

/// Ends all sessions of a user but one.
pub async fn revoke_all(
    db: &mut MySqlConnection,
    user: UserId,
    except: Option<Uuid>,
) -> Result<(), sqlx::Error> {
    let except = except.unwrap_or_default();
    sqlx::query(
        "UPDATE sessions SET revoked_at = UTC_TIMESTAMP(6) WHERE user_id = ? AND id <> ? AND revoked_at IS NULL",
    )
    .bind(bytes(user))
    .bind(&except.as_bytes()[..])
    .execute(db)
    .await
    .map(drop)
}

/// Forgets all sessions of a user, with their tokens: of somebody who is erased.
pub async fn delete_all(db: &mut MySqlConnection, user: UserId) -> Result<(), sqlx::Error> {
    for text in [
        "DELETE FROM refresh_tokens WHERE session_id IN (SELECT id FROM sessions WHERE user_id = ?)",
        "DELETE FROM sessions WHERE user_id = ?",
    ] {
        sqlx::query(text).bind(bytes(user)).execute(&mut *db).await?;
    }
    Ok(())
}

/// Ends the oldest live sessions of a user beyond so many; ids are drawn in the order of time.
pub async fn revoke_beyond(db: &mut MySqlConnection, user: UserId, most: u32) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT id FROM sessions WHERE user_id = ? AND revoked_at IS NULL AND expires_at > UTC_TIMESTAMP(6) \
         ORDER BY id DESC LIMIT 1 OFFSET ?",
    )
    .bind(bytes(user))
    .bind(most)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let oldest = Columns::new(&row).uuid()?;
    sqlx::query(
        "UPDATE sessions SET revoked_at = UTC_TIMESTAMP(6) WHERE user_id = ? AND id <= ? AND revoked_at IS NULL",
    )
    .bind(bytes(user))
    .bind(&oldest.as_bytes()[..])
    .execute(db)
    .await
    .map(drop)
}

/// The user proved in this session who they are; with a second factor or without.
pub async fn prove(db: &mut MySqlConnection, session: Uuid, second_factor: bool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE sessions SET proven_at = UTC_TIMESTAMP(6), second_factor = GREATEST(second_factor, ?) WHERE id = ?",
    )
    .bind(u8::from(second_factor))
    .bind(&session.as_bytes()[..])
    .execute(db)
    .await
    .map(drop)
}

/// Whether somebody logged in as this user from this address before.
pub async fn is_known_address(pool: &MySqlPool, email: &Index, address: &Index) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(
        "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE u.email_index = ? AND s.address_index = ? LIMIT 1",
    )
    .bind(&email[..])
    .bind(&address[..])
    .fetch_optional(pool)
    .await?;
    Ok(row.is_some())
}

/// Sessions of a user, newest first, at most 1,000: when they began and ended.
pub async fn history(
    db: &mut MySqlConnection,
    user: UserId,
) -> Result<Vec<(Timestamp, Timestamp)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at), \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', LEAST(COALESCE(revoked_at, expires_at), expires_at)) \
         FROM sessions WHERE user_id = ? ORDER BY id DESC LIMIT 1000",
    )
    .bind(bytes(user))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            Ok((Timestamp::from_micros(columns.take()?), Timestamp::from_micros(columns.take()?)))
        })
        .collect()
}

/// Forgets sessions that ended 90 days ago, with their tokens.
pub async fn forget(pool: &MySqlPool, limit: u32) -> Result<u64, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id FROM sessions WHERE expires_at < UTC_TIMESTAMP(6) - INTERVAL 90 DAY ORDER BY expires_at LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    for row in &rows {
        let session = Columns::new(row).uuid()?;
        for text in ["DELETE FROM refresh_tokens WHERE session_id = ?", "DELETE FROM sessions WHERE id = ?"] {
            sqlx::query(text).bind(&session.as_bytes()[..]).execute(pool).await?;
        }
    }
    Ok(rows.len() as u64)
}
