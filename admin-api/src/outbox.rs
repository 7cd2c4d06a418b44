//! Sends the mails that the outbox holds, after what they tell is committed.
//!
//! A row is claimed, its user looked up and a token drawn, the mail handed over, the row deleted. A crash in between
//! sends a mail again, never none. Tokens exist in the mail alone; the database has their hashes. A row whose
//! address nobody has, or for whom it is of no use any more, is deleted without a mail.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::UserId;
use domain::seal::SealError;
use sqlx::MySqlPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::mail::{LINK_MINUTES, MailError, Mailer};
use crate::metrics;
use crate::personal::{Email, Field, Person};
use crate::random::Token;
use crate::roles::UserStatus;
use crate::store::links::{self, NewAddress, Purpose};
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
        if let Some(letter) = self.letter(row).await? {
            let token = self.draw_token(row, &letter).await?;
            let text = token.as_ref().map(Token::text);
            self.mailer.send(row.id, letter.kind, &letter.to, &letter.name, text).await?;
            metrics::mail("sent");
        }
        Ok(self.forget(row).await?)
    }

    /// What the mail says, and to whom; nothing when it is of no use any more.
    async fn letter(&self, row: &MailRow) -> Result<Option<Letter>, SendError> {
        let owner = users::by_email(&self.pool, &row.email_index).await?;
        let Some((user, sealed)) = &row.other else {
            let owner = owner.filter(|user| match row.kind {
                MailKind::Registration => user.status == UserStatus::Registered,
                MailKind::Invitation => user.status == UserStatus::Registered && user.role.is_staff(),
                _ => user.status == UserStatus::Active,
            });
            return Ok(owner.map(|user| self.to_owner(row.kind, &user)).transpose()?.flatten());
        };
        let user = users::by_id(&self.pool, *user).await?.filter(|user| user.status == UserStatus::Active);
        let Some(user) = user else { return Ok(None) };
        if row.kind == MailKind::ConfirmEmail {
            let other = owner.filter(|owner| owner.id != user.id && owner.status != UserStatus::Registered);
            if let Some(owner) = other {
                let is_active = owner.status == UserStatus::Active;
                let letter = || self.to_owner(MailKind::EmailTaken, &owner);
                return Ok(is_active.then(letter).transpose()?.flatten());
            }
        }
        let Some(person) = self.person(&user)? else { return Ok(None) };
        let to = Email::parse(&person.open_text(Field::Email, sealed)?).map_err(SendError::Address)?;
        // Nobody knows yet who reads a new address: it is told no name.
        let name = if row.kind == MailKind::ConfirmEmail { String::new() } else { name(&person, &user)? };
        Ok(Some(Letter { kind: row.kind, user: user.id, to, name }))
    }

    fn to_owner(&self, kind: MailKind, user: &UserRow) -> Result<Option<Letter>, SendError> {
        let (Some(person), Some(sealed)) = (self.person(user)?, &user.email_sealed) else { return Ok(None) };
        let to = Email::parse(&person.open_text(Field::Email, sealed)?).map_err(SendError::Address)?;
        Ok(Some(Letter { kind, user: user.id, to, name: name(&person, user)? }))
    }

    fn person(&self, user: &UserRow) -> Result<Option<Person>, SealError> {
        user.data_key_sealed.as_deref().map(|key| self.personal.person(user.id, key)).transpose()
    }

    /// The token of the mail's link, valid from now on.
    async fn draw_token(&self, row: &MailRow, letter: &Letter) -> Result<Option<Token>, sqlx::Error> {
        let purpose = match letter.kind {
            MailKind::Registration => Purpose::Registration,
            MailKind::Reset => Purpose::Reset,
            MailKind::ConfirmEmail => Purpose::NewAddress,
            MailKind::Invitation => Purpose::Staff,
            MailKind::RegisteredAlready
            | MailKind::PasswordChanged
            | MailKind::SecondFactorChanged
            | MailKind::SessionEnded
            | MailKind::EmailTaken
            | MailKind::EmailChanged => return Ok(None),
        };
        let token = Token::draw();
        let mut transaction = self.pool.begin().await?;
        // A newer link is the only one that counts.
        links::delete_all(&mut transaction, letter.user).await?;
        match &row.other {
            Some((_, sealed)) => {
                let address = NewAddress { index: row.email_index, sealed: sealed.clone() };
                let hash = token.hash();
                links::insert_new_address(&mut transaction, &hash, letter.user, &address, LINK_MINUTES)
                    .await?;
            }
            None => {
                links::insert(&mut transaction, &token.hash(), letter.user, purpose, LINK_MINUTES).await?;
            }
        }
        transaction.commit().await?;
        Ok(Some(token))
    }

    async fn forget(&self, row: &MailRow) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        store::delete(&mut connection, row.id).await
    }
}

/// A mail that is of use.
struct Letter {
    kind: MailKind,
    /// Whose link it may carry.
    user: UserId,
    to: Email,
    name: String,
}

fn name(person: &Person, user: &UserRow) -> Result<String, SealError> {
    let opened = user.name_sealed.as_ref().map(|sealed| person.open_text(Field::Name, sealed)).transpose()?;
    Ok(opened.unwrap_or_default())
}
