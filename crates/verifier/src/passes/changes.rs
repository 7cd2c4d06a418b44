//! Each command on an account, a mandate or dead letters against what it made and the event that told of it.

mod made;
mod told;

use std::collections::{HashMap, HashSet};

use domain::{
    command::{BankCommand, PartnerCommand},
    fingerprint::Fingerprint,
    ids::{ChangeId, MandateId, PartnerId, PaymentId, conflict_id, mandate_end_id},
    payment::{PaymentKind, Reason},
    topic::Source,
};
use uuid::Uuid;

use super::{Run, by_key, distinct, position_key};
use crate::{
    Error, Invariant, Report,
    report::Row,
    state::Progress,
    store::{self, Account, COMMAND_PAGE, Change, Event, Mandate},
};

/// What the rows of a page refer to.
struct Referred {
    accounts: HashMap<Uuid, Account>,
    mandates: HashMap<Uuid, Mandate>,
    events: HashMap<(Uuid, u64), Event>,
    /// Ids that stand in `payments`, too, and their kinds.
    payments: HashMap<Uuid, u8>,
}

/// A command that leaves a change.
enum Command {
    Bank(BankCommand),
    Partner(PartnerCommand),
}

impl Command {
    fn read(change: &Change) -> Option<Self> {
        match Source::from_code(change.source)? {
            Source::Bank => serde_json::from_str(&change.command).ok().map(Self::Bank),
            Source::Partner => serde_json::from_str(&change.command).ok().map(Self::Partner),
        }
    }

    /// Word and target, as the row must name them.
    fn names(&self) -> Option<(&'static str, Uuid)> {
        match self {
            Self::Bank(command) => (!command.moves_money()).then(|| (command.word(), command.kafka_key())),
            Self::Partner(command) => mandate_of(command).map(|mandate| (command.word(), mandate.uuid())),
        }
    }
}

/// The mandate that a partner's command is about, when it leaves a change.
fn mandate_of(command: &PartnerCommand) -> Option<MandateId> {
    match command {
        PartnerCommand::CancelMandate(terms) | PartnerCommand::ExpireMandate(terms) => Some(terms.mandate),
        PartnerCommand::SandboxMandate(sandbox) => Some(sandbox.terms.mandate),
        PartnerCommand::Payment(_)
        | PartnerCommand::Capture(_)
        | PartnerCommand::Void(_)
        | PartnerCommand::Refund(_)
        | PartnerCommand::Transfer(_)
        | PartnerCommand::Expire => None,
    }
}

impl Run<'_> {
    /// Walks the changes of every partition up to its position. Comes after the payments, whose bounds it shares.
    pub(crate) async fn changes(&mut self) -> Result<(), Error> {
        for index in 0..self.snapshot.positions.len() {
            let position = &self.snapshot.positions[index];
            let (at, below) = ((position.source, position.partition), position.next_offset);
            let mut from = self.after.partitions[index].next_offset;
            loop {
                let mut page = store::changes_page(self.pool, at, from, below).await?;
                self.report.read("changes", page.len());
                let (read, last) = (page.len(), page.last().map(|it| it.offset));
                if let Some(last) = last {
                    let dead: HashSet<u64> =
                        store::dead_offsets(self.pool, at, from, last).await?.into_iter().collect();
                    page.retain(|change| !dead.contains(&change.offset));
                }
                self.check_changes(&page, index).await?;
                for change in page.iter().filter(|it| it.reason.is_none() && ends_dead_letters(&it.kind)) {
                    self.redriven(change.id, index).await?;
                }
                match last {
                    Some(last) if read >= COMMAND_PAGE as usize && !self.report.is_full() => from = last + 1,
                    _ => break,
                }
                self.pace(read).await;
            }
            // Payments and changes of this partition are walked.
            self.after.partitions[index].next_offset = below;
        }
        Ok(())
    }

    /// What a redrive or a rejection of dead letters left at their places; it counts for the partition of the command,
    /// since it was not there before that was applied.
    async fn redriven(&mut self, change: Uuid, index: usize) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = store::dead_letters_of(self.pool, change, after).await?;
            let row = Row { table: "changes", key: &|| ChangeId::from_uuid(change).to_string() };
            let say = || ("dead letters that it ended".to_owned(), "none".to_owned());
            self.report.hold(Invariant::I4, &row, after.is_some() || !page.is_empty(), say);
            let payments = store::payments_at(self.pool, &page).await?;
            let changes = store::changes_at(self.pool, &page).await?;
            self.report.read("payments", payments.len());
            self.report.read("changes", changes.len());
            self.check_payments(&payments, index).await?;
            self.check_changes(&changes, index).await?;
            match page.last() {
                Some(last) if page.len() >= store::PAGE as usize => after = Some(*last),
                _ => return Ok(()),
            }
        }
    }

    async fn check_changes(&mut self, page: &[Change], index: usize) -> Result<(), Error> {
        let referred = self.refer_changes(page).await?;
        for change in page {
            check(&mut self.report, change, &referred, &mut self.after.partitions[index]);
        }
        Ok(())
    }

    async fn refer_changes(&mut self, page: &[Change]) -> Result<Referred, Error> {
        let sandbox = page.iter().filter_map(|it| match Command::read(it)? {
            Command::Partner(PartnerCommand::SandboxMandate(sandbox)) => Some(sandbox.account.uuid()),
            Command::Partner(_) | Command::Bank(_) => None,
        });
        let targets = distinct(page.iter().map(|it| it.target).chain(sandbox));
        let ids = distinct(page.iter().map(|it| it.id));
        let events: Vec<_> = page.iter().filter_map(|it| it.partner.zip(it.event_sequence)).collect();
        let payments = store::payment_statuses(self.pool, &ids).await?;
        Ok(Referred {
            accounts: by_key(store::accounts_by_id(self.pool, &targets).await?, |it| it.id),
            mandates: by_key(store::mandates_by_id(self.pool, &targets).await?, |it| it.id),
            events: by_key(store::events_at(self.pool, &events).await?, |it| (it.partner, it.sequence)),
            payments: payments.into_iter().map(|(id, _, kind)| (id, kind)).collect(),
        })
    }
}

fn ends_dead_letters(kind: &str) -> bool {
    matches!(kind, "redrive_dead_letters" | "reject_dead_letter")
}

fn check(report: &mut Report, change: &Change, referred: &Referred, progress: &mut Progress) {
    progress.told += u64::from(change.event_sequence.is_some());
    let key = || {
        let at = position_key((change.source, change.partition, change.offset));
        format!("{} at {at}", ChangeId::from_uuid(change.id))
    };
    let row = Row { table: "changes", key: &key };
    let reason = change.reason.map(Reason::from_code);
    let say = || ("a known reason".to_owned(), format!("{:?}", change.reason));
    report.hold(Invariant::I6, &row, reason != Some(None), say);
    let Some(command) = Command::read(change) else {
        let say = || ("the command of its source as JSON".to_owned(), "another text".to_owned());
        report.hold(Invariant::I6, &row, false, say);
        return;
    };
    let Some(names) = command.names() else {
        let say = || ("a command that moves no money".to_owned(), change.kind.clone());
        report.hold(Invariant::I6, &row, false, say);
        return;
    };
    report.expect(Invariant::I6, &row, "kind and target", &names, &(&*change.kind, change.target));
    check_id(report, &row, change, &command, referred);
    if change.reason.is_none() {
        made::check(report, &row, &command, referred, progress);
    }
    told::check(report, &row, change, &command, referred);
}

/// Ids and fingerprints are what makes a repeat find the first command.
fn check_id(report: &mut Report, row: &Row<'_>, change: &Change, command: &Command, referred: &Referred) {
    // A row names the partner that was told, so who asked for what was refused is not known.
    let ended_by = |mandate, cause: &str| {
        let partner = PartnerId::from_uuid(change.partner?);
        Some(mandate_end_id(partner, mandate, cause).uuid())
    };
    let (derived, funds) = match command {
        Command::Bank(_) => {
            let same = Fingerprint::of(&[change.command.as_bytes()]).as_bytes()[..] == change.fingerprint[..];
            let say = || ("the fingerprint of its command".to_owned(), "another fingerprint".to_owned());
            report.hold(Invariant::I4, row, same, say);
            (None, false)
        }
        Command::Partner(PartnerCommand::CancelMandate(terms)) => (ended_by(terms.mandate, "cancel"), false),
        Command::Partner(PartnerCommand::ExpireMandate(terms)) => (ended_by(terms.mandate, "expire"), false),
        // The money on the test account comes by a payment with the same id.
        Command::Partner(PartnerCommand::SandboxMandate(sandbox)) => (None, sandbox.balance_minor > 0),
        Command::Partner(_) => (None, false),
    };
    let conflict = change.reason == Some(Reason::IdempotencyConflict.code());
    let derived = match (derived, conflict) {
        (Some(id), true) => Fingerprint::from_bytes(&change.fingerprint)
            .map(|fingerprint| conflict_id(PaymentId::from_uuid(id), &fingerprint).uuid()),
        (derived, _) => derived,
    };
    let say = || (format!("the derived id {derived:?}"), change.id.to_string());
    report.hold(Invariant::I4, row, derived.is_none_or(|id| id == change.id), say);
    let applied = change.reason.is_none();
    let expected = (applied && funds).then_some(PaymentKind::Deposit.code());
    let found = referred.payments.get(&change.id).copied();
    report.expect(Invariant::I4, row, "a payment of this id of kind", &expected, &found);
}
