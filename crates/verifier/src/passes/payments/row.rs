//! What a row of `payments` must be by itself: its status, its id, its amounts and its two entries.

use domain::{
    account::Direction,
    fingerprint::Fingerprint,
    ids::{PartnerId, PaymentId, conflict_id, expiry_id, payment_id},
    money::Currency,
    payment::{PaymentKind, PaymentStatus, Reason},
    time::Timestamp,
    topic::Source,
};
use uuid::Uuid;

use super::{Referred, key_of};
use crate::{Invariant, Report, report::Row, store::Payment};

/// What kind and status of a row mean for everything else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) kind: PaymentKind,
    pub(super) status: PaymentStatus,
    /// `None` for what asked for everything of a payment that is not there.
    pub(super) currency: Option<Currency>,
    /// It moved money itself, by two entries.
    pub(super) moves: bool,
    /// It reserved funds; what became of them later is told by its follow-ups.
    pub(super) holds: bool,
}

/// Whether other payments can belong to it.
pub(super) const fn is_root(kind: PaymentKind) -> bool {
    match kind {
        PaymentKind::Payment | PaymentKind::Deposit | PaymentKind::Transfer | PaymentKind::Withdrawal => true,
        PaymentKind::Conflict
        | PaymentKind::Capture
        | PaymentKind::Void
        | PaymentKind::Expire
        | PaymentKind::Refund
        | PaymentKind::Reversal => false,
    }
}

/// Whether it belongs to another payment.
pub(super) const fn is_follow_up(kind: PaymentKind) -> bool {
    match kind {
        PaymentKind::Capture
        | PaymentKind::Void
        | PaymentKind::Expire
        | PaymentKind::Refund
        | PaymentKind::Reversal => true,
        PaymentKind::Payment
        | PaymentKind::Deposit
        | PaymentKind::Transfer
        | PaymentKind::Withdrawal
        | PaymentKind::Conflict => false,
    }
}

impl Shape {
    pub(super) fn of(payment: &Payment) -> Option<Self> {
        let kind = PaymentKind::from_code(payment.kind)?;
        let status = PaymentStatus::from_code(payment.status)?;
        let currency = payment.currency.as_deref().map(str::parse).transpose().ok()?;
        let in_two_phases = kind == PaymentKind::Payment && payment.expires_at.is_some();
        let releases = matches!(kind, PaymentKind::Void | PaymentKind::Expire);
        let accepted = match status {
            PaymentStatus::Posted
            | PaymentStatus::Authorized
            | PaymentStatus::Voided
            | PaymentStatus::Expired => true,
            PaymentStatus::Pending | PaymentStatus::Rejected | PaymentStatus::Conflicted => false,
        };
        Some(Self {
            kind,
            status,
            currency,
            moves: status == PaymentStatus::Posted && !in_two_phases && !releases,
            holds: accepted && in_two_phases,
        })
    }

    /// Whether it ended a hold.
    pub(super) const fn ends_hold(self) -> bool {
        matches!(self.status, PaymentStatus::Posted)
            && matches!(self.kind, PaymentKind::Capture | PaymentKind::Void | PaymentKind::Expire)
    }

    /// What was decided when the row was written: root payments change later.
    pub(super) const fn born(self) -> PaymentStatus {
        if self.holds { PaymentStatus::Authorized } else { self.status }
    }
}

pub(super) fn check_status(report: &mut Report, row: &Row<'_>, payment: &Payment, shape: Shape) {
    let (kind, status) = (shape.kind, shape.status);
    let legal = match status {
        PaymentStatus::Posted | PaymentStatus::Rejected => kind != PaymentKind::Conflict,
        PaymentStatus::Conflicted => kind == PaymentKind::Conflict,
        PaymentStatus::Authorized | PaymentStatus::Voided | PaymentStatus::Expired => shape.holds,
        PaymentStatus::Pending => false,
    };
    report.hold(Invariant::I6, row, legal, || (format!("a stored status of a {kind}"), status.to_string()));
    let reason = payment.reason.map(Reason::from_code);
    let fits = match status {
        PaymentStatus::Rejected => matches!(reason, Some(Some(_))),
        PaymentStatus::Posted
        | PaymentStatus::Conflicted
        | PaymentStatus::Pending
        | PaymentStatus::Authorized
        | PaymentStatus::Voided
        | PaymentStatus::Expired => reason.is_none(),
    };
    let say = || (format!("the reason of a {status} payment"), format!("{:?}", payment.reason));
    report.hold(Invariant::I6, row, fits, say);
    // Only a payment that others belong to has later versions; they are counted with those.
    let fits = if is_root(kind) { payment.version >= 1 } else { payment.version == 1 };
    report.hold(Invariant::I6, row, fits, || ("version 1".to_owned(), payment.version.to_string()));
    let timed = payment.expires_at.is_none() || kind == PaymentKind::Payment;
    report.hold(Invariant::I6, row, timed, || (format!("no expires_at of a {kind}"), "one".to_owned()));
    let source = Source::from_code(payment.source);
    let fits = match kind {
        PaymentKind::Payment
        | PaymentKind::Capture
        | PaymentKind::Void
        | PaymentKind::Expire
        | PaymentKind::Refund => source == Some(Source::Partner),
        PaymentKind::Withdrawal | PaymentKind::Reversal => source == Some(Source::Bank),
        // A partner's deposit funds a test account; a transfer is asked for by whoever is its source.
        PaymentKind::Deposit | PaymentKind::Transfer | PaymentKind::Conflict => source.is_some(),
    };
    report.hold(Invariant::I6, row, fits, || (format!("the source of a {kind}"), payment.source.to_string()));
    let asked_by_partner = source == Some(Source::Partner) && kind != PaymentKind::Deposit;
    let fits = match (kind, asked_by_partner) {
        (_, true) => payment.partner.is_some(),
        // The bank's own doings are shown to a partner whose money they move.
        (PaymentKind::Deposit | PaymentKind::Withdrawal | PaymentKind::Reversal, false) => true,
        (_, false) => payment.partner.is_none(),
    };
    let say = || {
        (format!("the partner of a {kind} from source {}", payment.source), format!("{:?}", payment.partner))
    };
    report.hold(Invariant::I6, row, fits, say);
}

/// Derived ids are what makes a retry find the first request: a row with another id could be applied again.
pub(super) fn check_id(report: &mut Report, row: &Row<'_>, payment: &Payment, shape: Shape) {
    let root = PaymentId::from_uuid(payment.root);
    let fingerprint = Fingerprint::from_bytes(&payment.fingerprint);
    let by_key = payment.partner.zip(payment.idempotency_key.as_deref());
    let by_key = by_key.map(|(partner, key)| payment_id(PartnerId::from_uuid(partner), key));
    let id = PaymentId::from_uuid(payment.id);
    let given_up = payment.reason == Some(Reason::ProcessingFailed.code());
    let of_partner = Source::from_code(payment.source) == Some(Source::Partner);
    let conflict_of = |id: PaymentId| fingerprint.map(|it| conflict_id(id, &it));
    let (expected, what) = match shape.kind {
        // A dead letter that was given up leaves no texts, since one of them may be what did not fit.
        _ if given_up && payment.idempotency_key.is_none() => (Some(id), "an id"),
        PaymentKind::Payment | PaymentKind::Capture | PaymentKind::Void | PaymentKind::Refund => {
            (by_key, "the id of its partner and idempotency key")
        }
        PaymentKind::Transfer if of_partner => (by_key, "the id of its partner and idempotency key"),
        PaymentKind::Expire => (Some(expiry_id(root)), "the id of its root's expiry"),
        PaymentKind::Deposit | PaymentKind::Withdrawal | PaymentKind::Reversal | PaymentKind::Transfer => {
            (Some(id), "an id")
        }
        PaymentKind::Conflict if of_partner => {
            (by_key.and_then(conflict_of), "the id of its idempotency key and fingerprint")
        }
        // Of a reversal the id that was used is not stored; of anything else it is the root.
        PaymentKind::Conflict if conflict_of(root) == Some(id) => (Some(id), "an id"),
        PaymentKind::Conflict => {
            let derived = (id.uuid().get_version_num() == 5 && fingerprint.is_some()).then_some(id);
            (derived, "a derived id")
        }
    };
    let say = || (format!("{what}, {expected:?}"), id.to_string());
    report.hold(Invariant::I4, row, expected == Some(id), say);
    let (fits, what) = match shape.kind {
        PaymentKind::Payment | PaymentKind::Deposit | PaymentKind::Transfer | PaymentKind::Withdrawal => {
            (root == id, "itself as root")
        }
        PaymentKind::Capture
        | PaymentKind::Void
        | PaymentKind::Expire
        | PaymentKind::Refund
        | PaymentKind::Reversal
        | PaymentKind::Conflict => (root != id, "another payment as root"),
    };
    report.hold(Invariant::I4, row, fits, || (what.to_owned(), root.to_string()));
}

pub(super) fn check_amounts(report: &mut Report, row: &Row<'_>, payment: &Payment, shape: Shape) {
    let Payment { amount_minor, captured_minor, refunded_minor, .. } = *payment;
    let without = shape.currency.is_none()
        && matches!(shape.status, PaymentStatus::Rejected | PaymentStatus::Conflicted);
    let fits = if without { amount_minor == 0 } else { amount_minor > 0 && shape.currency.is_some() };
    let say =
        || ("a positive amount in a currency".to_owned(), format!("{amount_minor} {:?}", payment.currency));
    report.hold(Invariant::I8, row, fits, say);
    if shape.holds {
        let say = || (format!("captured_minor within 0..={amount_minor}"), captured_minor.to_string());
        report.hold(Invariant::I8, row, (0..=amount_minor).contains(&captured_minor), say);
    } else {
        let captured = if shape.moves { amount_minor } else { 0 };
        report.expect(Invariant::I8, row, "captured_minor", &captured, &captured_minor);
    }
    let most = if is_root(shape.kind) { captured_minor } else { 0 };
    let say = || (format!("refunded_minor within 0..={most}"), refunded_minor.to_string());
    report.hold(Invariant::I8, row, (0..=most).contains(&refunded_minor), say);
}

pub(super) fn check_posting(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    shape: Shape,
    referred: &Referred,
) {
    let (kind, status) = (shape.kind, shape.status);
    let versions = [payment.debit_version, payment.credit_version].iter().flatten().count();
    let accounts = [payment.debit, payment.credit].iter().flatten().count();
    let expected = if shape.moves { 2 } else { 0 };
    let fits = match (shape.moves || shape.holds, kind) {
        (true, _) => accounts == 2,
        // What a transfer asked for is told even when it was refused.
        (false, PaymentKind::Transfer | PaymentKind::Conflict) => accounts == 2 || accounts == 0,
        (false, _) => accounts == 0,
    };
    let say = || {
        let found = format!("{versions} entries, {accounts} accounts");
        (format!("{expected} entries of a {status} {kind}, and its accounts"), found)
    };
    report.hold(Invariant::I1, row, versions == expected && fits, say);
    if shape.moves
        && let (Some(debit), Some(credit)) = (payment.debit, payment.credit)
    {
        report.hold(Invariant::I1, row, debit != credit, || ("two accounts".to_owned(), key_of(debit)));
    }
    for (side, direction) in [
        (payment.debit.zip(payment.debit_version), Direction::Debit),
        (payment.credit.zip(payment.credit_version), Direction::Credit),
    ] {
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
    }
    if !shape.moves && !shape.holds {
        return;
    }
    for account in payment.debit.into_iter().chain(payment.credit) {
        let currency = referred.accounts.get(&account).map(|it| it.currency.as_str());
        let say = || (format!("{} in {:?}", key_of(account), payment.currency), format!("{currency:?}"));
        report.hold(Invariant::I1, row, currency.is_some() && currency == payment.currency.as_deref(), say);
    }
    let modes = [payment.debit, payment.credit].map(|id| id.and_then(|id| referred.accounts.get(&id)));
    let modes = modes.map(|account| account.map(|it| it.livemode));
    let say = || ("both accounts to hold test money, or neither".to_owned(), format!("{modes:?}"));
    report.hold(Invariant::I8, row, modes[0] == modes[1], say);
}
