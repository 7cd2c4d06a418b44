//! I1, I4, I6 and I8: each payment against its entries, its mandate and the event that told of it.

use std::collections::HashMap;

use domain::{
    account::{Direction, OwnerKind},
    event::{CreditView, EventType},
    fingerprint::Fingerprint,
    ids::{AccountId, MandateId, PartnerId, PaymentId, bank_account_id, conflict_id, payment_id},
    mandate::MandateKind,
    money::{Currency, decimal_text},
    payment::{PaymentKind, PaymentStatus, PaymentView, Reason, status_path},
    time::Timestamp,
    topic::Source,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{Run, by_key, distinct, position_key, scratch};
use crate::{
    Error, Invariant, Report,
    report::Row,
    state::{Progress, SINGLE_BYTES},
    store::{self, Account, COMMAND_PAGE, Entry, Event, Mandate, Payment},
};

/// What the rows of a page refer to.
struct Referred {
    entries: HashMap<(Uuid, u64), Entry>,
    accounts: HashMap<Uuid, Account>,
    mandates: HashMap<Uuid, Mandate>,
    settlements: HashMap<(Uuid, String), Uuid>,
    events: HashMap<(Uuid, u64), Event>,
}

impl Run<'_> {
    /// Walks the payments of every partition up to its position.
    pub(crate) async fn payments(&mut self) -> Result<(), Error> {
        let bounds: Vec<u64> = self.snapshot.positions.iter().map(|it| it.next_offset).collect();
        for (index, below) in bounds.into_iter().enumerate() {
            let at = (self.after.partitions[index].source, self.after.partitions[index].partition);
            let mut from = self.after.partitions[index].next_offset;
            loop {
                let page = store::payments_page(self.pool, at, from, below).await?;
                self.report.read("payments", page.len());
                let referred = self.refer(&page).await?;
                for payment in &page {
                    let progress = &mut self.after.partitions[index];
                    check(&mut self.report, payment, &referred, progress);
                    if let Some(single) = used_single(payment, &referred) {
                        let repeated = self.singles.insert(single).map_err(scratch)?;
                        self.repeated_singles(&repeated);
                    }
                }
                match page.last() {
                    Some(last) if page.len() >= COMMAND_PAGE as usize && !self.report.is_full() => {
                        from = last.offset + 1;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    async fn refer(&mut self, page: &[Payment]) -> Result<Referred, Error> {
        let sides = || page.iter().flat_map(|payment| payment.debit.into_iter().chain(payment.credit));
        let entries: Vec<_> = sides().collect();
        let events: Vec<_> = page.iter().filter_map(|it| it.partner.zip(it.event_sequence)).collect();
        let pool = self.pool;
        let accounts = store::accounts_by_id(pool, &distinct(sides().map(|(id, _)| id))).await?;
        let mandates = distinct(page.iter().filter_map(|it| it.mandate));
        let mandates = store::mandates_by_id(pool, &mandates).await?;
        let partners = distinct(page.iter().filter_map(|it| it.partner));
        let settlements = store::settlements_of(pool, &partners).await?;
        Ok(Referred {
            entries: by_key(store::entries_at(pool, &entries).await?, |it| (it.account, it.version)),
            accounts: by_key(accounts, |it| it.id),
            mandates: by_key(mandates, |it| it.id),
            settlements: settlements
                .into_iter()
                .map(|(partner, currency, id)| ((partner, currency), id))
                .collect(),
            events: by_key(store::events_at(pool, &events).await?, |it| (it.partner, it.sequence)),
        })
    }

    /// Records of single-use mandates that a second payment used.
    pub(super) fn repeated_singles(&mut self, repeated: &[[u8; SINGLE_BYTES]]) {
        for record in repeated {
            let (mandate, payment) = record.split_at(16);
            let id = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap_or_default();
            let key = || PaymentId::from_uuid(id(payment)).to_string();
            let row = Row { table: "payments", key: &key };
            let mandate = MandateId::from_uuid(id(mandate));
            let say =
                || (format!("one posted payment under the single-use {mandate}"), "a second one".to_owned());
            self.report.hold(Invariant::I8, &row, false, say);
        }
    }
}

fn used_single(payment: &Payment, referred: &Referred) -> Option<[u8; SINGLE_BYTES]> {
    let mandate = referred.mandates.get(&payment.mandate?)?;
    let counts = mandate.kind == MandateKind::Single.code() && payment.status == PaymentStatus::Posted.code();
    counts.then(|| {
        let mut record = [0; SINGLE_BYTES];
        record[..16].copy_from_slice(mandate.id.as_bytes());
        record[16..].copy_from_slice(payment.id.as_bytes());
        record
    })
}

fn check(report: &mut Report, payment: &Payment, referred: &Referred, progress: &mut Progress) {
    progress.next_offset = payment.offset + 1;
    progress.told += u64::from(payment.event_sequence.is_some());
    progress.posted += u64::from(payment.status == PaymentStatus::Posted.code());
    let key = || {
        let at = position_key((payment.source, payment.partition, payment.offset));
        format!("{} at {at}", PaymentId::from_uuid(payment.id))
    };
    let row = Row { table: "payments", key: &key };
    let codes = (
        PaymentKind::from_code(payment.kind),
        PaymentStatus::from_code(payment.status),
        payment.currency.parse::<Currency>(),
    );
    let (Some(kind), Some(status), Ok(currency)) = codes else {
        let say = || {
            let found = format!("{}, {}, {}", payment.kind, payment.status, payment.currency);
            ("a legal kind, status and currency".to_owned(), found)
        };
        report.hold(Invariant::I6, &row, false, say);
        return;
    };
    check_status(report, &row, payment, kind, status);
    check_id(report, &row, payment, kind);
    check_amounts(report, &row, payment, status);
    check_posting(report, &row, payment, status, referred);
    if status == PaymentStatus::Posted {
        check_authority(report, &row, payment, kind, currency, referred);
    }
    check_event(report, &row, payment, kind, status, currency, referred);
}

fn check_status(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    kind: PaymentKind,
    status: PaymentStatus,
) {
    let legal = match status {
        PaymentStatus::Posted | PaymentStatus::Rejected => kind != PaymentKind::Conflict,
        PaymentStatus::Conflicted => kind == PaymentKind::Conflict,
        PaymentStatus::Pending => false,
    };
    report.hold(Invariant::I6, row, legal, || (format!("a final status of a {kind}"), status.to_string()));
    let reason = payment.reason.map(Reason::from_code);
    let fits = match status {
        PaymentStatus::Rejected => matches!(reason, Some(Some(_))),
        PaymentStatus::Posted | PaymentStatus::Conflicted | PaymentStatus::Pending => reason.is_none(),
    };
    let say = || (format!("the reason of a {status} payment"), format!("{:?}", payment.reason));
    report.hold(Invariant::I6, row, fits, say);
    let say = || ("a version from 1".to_owned(), "0".to_owned());
    report.hold(Invariant::I6, row, payment.version >= 1, say);
    let source = match kind {
        PaymentKind::Payment => payment.source == Source::Partner.code(),
        PaymentKind::Deposit => payment.source == Source::Bank.code(),
        PaymentKind::Conflict => Source::from_code(payment.source).is_some(),
    };
    report
        .hold(Invariant::I6, row, source, || (format!("the source of a {kind}"), payment.source.to_string()));
}

/// Derived ids are what makes a retry find the first request: a row with another id could be applied again.
fn check_id(report: &mut Report, row: &Row<'_>, payment: &Payment, kind: PaymentKind) {
    let root = PaymentId::from_uuid(payment.root);
    let fingerprint = Fingerprint::from_bytes(&payment.fingerprint);
    let by_key = payment.partner.zip(payment.idempotency_key.as_deref());
    let by_key = by_key.map(|(partner, key)| payment_id(PartnerId::from_uuid(partner), key));
    let id = PaymentId::from_uuid(payment.id);
    let (expected, what) = match kind {
        PaymentKind::Payment => (by_key, "the id of its partner and idempotency key"),
        PaymentKind::Deposit => (Some(id), "an id"),
        PaymentKind::Conflict => {
            (fingerprint.map(|it| conflict_id(root, &it)), "the id of its root and fingerprint")
        }
    };
    let say = || (format!("{what}, {expected:?}"), id.to_string());
    report.hold(Invariant::I4, row, expected == Some(id), say);
    let (expected_root, what) = match kind {
        PaymentKind::Payment | PaymentKind::Deposit => (Some(id), "itself as root"),
        PaymentKind::Conflict if payment.partner.is_some() => {
            (by_key, "the id of its idempotency key as root")
        }
        PaymentKind::Conflict => (Some(root), "a root"),
    };
    report.hold(Invariant::I4, row, expected_root == Some(root), || (what.to_owned(), root.to_string()));
}

fn check_amounts(report: &mut Report, row: &Row<'_>, payment: &Payment, status: PaymentStatus) {
    let Payment { amount_minor, captured_minor, refunded_minor, .. } = *payment;
    let say = || ("a positive amount".to_owned(), amount_minor.to_string());
    report.hold(Invariant::I8, row, amount_minor > 0, say);
    // Every payment of today is captured whole or not at all, and nothing is refunded.
    let captured = if status == PaymentStatus::Posted { amount_minor } else { 0 };
    report.expect(Invariant::I8, row, "captured_minor", &captured, &captured_minor);
    report.expect(Invariant::I8, row, "refunded_minor", &0, &refunded_minor);
}

fn check_posting(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    status: PaymentStatus,
    referred: &Referred,
) {
    let sides = [(payment.debit, Direction::Debit), (payment.credit, Direction::Credit)];
    let count = sides.iter().filter(|(side, _)| side.is_some()).count();
    let expected = if status == PaymentStatus::Posted { 2 } else { 0 };
    let say = || (format!("{expected} entries of a {status} payment"), count.to_string());
    report.hold(Invariant::I1, row, count == expected && !payment.half_posting, say);
    if let (Some(debit), Some(credit)) = (payment.debit, payment.credit) {
        let say = || ("two accounts".to_owned(), key_of(debit.0));
        report.hold(Invariant::I1, row, debit.0 != credit.0, say);
    }
    for (side, direction) in sides {
        let Some((account, version)) = side else { continue };
        let name = || format!("the {direction} {} version {version}", key_of(account));
        let Some(entry) = referred.entries.get(&(account, version)) else {
            report.hold(Invariant::I1, row, false, || (name(), "no such entry".to_owned()));
            continue;
        };
        let found = (entry.payment, entry.direction, entry.amount_minor, entry.entered_at);
        let expected = (payment.id, direction.code(), payment.amount_minor, payment.decided_at);
        let say = || {
            let text = |(id, direction, amount, at): (Uuid, u8, i64, i64)| {
                let direction = Direction::from_code(direction).map_or("neither", Direction::as_str);
                let at = Timestamp::from_micros(at);
                format!("a {direction} of {amount} for {} at {at}", PaymentId::from_uuid(id))
            };
            (format!("{} to be {}", name(), text(expected)), text(found))
        };
        report.hold(Invariant::I1, row, found == expected, say);
        let currency = referred.accounts.get(&account).map(|it| it.currency.as_str());
        let say = || (format!("{} in {}", name(), payment.currency), format!("{currency:?}"));
        report.hold(Invariant::I1, row, currency == Some(&payment.currency), say);
    }
}

/// Whether this money was allowed to move between these two accounts.
fn check_authority(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    kind: PaymentKind,
    currency: Currency,
    referred: &Referred,
) {
    let (debit, credit) = (payment.debit.map(|it| it.0), payment.credit.map(|it| it.0));
    match kind {
        PaymentKind::Deposit => {
            let bank = Some(bank_account_id(currency).uuid());
            let say =
                || ("the bank's own account to be debited".to_owned(), debit.map_or("none".into(), key_of));
            report.hold(Invariant::I8, row, debit == bank, say);
            let owner = credit
                .and_then(|id| referred.accounts.get(&id))
                .filter(|it| it.owner_kind == OwnerKind::Partner.code());
            let owner = owner.map(|it| it.owner_id);
            report.expect(Invariant::I8, row, "partner", &owner, &payment.partner);
        }
        PaymentKind::Payment => {
            let Some(mandate) = payment.mandate.and_then(|id| referred.mandates.get(&id)) else {
                let say =
                    || ("a mandate".to_owned(), format!("{:?}", payment.mandate.map(MandateId::from_uuid)));
                report.hold(Invariant::I8, row, false, say);
                return;
            };
            let expected = (Some(mandate.partner), Some(mandate.account), &mandate.currency);
            let found = (payment.partner, debit, &payment.currency);
            report.expect(
                Invariant::I8,
                row,
                "partner, debited account, currency of its mandate",
                &expected,
                &found,
            );
            let within = mandate.payment_max_minor.is_none_or(|max| payment.amount_minor <= max);
            let say = || {
                (
                    format!("at most {:?}, its mandate's bound", mandate.payment_max_minor),
                    payment.amount_minor.to_string(),
                )
            };
            report.hold(Invariant::I8, row, within, say);
            let alive = mandate.expires_at.is_none_or(|expires| payment.accepted_at < expires);
            let say = || ("acceptance before its mandate's expiry".to_owned(), "later".to_owned());
            report.hold(Invariant::I8, row, alive, say);
            let settlement = payment.partner.map(|partner| (partner, payment.currency.clone()));
            let settlement = settlement.and_then(|key| referred.settlements.get(&key)).copied();
            let say = || {
                (
                    "the partner's settlement account to be credited".to_owned(),
                    credit.map_or("none".into(), key_of),
                )
            };
            report.hold(Invariant::I8, row, credit.is_some() && credit == settlement, say);
        }
        PaymentKind::Conflict => {}
    }
}

/// What was told is what was decided.
fn check_event(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    kind: PaymentKind,
    status: PaymentStatus,
    currency: Currency,
    referred: &Referred,
) {
    let told = match (kind, status) {
        (PaymentKind::Payment, PaymentStatus::Posted) => Some(EventType::PaymentPosted),
        (PaymentKind::Payment, PaymentStatus::Rejected) => Some(EventType::PaymentRejected),
        (PaymentKind::Deposit, PaymentStatus::Posted) => Some(EventType::AccountCredited),
        (PaymentKind::Conflict, _) => Some(EventType::PaymentConflicted),
        (PaymentKind::Payment | PaymentKind::Deposit, _) => None,
    };
    let told = told.filter(|_| payment.partner.is_some());
    let Some((event_type, partner, sequence)) = told
        .zip(payment.partner)
        .zip(payment.event_sequence)
        .map(|((event_type, partner), sequence)| (event_type, partner, sequence))
    else {
        let fits = told.is_some() == payment.event_sequence.is_some();
        let say = || (format!("an event {told:?}"), format!("sequence {:?}", payment.event_sequence));
        report.hold(Invariant::I9, row, fits, say);
        return;
    };
    let name = format!("event {sequence} of {}", PartnerId::from_uuid(partner));
    let Some(event) = referred.events.get(&(partner, sequence)) else {
        report.hold(Invariant::I9, row, false, || (name, "no such event".to_owned()));
        return;
    };
    let key = || format!("{} sequence {sequence}", PartnerId::from_uuid(partner));
    let row = Row { table: "events", key: &key };
    let expected = (event_type.code(), payment.decided_at);
    report.expect(Invariant::I9, &row, "type and time", &expected, &(event.kind, event.occurred_at));
    let same = if event_type == EventType::AccountCredited {
        tells_credit(&event.data, payment, currency)
    } else {
        tells_payment(&event.data, payment, kind, status, currency)
    };
    let say = || {
        let id = PaymentId::from_uuid(payment.id);
        (format!("the outcome of {id} as it is stored"), "another text".to_owned())
    };
    report.hold(Invariant::I9, &row, same, say);
}

fn tells_credit(data: &str, payment: &Payment, currency: Currency) -> bool {
    #[derive(Deserialize)]
    struct Data {
        account: CreditView,
    }
    serde_json::from_str::<Data>(data).is_ok_and(|Data { account }| {
        payment.credit.map(|it| AccountId::from_uuid(it.0)) == Some(account.id)
            && account.amount == decimal_text(payment.amount_minor, currency)
            && account.currency == currency
            && account.reference == payment.reference
    })
}

fn tells_payment(
    data: &str,
    payment: &Payment,
    kind: PaymentKind,
    status: PaymentStatus,
    currency: Currency,
) -> bool {
    #[derive(Deserialize)]
    struct Data {
        payment: PaymentView,
    }
    let Ok(Data { payment: told }) = serde_json::from_str::<Data>(data) else { return false };
    let Ok(metadata) = payment.metadata.as_deref().map(serde_json::from_str).transpose() else {
        return false;
    };
    let id = PaymentId::from_uuid(payment.id);
    // A row that has changed since tells more than its first event did.
    if told.version < payment.version {
        return told.id == id;
    }
    let stored = PaymentView {
        id,
        kind,
        root: PaymentId::from_uuid(payment.root),
        status,
        under_review: false,
        version: payment.version,
        amount: decimal_text(payment.amount_minor, currency),
        currency,
        amount_captured: decimal_text(payment.captured_minor, currency),
        amount_refunded: decimal_text(payment.refunded_minor, currency),
        mandate: payment.mandate.map(MandateId::from_uuid),
        reference: payment.reference.clone(),
        description: payment.description.clone(),
        metadata: metadata.unwrap_or_default(),
        reason: payment.reason.and_then(Reason::from_code),
        livemode: payment.livemode != 0,
        created_at: Timestamp::from_micros(payment.accepted_at),
        decided_at: Some(Timestamp::from_micros(payment.decided_at)),
        status_url: status_path(id),
    };
    told == stored
}

fn key_of(account: Uuid) -> String {
    AccountId::from_uuid(account).to_string()
}
