//! Sends the mails that the outbox holds, after what they tell is committed.
//!
//! A row is claimed, its user looked up and a token drawn, the mail handed over, the row deleted. A crash in between
//! sends a mail again, never none. Tokens exist in the mail alone; the database has their hashes. A row whose
//! address nobody has, or for whom it is of no use any more, is deleted without a mail.

use std::sync::Arc;
use std::time::Duration;

use domain::seal::SealError;
use sqlx::MySqlPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::mail::{LINK_MINUTES, MailError, Mailer};
use crate::metrics;
use crate::personal::{Email, Field};
use crate::random::Token;
use crate::roles::UserStatus;
use crate::store::links::{self, Purpose};
use crate::store::mails::{self as store, MailKind, MailRow};
use crate::store::users::{self, UserRow};

/// Between two looks when nobody rings.
const INTERVAL: Duration = Duration::from_secs(1);
/// Mails of one look.
const BATCH: u32 = 20;
/// Seconds for which nobody else tries a claimed batch; longer than sending one may take.
const LEASE_S: u32 = 600;
/// Tries of one mail: with pauses that double from 10 s to an hour, about 5 hours.
const ATTEMPTS_MAX: u8 = 14;
const PAUSE_MAX_S: u32 = 3_600;

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error("the stored address is none: {0}")]
    Address(&'static str),
}

/// The sender of mails.
pub struct Outbox {
    /// The service's own tables.
    pub pool: MySqlPool,
    /// Opens addresses and names.
    pub personal: crate::personal::Keys,
    /// The way out.
    pub mailer: Mailer,
    /// Rings when there is a mail.
    pub waits: Arc<Notify>,
}

impl Outbox {
    /// Sends until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let sent = match store::claim(&self.pool, BATCH, LEASE_S).await {
                Ok(rows) => self.send_all(rows, &shutdown).await,
                Err(error) => {
                    tracing::warn!(error = %error, "mails cannot be read");
                    0
                }
            };
            if sent < BATCH as usize {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.waits.notified() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        }
    }

    async fn send_all(&self, rows: Vec<MailRow>, shutdown: &CancellationToken) -> usize {
        let count = rows.len();
        for row in rows {
            if shutdown.is_cancelled() {
                // Not tried: somebody else may at once.
                let _ = store::postpone(&self.pool, row.id, 0).await;
                continue;
            }
            let Err(error) = self.send(&row).await else { continue };
            metrics::mail("failed");
            if let SendError::Mail(MailError::Refused(_)) = &error {
                // Nobody at the bank can do anything about a mailbox that does not exist.
                tracing::warn!(mail.id = %row.id, error = %error, "a mail is refused for good");
                metrics::mail("given_up");
                let _ = self.forget(&row).await;
            } else if row.attempts >= ATTEMPTS_MAX {
                tracing::error!(mail.id = %row.id, error = %error, "a mail is given up");
                metrics::mail("given_up");
                let _ = self.forget(&row).await;
            } else {
                tracing::warn!(mail.id = %row.id, error = %error, "a mail was not sent");
                let pause = 10_u32.saturating_mul(1 << row.attempts.min(20)).min(PAUSE_MAX_S);
                // If this fails, the lease ends by itself.
                let _ = store::postpone(&self.pool, row.id, pause).await;
            }
        }
        count
    }

    async fn send(&self, row: &MailRow) -> Result<(), SendError> {
        let user = users::by_email(&self.pool, &row.email_index).await?;
        let Some((user, data_key)) =
            user.and_then(|user| user.data_key_sealed.clone().map(|key| (user, key)))
        else {
            return Ok(self.forget(row).await?);
        };
        let is_of_use = match row.kind {
            MailKind::Registration => user.status == UserStatus::Registered,
            MailKind::RegisteredAlready
            | MailKind::Reset
            | MailKind::PasswordChanged
            | MailKind::SecondFactorChanged
            | MailKind::SessionEnded => user.status == UserStatus::Active,
        };
        if !is_of_use {
            return Ok(self.forget(row).await?);
        }
        let person = self.personal.person(user.id, &data_key)?;
        let open = |field, sealed: &Option<Vec<u8>>| {
            sealed.as_ref().map(|sealed| person.open_text(field, sealed)).transpose()
        };
        let email = open(Field::Email, &user.email_sealed)?.unwrap_or_default();
        let email = Email::parse(&email).map_err(SendError::Address)?;
        let name = open(Field::Name, &user.name_sealed)?.unwrap_or_default();
        let token = self.draw_token(row, &user).await?;
        self.mailer.send(row.id, row.kind, &email, &name, token.as_ref().map(Token::text)).await?;
        metrics::mail("sent");
        Ok(self.forget(row).await?)
    }

    /// The token of the mail's link, valid from now on.
    async fn draw_token(&self, row: &MailRow, user: &UserRow) -> Result<Option<Token>, sqlx::Error> {
        let purpose = match row.kind {
            MailKind::Registration => Purpose::Registration,
            MailKind::Reset => Purpose::Reset,
            MailKind::RegisteredAlready
            | MailKind::PasswordChanged
            | MailKind::SecondFactorChanged
            | MailKind::SessionEnded => return Ok(None),
        };
        let token = Token::draw();
        let mut transaction = self.pool.begin().await?;
        // A newer link is the only one that counts.
        links::delete_all(&mut transaction, user.id).await?;
        links::insert(&mut transaction, &token.hash(), user.id, purpose, LINK_MINUTES).await?;
        transaction.commit().await?;
        Ok(Some(token))
    }

    async fn forget(&self, row: &MailRow) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        store::delete(&mut connection, row.id).await
    }
}
