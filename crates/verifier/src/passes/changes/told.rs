//! I9: what was told of a mandate is what the command made of it.

use domain::{
    command::{BankCommand, PartnerCommand, SandboxState},
    event::{EventType, MandateView},
    ids::{MandateId, PartnerId},
    mandate::{MandateKind, MandateStatus},
    money::{Currency, decimal_text},
    time::Timestamp,
};
use serde::Deserialize;

use super::{Command, Referred};
use crate::{
    Invariant, Report,
    report::Row,
    store::{Change, Mandate},
};

/// What an applied command tells: the event, the mandate, and the status it tells.
fn told(command: &Command) -> Option<(EventType, MandateId, MandateStatus)> {
    let revoked = |mandate| Some((EventType::MandateRevoked, mandate, MandateStatus::Revoked));
    match command {
        Command::Bank(command) => match command {
            BankCommand::GrantMandate(grant) => {
                Some((EventType::MandateActive, grant.mandate, MandateStatus::Active))
            }
            BankCommand::RevokeMandate { mandate } => revoked(*mandate),
            BankCommand::DeclineMandate { terms, .. } => {
                Some((EventType::MandateDeclined, terms.mandate, MandateStatus::Declined))
            }
            BankCommand::OpenAccount(_)
            | BankCommand::Deposit(_)
            | BankCommand::Withdrawal(_)
            | BankCommand::Transfer(_)
            | BankCommand::Reversal(_)
            | BankCommand::FreezeAccount { .. }
            | BankCommand::UnfreezeAccount { .. }
            | BankCommand::CloseAccount { .. }
            | BankCommand::SetLimits(_)
            | BankCommand::SetSettlementAccount { .. }
            | BankCommand::RedriveDeadLetters { .. }
            | BankCommand::RejectDeadLetter(_) => None,
        },
        Command::Partner(command) => match command {
            PartnerCommand::CancelMandate(terms) => revoked(terms.mandate),
            PartnerCommand::ExpireMandate(terms) => {
                Some((EventType::MandateExpired, terms.mandate, MandateStatus::Expired))
            }
            PartnerCommand::SandboxMandate(sandbox) => {
                let mandate = sandbox.terms.mandate;
                match sandbox.state {
                    SandboxState::Active | SandboxState::AccountFrozen | SandboxState::AccountClosed => {
                        Some((EventType::MandateActive, mandate, MandateStatus::Active))
                    }
                    SandboxState::Used => Some((EventType::MandateActive, mandate, MandateStatus::Used)),
                    SandboxState::Revoked => revoked(mandate),
                    SandboxState::Expired => {
                        Some((EventType::MandateExpired, mandate, MandateStatus::Expired))
                    }
                }
            }
            PartnerCommand::Payment(_)
            | PartnerCommand::Capture(_)
            | PartnerCommand::Void(_)
            | PartnerCommand::Refund(_)
            | PartnerCommand::Transfer(_)
            | PartnerCommand::Expire => None,
        },
    }
}

pub(super) fn check(
    report: &mut Report,
    row: &Row<'_>,
    change: &Change,
    command: &Command,
    referred: &Referred,
) {
    #[derive(Deserialize)]
    struct Data {
        mandate: MandateView,
    }
    let told = told(command).filter(|_| change.reason.is_none());
    let reference = change.partner.zip(change.event_sequence);
    let (Some((event_type, mandate, status)), Some((partner, sequence))) = (told, reference) else {
        let none = change.partner.is_none() && change.event_sequence.is_none();
        let say = || (format!("an event {told:?}"), format!("sequence {:?}", change.event_sequence));
        report.hold(Invariant::I9, row, told.is_none() && none, say);
        return;
    };
    let stored = referred.mandates.get(&mandate.uuid());
    let owner = stored.map(|it| it.partner);
    report.expect(Invariant::I9, row, "the mandate's partner", &owner, &Some(partner));
    let Some(event) = referred.events.get(&(partner, sequence)) else {
        let name = format!("event {sequence} of {}", PartnerId::from_uuid(partner));
        report.hold(Invariant::I9, row, false, || (name, "no such event".to_owned()));
        return;
    };
    let key = || format!("{} sequence {sequence}", PartnerId::from_uuid(partner));
    let row = Row { table: "events", key: &key };
    let expected = (event_type.code(), change.decided_at);
    report.expect(Invariant::I9, &row, "type and time", &expected, &(event.kind, event.occurred_at));
    let told = serde_json::from_str::<Data>(&event.data).ok().map(|data| data.mandate);
    let view = stored.and_then(|it| view(it, status));
    let say = || (format!("the mandate {mandate}, {status}, as it is stored"), "another text".to_owned());
    report.hold(Invariant::I9, &row, view.is_some() && told == view, say);
}

/// The mandate as its partner sees it; only its status changes.
fn view(mandate: &Mandate, status: MandateStatus) -> Option<MandateView> {
    let currency: Currency = mandate.currency.parse().ok()?;
    let text = |minor: Option<i64>| minor.map(|minor| decimal_text(minor, currency));
    Some(MandateView {
        id: MandateId::from_uuid(mandate.id),
        kind: MandateKind::from_code(mandate.kind)?,
        status,
        currency,
        per_payment_max: text(mandate.payment_max_minor),
        daily_cap: text(mandate.daily_max_minor),
        expires_at: mandate.expires_at.map(Timestamp::from_micros),
        reference: mandate.reference.clone(),
    })
}
