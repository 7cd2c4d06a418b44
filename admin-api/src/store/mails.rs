//! The outbox of mails.

use domain::ids::UserId;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::{Columns, bytes};
use crate::personal::Index;
use crate::store::links::NewAddress;

/// What a mail tells, as `mails.kind` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Prove that this new address is yours.
    ConfirmEmail = 7,
    /// Somebody else wanted this address, which is yours; told in place of the above.
    EmailTaken = 8,
    /// Your address was changed; to the old one.
    EmailChanged = 9,
    /// You are invited to the staff.
    Invitation = 10,
}

impl MailKind {
    fn from_number(number: u8) -> Option<Self> {
        use MailKind::{
            ConfirmEmail, EmailChanged, EmailTaken, Invitation, PasswordChanged, RegisteredAlready,
            Registration, Reset, SecondFactorChanged, SessionEnded,
        };
        [
            Registration,
            RegisteredAlready,
            Reset,
            PasswordChanged,
            SecondFactorChanged,
            SessionEnded,
            ConfirmEmail,
            EmailTaken,
            EmailChanged,
            Invitation,
        ]
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
    /// Whose new or old address that is, sealed, when it is not that of the user who has it.
    pub other: Option<(UserId, Vec<u8>)>,
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

/// A mail to an address that is not, or not any more, the user's.
pub async fn insert_to(
    db: &mut MySqlConnection,
    user: UserId,
    to: &NewAddress,
    kind: MailKind,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO mails (id, email_index, kind, created_at, due_at, attempts, user_id, email_sealed) \
         VALUES (?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 0, ?, ?)",
    )
    .bind(&Uuid::now_v7().as_bytes()[..])
    .bind(&to.index[..])
    .bind(kind as u8)
    .bind(bytes(user))
    .bind(&to.sealed)
    .execute(db)
    .await
    .map(drop)
}

/// Takes the mails that are due, at most so many; nobody else gets them for `lease_s` seconds.
pub async fn claim(pool: &MySqlPool, limit: u32, lease_s: u32) -> Result<Vec<MailRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, email_index, kind, attempts, user_id, email_sealed FROM mails \
         WHERE due_at <= UTC_TIMESTAMP(6) ORDER BY due_at LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::new(row);
        let (id, email_index) = (columns.uuid()?, columns.index()?);
        let kind = columns.named(MailKind::from_number)?;
        let attempts: u8 = columns.take()?;
        let user = columns.opt_uuid()?.map(UserId::from_uuid);
        let other = user.zip(columns.take::<Option<Vec<u8>>>()?);
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
            claimed.push(MailRow { id, email_index, other, kind, attempts });
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
