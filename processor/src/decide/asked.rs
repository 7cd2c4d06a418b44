//! What a command asked for and who asked, as the rows begin that tell what became of it.

use domain::command::{BankCommand, BankEnvelope, FollowUp, Part, PartnerCommand, PartnerEnvelope};
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::money::{Amount, Currency};
use domain::payment::{Metadata, PaymentKind, PaymentStatus, Reason};
use uuid::Uuid;

use super::effects::{Asked, ChangeRow, Origin};
use super::{Fold, Payment, Told, json};
use crate::item::Item;

/// What of a command stands in its payment, whoever asked.
struct Facts {
    kind: PaymentKind,
    root: PaymentId,
    partner: Option<PartnerId>,
    livemode: bool,
    mandate: Option<MandateId>,
    amount: Option<Amount>,
    accounts: Option<[AccountId; 2]>,
    reference: Option<String>,
    description: Option<String>,
    metadata: Metadata,
}

impl Fold {
    /// A partner's payment that is not decided yet, as rejected.
    pub(super) fn asked_by_partner(&self, item: &Item, envelope: &PartnerEnvelope) -> (Payment, Asked) {
        let facts = Facts {
            root: envelope.root,
            partner: Some(envelope.partner),
            livemode: self.view.partners.get(&envelope.partner).is_some_and(|partner| partner.livemode),
            ..Facts::of_partner(&envelope.command)
        };
        let asked = Asked {
            payment: envelope.id,
            fingerprint: envelope.fingerprint,
            origin: partner_origin(envelope),
            idempotency_key: Some(envelope.idempotency_key.clone()),
            event_sequence: None,
            told: None,
        };
        (self.undecided(item, envelope.id, facts), asked)
    }

    /// A payment of the bank that is not decided yet, as rejected.
    pub(super) fn asked_by_bank(
        &self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
    ) -> (Payment, Asked) {
        let id = PaymentId::from_uuid(envelope.id);
        let asked = Asked {
            payment: id,
            fingerprint,
            origin: bank_origin(envelope),
            idempotency_key: None,
            event_sequence: None,
            told: None,
        };
        (self.undecided(item, id, Facts::of_bank(id, &envelope.command)), asked)
    }

    fn undecided(&self, item: &Item, id: PaymentId, facts: Facts) -> Payment {
        Payment {
            position: item.position,
            id,
            root: facts.root,
            kind: facts.kind,
            status: PaymentStatus::Rejected,
            reason: None,
            version: 1,
            partner: facts.partner,
            mandate: facts.mandate,
            amount: facts.amount,
            captured_minor: 0,
            refunded_minor: 0,
            accounts: facts.accounts,
            versions: None,
            livemode: facts.livemode,
            reference: facts.reference,
            description: facts.description,
            metadata: facts.metadata,
            accepted_at: item.accepted_at,
            decided_at: self.decided_at,
            expires_at: None,
        }
    }

    /// Records what became of a partner's command on a mandate.
    pub(super) fn partner_change(
        &mut self,
        item: &Item,
        envelope: &PartnerEnvelope,
        id: Uuid,
        outcome: Result<Told, Reason>,
    ) {
        let target = match &envelope.command {
            PartnerCommand::CancelMandate(terms) | PartnerCommand::ExpireMandate(terms) => {
                terms.mandate.uuid()
            }
            PartnerCommand::SandboxMandate(sandbox) => sandbox.terms.mandate.uuid(),
            // These leave payments.
            PartnerCommand::Payment(_)
            | PartnerCommand::Capture(_)
            | PartnerCommand::Void(_)
            | PartnerCommand::Refund(_)
            | PartnerCommand::Transfer(_)
            | PartnerCommand::Expire => envelope.root.uuid(),
        };
        self.record_change(ChangeRow {
            position: item.position,
            id,
            kind: envelope.command.word(),
            reason: outcome.err(),
            target,
            told: outcome.unwrap_or_default(),
            fingerprint: envelope.fingerprint,
            command: json(&envelope.command),
            origin: Origin { reason: Some("asked by the partner".to_owned()), ..partner_origin(envelope) },
            accepted_at: item.accepted_at,
            decided_at: self.decided_at,
        });
    }

    /// Records what became of a bank's command that moves no money.
    pub(super) fn bank_change(
        &mut self,
        item: &Item,
        envelope: &BankEnvelope,
        fingerprint: Fingerprint,
        id: Uuid,
        outcome: Result<Told, Reason>,
    ) {
        self.record_change(ChangeRow {
            position: item.position,
            id,
            kind: envelope.command.word(),
            reason: outcome.err(),
            target: envelope.command.kafka_key(),
            told: outcome.unwrap_or_default(),
            fingerprint,
            command: json(&envelope.command),
            origin: bank_origin(envelope),
            accepted_at: item.accepted_at,
            decided_at: self.decided_at,
        });
    }
}

impl Facts {
    fn of(kind: PaymentKind) -> Self {
        Self {
            kind,
            root: PaymentId::from_uuid(Uuid::nil()),
            partner: None,
            livemode: true,
            mandate: None,
            amount: None,
            accounts: None,
            reference: None,
            description: None,
            metadata: Metadata::new(),
        }
    }

    fn of_partner(command: &PartnerCommand) -> Self {
        match command {
            PartnerCommand::Payment(command) => Self {
                mandate: Some(command.mandate),
                amount: amount(command.amount_minor, command.currency),
                reference: command.reference.clone(),
                description: command.description.clone(),
                metadata: command.metadata.clone(),
                ..Self::of(PaymentKind::Payment)
            },
            PartnerCommand::Capture(command) => Self::of_follow_up(PaymentKind::Capture, command),
            PartnerCommand::Void(command) => Self::of_follow_up(PaymentKind::Void, command),
            PartnerCommand::Refund(command) => Self::of_follow_up(PaymentKind::Refund, command),
            PartnerCommand::Transfer(command) => Self {
                amount: amount(command.amount_minor, command.currency),
                accounts: Some([command.from, command.to]),
                reference: command.reference.clone(),
                description: command.description.clone(),
                metadata: command.metadata.clone(),
                ..Self::of(PaymentKind::Transfer)
            },
            PartnerCommand::SandboxMandate(sandbox) => Self {
                amount: amount(sandbox.balance_minor, sandbox.terms.currency),
                ..Self::of(PaymentKind::Deposit)
            },
            // The other two leave changes.
            PartnerCommand::Expire | PartnerCommand::CancelMandate(_) | PartnerCommand::ExpireMandate(_) => {
                Self::of(PaymentKind::Expire)
            }
        }
    }

    fn of_follow_up(kind: PaymentKind, command: &FollowUp) -> Self {
        Self {
            amount: command.part.and_then(amount_of),
            reference: command.reference.clone(),
            description: command.description.clone(),
            metadata: command.metadata.clone(),
            ..Self::of(kind)
        }
    }

    fn of_bank(id: PaymentId, command: &BankCommand) -> Self {
        let own_root = |kind| Self { root: id, ..Self::of(kind) };
        match command {
            BankCommand::Withdrawal(command) => Self {
                amount: amount(command.amount_minor, command.currency),
                reference: command.reference.clone(),
                ..own_root(PaymentKind::Withdrawal)
            },
            BankCommand::Transfer(command) => Self {
                amount: amount(command.amount_minor, command.currency),
                accounts: Some([command.from, command.to]),
                description: command.description.clone(),
                ..own_root(PaymentKind::Transfer)
            },
            BankCommand::Reversal(command) => Self {
                root: command.payment,
                amount: command.part.and_then(amount_of),
                ..Self::of(PaymentKind::Reversal)
            },
            BankCommand::Deposit(command) => Self {
                amount: amount(command.amount_minor, command.currency),
                reference: command.reference.clone(),
                ..own_root(PaymentKind::Deposit)
            },
            // The others leave changes.
            _ => own_root(PaymentKind::Deposit),
        }
    }
}

/// The amount of a command. `None` cannot be, since decoding checks it.
pub(super) fn amount(minor: i64, currency: Currency) -> Option<Amount> {
    Amount::new(minor, currency).ok()
}

/// The same of a part.
pub(super) fn amount_of(part: Part) -> Option<Amount> {
    amount(part.amount_minor, part.currency)
}

fn partner_origin(envelope: &PartnerEnvelope) -> Origin {
    Origin {
        actor: envelope.key.uuid(),
        reason: None,
        request_id: envelope.request_id,
        address: envelope.address,
    }
}

fn bank_origin(envelope: &BankEnvelope) -> Origin {
    Origin {
        actor: envelope.actor.uuid(),
        reason: Some(envelope.reason.clone()),
        request_id: envelope.request_id,
        address: envelope.address,
    }
}
