//! The outbox of mails.

use sqlx::mysql::MySqlConnection;
use sqlx::{MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::Columns;
use crate::personal::Index;

/// What a mail tells, as `mails.kind` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MailKind {
    /// Complete your registration.
    Registration = 1,
    /// You are registered already.
    RegisteredAlready = 2,
    /// Set a new password.
    Reset = 3,
    /// Your password was changed.
    PasswordChanged = 4,
    /// Your second factor was changed.
    SecondFactorChanged = 5,
    /// A session was ended because its token was seen twice.
    SessionEnded = 6,
}

impl MailKind {
    fn from_number(number: u8) -> Option<Self> {
        use MailKind::{
            PasswordChanged, RegisteredAlready, Registration, Reset, SecondFactorChanged, SessionEnded,
        };
        [Registration, RegisteredAlready, Reset, PasswordChanged, SecondFactorChanged, SessionEnded]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// A mail to send.
#[derive(Debug, Clone)]
pub struct MailRow {
    /// Its id; also that of the message, so that a repeat is recognised.
    pub id: Uuid,
    /// To whom.
    pub email_index: Index,
    /// What.
    pub kind: MailKind,
    /// How often it was tried.
    pub attempts: u8,
}

/// A mail to whoever has this address, if anybody has.
pub async fn insert(db: impl MySqlExecutor<'_>, email: &Index, kind: MailKind) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO mails (id, email_index, kind, created_at, due_at, attempts) \
         VALUES (?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 0)",
    )
    .bind(&Uuid::now_v7().as_bytes()[..])
    .bind(&email[..])
    .bind(kind as u8)
    .execute(db)
    .await
    .map(drop)
}

/// Takes the mails that are due, at most so many; nobody else gets them for `lease_s` seconds.
pub async fn claim(pool: &MySqlPool, limit: u32, lease_s: u32) -> Result<Vec<MailRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, email_index, kind, attempts FROM mails WHERE due_at <= UTC_TIMESTAMP(6) ORDER BY due_at LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::new(row);
        let (id, email) = (columns.uuid()?, columns.take::<Vec<u8>>()?);
        let kind = columns.named(MailKind::from_number)?;
        let attempts: u8 = columns.take()?;
        // Whoever counts up first has it.
        let done = sqlx::query(
            "UPDATE mails SET attempts = attempts + 1, due_at = UTC_TIMESTAMP(6) + INTERVAL ? SECOND \
             WHERE id = ? AND attempts = ?",
        )
        .bind(lease_s)
        .bind(&id.as_bytes()[..])
        .bind(attempts)
        .execute(pool)
        .await?;
        if done.rows_affected() == 1 {
            let email_index =
                email.try_into().map_err(|_| sqlx::Error::Decode("email_index is no HMAC".into()))?;
            claimed.push(MailRow { id, email_index, kind, attempts });
        }
    }
    Ok(claimed)
}

/// The mail is sent, or there is nobody to send it to.
pub async fn delete(db: &mut MySqlConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM mails WHERE id = ?").bind(&id.as_bytes()[..]).execute(db).await.map(drop)
}

/// Tries again in so many seconds.
pub async fn postpone(pool: &MySqlPool, id: Uuid, seconds: u32) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE mails SET due_at = UTC_TIMESTAMP(6) + INTERVAL ? SECOND WHERE id = ?")
        .bind(seconds)
        .bind(&id.as_bytes()[..])
        .execute(pool)
        .await
        .map(drop)
}
