//! Each command on an account or a mandate against what it made and the event that told of it.

use std::collections::HashMap;

use domain::{
    command::BankCommand,
    event::{EventType, MandateView},
    fingerprint::Fingerprint,
    ids::{ChangeId, MandateId, PartnerId},
    payment::Reason,
    time::Timestamp,
    topic::Source,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{Run, by_key, distinct, position_key};
use crate::{
    Error, Invariant, Report,
    report::Row,
    state::Progress,
    store::{self, Account, COMMAND_PAGE, Change, Event, Mandate},
};

struct Referred {
    accounts: HashMap<Uuid, Account>,
    mandates: HashMap<Uuid, Mandate>,
    events: HashMap<(Uuid, u64), Event>,
    /// Ids that stand in `payments`, too.
    payments: HashMap<Uuid, u8>,
}

impl Run<'_> {
    /// Walks the changes of every partition up to its position. Comes after the payments, whose bounds it shares.
    pub(crate) async fn changes(&mut self) -> Result<(), Error> {
        for index in 0..self.snapshot.positions.len() {
            let position = &self.snapshot.positions[index];
            let (at, below) = ((position.source, position.partition), position.next_offset);
            let known = |it: &&Progress| (it.source, it.partition) == at;
            let mut from = self.before.partitions.iter().find(known).map_or(0, |it| it.next_offset);
            loop {
                let page = store::changes_page(self.pool, at, from, below).await?;
                self.report.read("changes", page.len());
                let referred = self.refer_changes(&page).await?;
                for change in &page {
                    check(&mut self.report, change, &referred, &mut self.after.partitions[index]);
                }
                match page.last() {
                    Some(last) if page.len() >= COMMAND_PAGE as usize && !self.report.is_full() => {
                        from = last.offset + 1;
                    }
                    _ => break,
                }
            }
            // Payments and changes of this partition are walked.
            self.after.partitions[index].next_offset = below;
        }
        Ok(())
    }

    async fn refer_changes(&mut self, page: &[Change]) -> Result<Referred, Error> {
        let targets = distinct(page.iter().map(|it| it.target));
        let ids = distinct(page.iter().map(|it| it.id));
        let events: Vec<_> = page.iter().filter_map(|it| it.partner.zip(it.event_sequence)).collect();
        Ok(Referred {
            accounts: by_key(store::accounts_by_id(self.pool, &targets).await?, |it| it.id),
            mandates: by_key(store::mandates_by_id(self.pool, &targets).await?, |it| it.id),
            events: by_key(store::events_at(self.pool, &events).await?, |it| (it.partner, it.sequence)),
            payments: store::payment_statuses(self.pool, &ids).await?.into_iter().collect(),
        })
    }
}

fn check(report: &mut Report, change: &Change, referred: &Referred, progress: &mut Progress) {
    progress.told += u64::from(change.event_sequence.is_some());
    let key = || {
        let at = position_key((change.source, change.partition, change.offset));
        format!("{} at {at}", ChangeId::from_uuid(change.id))
    };
    let row = Row { table: "changes", key: &key };
    let say = || (format!("source {}", Source::Bank.code()), change.source.to_string());
    report.hold(Invariant::I6, &row, change.source == Source::Bank.code(), say);
    let reason = change.reason.map(Reason::from_code);
    let say = || ("a known reason".to_owned(), format!("{:?}", change.reason));
    report.hold(Invariant::I6, &row, reason != Some(None), say);
    let elsewhere = referred.payments.contains_key(&change.id);
    let say = || ("an id of its own".to_owned(), "a payment with this id".to_owned());
    report.hold(Invariant::I4, &row, !elsewhere, say);

    let Ok(command) = serde_json::from_str::<BankCommand>(&change.command) else {
        let say = || ("the command as JSON".to_owned(), "another text".to_owned());
        report.hold(Invariant::I6, &row, false, say);
        return;
    };
    let Some(kind) = word(&command) else {
        let say = || ("a command on an account or a mandate".to_owned(), change.kind.clone());
        report.hold(Invariant::I6, &row, false, say);
        return;
    };
    let expected = (kind, command.kafka_key());
    report.expect(Invariant::I6, &row, "kind and target", &expected, &(&*change.kind, change.target));
    let fingerprint = Fingerprint::of(&[change.command.as_bytes()]);
    let same = fingerprint.as_bytes()[..] == change.fingerprint[..];
    report.hold(Invariant::I4, &row, same, || {
        ("the fingerprint of its command".to_owned(), "another fingerprint".to_owned())
    });
    let applied = change.reason.is_none();
    if applied {
        check_made(report, &row, &command, referred, progress);
    }
    check_event(report, &row, change, &command, applied, referred);
}

/// The word of a command that leaves a change.
fn word(command: &BankCommand) -> Option<&'static str> {
    match command {
        BankCommand::OpenAccount(_) => Some("open_account"),
        BankCommand::GrantMandate(_) => Some("grant_mandate"),
        BankCommand::RevokeMandate { .. } => Some("revoke_mandate"),
        BankCommand::FreezeAccount { .. } => Some("freeze_account"),
        BankCommand::UnfreezeAccount { .. } => Some("unfreeze_account"),
        BankCommand::Deposit(_) => None,
    }
}

/// What an applied command made is there, as it was asked for.
fn check_made(
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
            let expected = Some((kind.code(), owner, open.currency.code().to_owned()));
            let account = referred.accounts.get(&open.account.uuid());
            let found = account.map(|it| (it.owner_kind, it.owner_id, it.currency.clone()));
            report.expect(Invariant::I6, row, "an account with owner and currency", &expected, &found);
        }
        BankCommand::GrantMandate(grant) => {
            progress.granted += 1;
            let found = referred.mandates.get(&grant.mandate.uuid());
            let same = found.is_some_and(|it| {
                it.partner == grant.partner.uuid()
                    && it.account == grant.account.uuid()
                    && it.kind == grant.kind.code()
                    && it.currency == grant.currency.code()
                    && it.payment_max_minor == grant.payment_max_minor
                    && it.daily_max_minor == grant.daily_max_minor
                    && it.expires_at == grant.expires_at.map(Timestamp::micros)
                    && it.reference == grant.reference
            });
            let name = || format!("the mandate {} as granted", grant.mandate);
            report.hold(Invariant::I8, row, same, || (name(), format!("{found:?}")));
        }
        BankCommand::RevokeMandate { mandate } => {
            let there = referred.mandates.contains_key(&mandate.uuid());
            report.hold(Invariant::I6, row, there, || (format!("the mandate {mandate}"), "none".to_owned()));
        }
        BankCommand::FreezeAccount { account } | BankCommand::UnfreezeAccount { account } => {
            let there = referred.accounts.contains_key(&account.uuid());
            report.hold(Invariant::I6, row, there, || (format!("the account {account}"), "none".to_owned()));
        }
        BankCommand::Deposit(_) => {}
    }
}

fn check_event(
    report: &mut Report,
    row: &Row<'_>,
    change: &Change,
    command: &BankCommand,
    applied: bool,
    referred: &Referred,
) {
    #[derive(Deserialize)]
    struct Data {
        mandate: MandateView,
    }
    let told = match command {
        BankCommand::GrantMandate(grant) => Some((EventType::MandateActive, grant.mandate)),
        BankCommand::RevokeMandate { mandate } => Some((EventType::MandateRevoked, *mandate)),
        BankCommand::OpenAccount(_)
        | BankCommand::Deposit(_)
        | BankCommand::FreezeAccount { .. }
        | BankCommand::UnfreezeAccount { .. } => None,
    };
    let told = told.filter(|_| applied);
    let reference = change.partner.zip(change.event_sequence);
    let (Some((event_type, mandate)), Some((partner, sequence))) = (told, reference) else {
        let half = change.partner.is_some() != change.event_sequence.is_some();
        let fits = told.is_some() == reference.is_some() && !half;
        let say = || (format!("an event {told:?}"), format!("sequence {:?}", change.event_sequence));
        report.hold(Invariant::I9, row, fits, say);
        return;
    };
    let owner = referred.mandates.get(&mandate.uuid()).map(|it: &Mandate| it.partner);
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
    let told: Option<MandateId> = serde_json::from_str::<Data>(&event.data).ok().map(|data| data.mandate.id);
    report.expect(Invariant::I9, &row, "to tell of", &Some(mandate), &told);
}
