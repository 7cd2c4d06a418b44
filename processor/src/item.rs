//! A record of a command topic, read once and decided as often as its transaction is tried.

use domain::command::{BankCommand, BankEnvelope, PartnerCommand, PartnerEnvelope};
use domain::fingerprint::Fingerprint;
use domain::time::{Day, Timestamp};
use domain::topic::{Position, Source};
use uuid::Uuid;

/// A record with its place, its time and what it says.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it stands.
    pub position: Position,
    /// When the broker appended it.
    pub accepted_at: Timestamp,
    /// The bank's day of that.
    pub accepted_day: Day,
    /// The record's key, as it came.
    pub key: Option<Vec<u8>>,
    /// The record's value, as it came.
    pub value: Vec<u8>,
    /// What it says.
    pub content: Content,
    /// Why it cannot be applied although it could be read: found by bisecting a failed batch.
    pub data_error: Option<String>,
}

/// What a record says.
#[derive(Debug, Clone)]
pub enum Content {
    /// A partner's command.
    Partner(PartnerEnvelope),
    /// A bank's command, with its fingerprint.
    Bank(BankEnvelope, Fingerprint),
    /// Nothing that can be read, and why.
    Undecodable(String),
}

impl Item {
    /// Reads a record.
    pub fn read(
        position: Position,
        accepted_at: Timestamp,
        accepted_day: Day,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        let value = value.unwrap_or_default();
        let content = match position.source {
            Source::Partner => PartnerEnvelope::decode(value).map(Content::Partner),
            Source::Bank => BankEnvelope::decode(value).map(|envelope| {
                let fingerprint = envelope.fingerprint();
                Content::Bank(envelope, fingerprint)
            }),
        };
        Self {
            position,
            accepted_at,
            accepted_day,
            key: key.map(<[u8]>::to_vec),
            value: value.to_vec(),
            content: content.unwrap_or_else(|error| Content::Undecodable(error.to_string())),
            data_error: None,
        }
    }

    /// The payment or change it asks for.
    pub fn id(&self) -> Option<Uuid> {
        match &self.content {
            Content::Partner(envelope) => Some(envelope.id.uuid()),
            Content::Bank(envelope, _) => Some(envelope.id),
            Content::Undecodable(_) => None,
        }
    }

    /// What was asked.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match &self.content {
            Content::Partner(envelope) => Some(envelope.fingerprint),
            Content::Bank(_, fingerprint) => Some(*fingerprint),
            Content::Undecodable(_) => None,
        }
    }

    /// What it is keyed by: records with the same root stay in order.
    pub fn root(&self) -> Option<Uuid> {
        self.key.as_deref().and_then(|key| Uuid::from_slice(key).ok())
    }

    /// Whether it is a command about dead letters.
    pub fn deals_with_dead_letters(&self) -> bool {
        match &self.content {
            Content::Bank(envelope, _) => matches!(
                envelope.command,
                BankCommand::RedriveDeadLetters { .. } | BankCommand::RejectDeadLetter(_)
            ),
            Content::Partner(_) | Content::Undecodable(_) => false,
        }
    }

    /// Whether the processor itself asks for it, again and again until it is done: it need not wait anywhere.
    pub fn comes_again(&self) -> bool {
        match &self.content {
            Content::Partner(envelope) => {
                matches!(envelope.command, PartnerCommand::Expire | PartnerCommand::ExpireMandate(_))
            }
            Content::Bank(..) | Content::Undecodable(_) => false,
        }
    }

    /// Bank commands come first, so that a revocation or a freeze accepted with a payment wins; then by place.
    pub fn fold_order(&self) -> (bool, i32, i64) {
        (self.position.source == Source::Partner, self.position.partition, self.position.offset)
    }
}
