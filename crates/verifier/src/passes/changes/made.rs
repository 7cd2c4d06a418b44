//! What an applied command made is there, as it was asked for.

use domain::{
    account::{AccountStatus, OwnerKind},
    command::{BankCommand, MandateTerms, PartnerCommand},
    ids::{AccountId, MandateId, sandbox_owner},
    mandate::{MandateKind, MandateStatus},
    money::Currency,
    time::Timestamp,
};

use super::{Command, Referred};
use crate::{Invariant, Report, report::Row, state::Progress, store::Mandate};

/// The terms of a mandate, wherever they were given.
struct Terms<'a> {
    kind: MandateKind,
    currency: Currency,
    payment_max_minor: Option<i64>,
    daily_max_minor: Option<i64>,
    expires_at: Option<Timestamp>,
    reference: Option<&'a str>,
}

impl Terms<'_> {
    fn are_of(&self, mandate: &Mandate) -> bool {
        mandate.kind == self.kind.code()
            && mandate.currency == self.currency.code()
            && mandate.payment_max_minor == self.payment_max_minor
            && mandate.daily_max_minor == self.daily_max_minor
            && mandate.expires_at == self.expires_at.map(Timestamp::micros)
            && mandate.reference.as_deref() == self.reference
    }
}

fn of(terms: &MandateTerms) -> Terms<'_> {
    Terms {
        kind: terms.kind,
        currency: terms.currency,
        payment_max_minor: terms.payment_max_minor,
        daily_max_minor: terms.daily_max_minor,
        expires_at: terms.expires_at,
        reference: terms.reference.as_deref(),
    }
}

pub(super) fn check(
    report: &mut Report,
    row: &Row<'_>,
    command: &Command,
    referred: &Referred,
    progress: &mut Progress,
) {
    match command {
        Command::Bank(command) => by_bank(report, row, command, referred, progress),
        Command::Partner(command) => by_partner(report, row, command, referred, progress),
    }
}

fn by_bank(
    report: &mut Report,
    row: &Row<'_>,
    command: &BankCommand,
    referred: &Referred,
    progress: &mut Progress,
) {
    match command {
        BankCommand::OpenAccount(open) => {
            progress.opened += 1;
            let (kind, owner) = open.owner.stored();
            let expected = Some((kind.code(), owner, open.currency.code()));
            let account = referred.accounts.get(&open.account.uuid());
            let found = account.map(|it| (it.owner_kind, it.owner_id, it.currency.as_str()));
            report.expect(Invariant::I6, row, "an account with owner and currency", &expected, &found);
        }
        BankCommand::FreezeAccount { account } | BankCommand::UnfreezeAccount { account } => {
            is_there(report, row, *account, referred);
        }
        BankCommand::SetLimits(set) => is_there(report, row, set.account, referred),
        BankCommand::CloseAccount { account } => {
            let found = referred.accounts.get(&account.uuid()).map(|it| it.status);
            let expected = Some(AccountStatus::Closed.code());
            report.expect(Invariant::I6, row, "an account closed for ever, status", &expected, &found);
        }
        BankCommand::SetSettlementAccount { partner, account } => {
            let expected = Some((OwnerKind::Partner.code(), partner.uuid()));
            let found = referred.accounts.get(&account.uuid()).map(|it| (it.owner_kind, it.owner_id));
            report.expect(Invariant::I6, row, "an account of the partner", &expected, &found);
        }
        BankCommand::GrantMandate(grant) => {
            progress.granted += 1;
            let found = referred.mandates.get(&grant.mandate.uuid());
            let terms = Terms {
                kind: grant.kind,
                currency: grant.currency,
                payment_max_minor: grant.payment_max_minor,
                daily_max_minor: grant.daily_max_minor,
                expires_at: grant.expires_at,
                reference: grant.reference.as_deref(),
            };
            let same = found.is_some_and(|it| {
                let parties = (it.partner, it.account) == (grant.partner.uuid(), Some(grant.account.uuid()));
                parties && terms.are_of(it)
            });
            let name = || format!("the mandate {} as granted", grant.mandate);
            report.hold(Invariant::I8, row, same, || (name(), format!("{found:?}")));
        }
        BankCommand::RevokeMandate { mandate } => {
            ended(report, row, *mandate, MandateStatus::Revoked, referred);
        }
        BankCommand::DeclineMandate { partner, terms } => {
            progress.granted += 1;
            ended(report, row, terms.mandate, MandateStatus::Declined, referred);
            let found = referred.mandates.get(&terms.mandate.uuid());
            let same = found
                .is_some_and(|it| (it.partner, it.account) == (partner.uuid(), None) && of(terms).are_of(it));
            let name = || format!("the mandate {} as asked for, without an account", terms.mandate);
            report.hold(Invariant::I8, row, same, || (name(), format!("{found:?}")));
        }
        // What the first two apply or give up is checked with its own rows, and the letters with theirs. The others
        // leave payments, and the row was named before.
        BankCommand::RedriveDeadLetters { .. }
        | BankCommand::RejectDeadLetter(_)
        | BankCommand::Deposit(_)
        | BankCommand::Withdrawal(_)
        | BankCommand::Transfer(_)
        | BankCommand::Reversal(_) => {}
    }
}

fn by_partner(
    report: &mut Report,
    row: &Row<'_>,
    command: &PartnerCommand,
    referred: &Referred,
    progress: &mut Progress,
) {
    match command {
        PartnerCommand::CancelMandate(terms) => {
            end_of_request(report, row, terms, MandateStatus::Revoked, referred, progress);
        }
        PartnerCommand::ExpireMandate(terms) => {
            end_of_request(report, row, terms, MandateStatus::Expired, referred, progress);
        }
        PartnerCommand::SandboxMandate(sandbox) => {
            progress.opened += 1;
            progress.granted += 1;
            let owner = (OwnerKind::Customer.code(), sandbox_owner().uuid());
            let expected = Some((owner, sandbox.terms.currency.code()));
            let account = referred.accounts.get(&sandbox.account.uuid());
            let found = account.map(|it| ((it.owner_kind, it.owner_id), it.currency.as_str()));
            report.expect(Invariant::I6, row, "a test account with owner and currency", &expected, &found);
            let found = referred.mandates.get(&sandbox.terms.mandate.uuid());
            let same = found.is_some_and(|it| {
                it.account == Some(sandbox.account.uuid()) && of(&sandbox.terms).are_of(it)
            });
            let name = || format!("the mandate {} as asked for", sandbox.terms.mandate);
            report.hold(Invariant::I8, row, same, || (name(), format!("{found:?}")));
        }
        // These leave payments; the row was named before.
        PartnerCommand::Payment(_)
        | PartnerCommand::Capture(_)
        | PartnerCommand::Void(_)
        | PartnerCommand::Refund(_)
        | PartnerCommand::Transfer(_)
        | PartnerCommand::Expire => {}
    }
}

/// A partner's command that ends a mandate, or makes it in its last status when it was never granted.
fn end_of_request(
    report: &mut Report,
    row: &Row<'_>,
    terms: &MandateTerms,
    status: MandateStatus,
    referred: &Referred,
    progress: &mut Progress,
) {
    ended(report, row, terms.mandate, status, referred);
    let Some(mandate) = referred.mandates.get(&terms.mandate.uuid()) else { return };
    if mandate.account.is_none() {
        progress.granted += 1;
        let name = || format!("the mandate {} as asked for", terms.mandate);
        report.hold(Invariant::I8, row, of(terms).are_of(mandate), || (name(), format!("{mandate:?}")));
    }
}

/// The mandate is in this status, which it never leaves.
fn ended(report: &mut Report, row: &Row<'_>, mandate: MandateId, status: MandateStatus, referred: &Referred) {
    let found = referred.mandates.get(&mandate.uuid()).map(|it| MandateStatus::from_code(it.status));
    let say = || (format!("the mandate {mandate}, {status} for ever"), format!("{found:?}"));
    report.hold(Invariant::I6, row, found == Some(Some(status)), say);
}

fn is_there(report: &mut Report, row: &Row<'_>, account: AccountId, referred: &Referred) {
    let there = referred.accounts.contains_key(&account.uuid());
    report.hold(Invariant::I6, row, there, || (format!("the account {account}"), "none".to_owned()));
}
