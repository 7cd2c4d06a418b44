//! Tokens of mailed links, and recovery codes: secrets that count once.

use domain::ids::UserId;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlConnection;

use super::{Columns, bytes};
use crate::personal::Index;

/// What a link is for, as `link_tokens.purpose` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Completes a registration.
    Registration = 1,
    /// Sets a forgotten password.
    Reset = 2,
    /// Completes the making of an admin on the server.
    Admin = 3,
    /// Proves a new e-mail address.
    NewAddress = 4,
    /// Completes an invitation to the staff.
    Staff = 5,
}

impl Purpose {
    fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Registration, Self::Reset, Self::Admin, Self::NewAddress, Self::Staff];
        all.into_iter().find(|it| *it as u8 == number)
    }
}

/// A link for a user, valid for so many minutes.
pub async fn insert(
    db: &mut MySqlConnection,
    token: &[u8; 32],
    user: UserId,
    purpose: Purpose,
    minutes: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO link_tokens (token_hash, user_id, purpose, expires_at) \
         VALUES (?, ?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MINUTE)",
    )
    .bind(&token[..])
    .bind(bytes(user))
    .bind(purpose as u8)
    .bind(minutes)
    .execute(db)
    .await
    .map(drop)
}

/// An address that is not, or not any more, the user's.
#[derive(Debug, Clone)]
pub struct NewAddress {
    /// Finds who has it.
    pub index: Index,
    /// The address, sealed under the user's data key.
    pub sealed: Vec<u8>,
}

/// A link that proves a new address, valid for so many minutes.
pub async fn insert_new_address(
    db: &mut MySqlConnection,
    token: &[u8; 32],
    user: UserId,
    address: &NewAddress,
    minutes: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO link_tokens (token_hash, user_id, purpose, expires_at, email_index, email_sealed) \
         VALUES (?, ?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MINUTE, ?, ?)",
    )
    .bind(&token[..])
    .bind(bytes(user))
    .bind(Purpose::NewAddress as u8)
    .bind(minutes)
    .bind(&address.index[..])
    .bind(&address.sealed)
    .execute(db)
    .await
    .map(drop)
}

/// Whose new address this link proves, while it counts.
pub async fn find_new_address(
    db: &mut MySqlConnection,
    token: &[u8; 32],
) -> Result<Option<(UserId, NewAddress)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT user_id, email_index, email_sealed FROM link_tokens \
         WHERE token_hash = ? AND purpose = ? AND expires_at > UTC_TIMESTAMP(6)",
    )
    .bind(&token[..])
    .bind(Purpose::NewAddress as u8)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let mut columns = Columns::new(&row);
        Ok((columns.user()?, NewAddress { index: columns.index()?, sealed: columns.take()? }))
    })
    .transpose()
}

/// Whose link this is and what for, while it counts.
pub async fn find(
    db: impl sqlx::MySqlExecutor<'_>,
    token: &[u8; 32],
) -> Result<Option<(UserId, Purpose)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT user_id, purpose FROM link_tokens WHERE token_hash = ? AND expires_at > UTC_TIMESTAMP(6)",
    )
    .bind(&token[..])
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let mut columns = Columns::new(&row);
        Ok((columns.user()?, columns.named(Purpose::from_number)?))
    })
    .transpose()
}

/// Uses a link. `false`: somebody else just did.
pub async fn consume(db: &mut MySqlConnection, token: &[u8; 32]) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM link_tokens WHERE token_hash = ? AND expires_at > UTC_TIMESTAMP(6)")
        .bind(&token[..])
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes all links of a user worthless.
pub async fn delete_all(db: &mut MySqlConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM link_tokens WHERE user_id = ?").bind(bytes(user)).execute(db).await.map(drop)
}

/// Forgets links that have expired.
pub async fn forget(pool: &MySqlPool, limit: u32) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM link_tokens WHERE expires_at < UTC_TIMESTAMP(6) LIMIT ?")
        .bind(limit)
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

/// Replaces the recovery codes of a user; none removes them.
pub async fn replace_recovery_codes(
    db: &mut MySqlConnection,
    user: UserId,
    hashes: &[[u8; 32]],
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = ?").bind(bytes(user)).execute(&mut *db).await?;
    for hash in hashes {
        sqlx::query("INSERT INTO recovery_codes (user_id, code_hash) VALUES (?, ?)")
            .bind(bytes(user))
            .bind(&hash[..])
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Uses a recovery code. `false`: it is none, or was used.
pub async fn consume_recovery_code(
    db: &mut MySqlConnection,
    user: UserId,
    hash: &[u8; 32],
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM recovery_codes WHERE user_id = ? AND code_hash = ?")
        .bind(bytes(user))
        .bind(&hash[..])
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}
