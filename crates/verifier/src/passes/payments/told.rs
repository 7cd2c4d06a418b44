//! I9: what was told is what was decided.

use domain::{
    event::{CreditView, EventType},
    ids::{AccountId, MandateId, PartnerId, PaymentId},
    money::decimal_text,
    payment::{Amounts, Metadata, PaymentKind, PaymentStatus, PaymentView, Reason, status_path},
    time::Timestamp,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Referred,
    authority::partner_of,
    row::{self, Shape},
};
use crate::{
    Invariant, Report,
    report::Row,
    store::{Event, Payment, Root},
};

/// Whom an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// The payment itself, as it was decided.
    Itself,
    /// The payment it belongs to, as this made it.
    Root,
    /// The credited account.
    Credit,
    /// The account from which the bank moved back what somebody else had put into it.
    Debit,
}

/// The event that told the outcome of a payment to its partner.
fn outcome(shape: Shape) -> Option<(EventType, Subject)> {
    use PaymentStatus::{Authorized, Conflicted, Expired, Pending, Posted, Rejected, Voided};
    let itself = |event_type| Some((event_type, Subject::Itself));
    let root = |event_type| Some((event_type, Subject::Root));
    match (shape.kind, shape.born()) {
        (PaymentKind::Payment, Posted) => itself(EventType::PaymentPosted),
        (PaymentKind::Payment, Authorized) => itself(EventType::PaymentAuthorized),
        (PaymentKind::Payment, Rejected) => itself(EventType::PaymentRejected),
        (PaymentKind::Deposit, Posted) => Some((EventType::AccountCredited, Subject::Credit)),
        (PaymentKind::Conflict, Conflicted) => itself(EventType::PaymentConflicted),
        (PaymentKind::Capture, Posted) => itself(EventType::CapturePosted),
        (PaymentKind::Capture, Rejected) => itself(EventType::CaptureRejected),
        (PaymentKind::Void, Posted) => root(EventType::PaymentVoided),
        (PaymentKind::Void, Rejected) => itself(EventType::VoidRejected),
        (PaymentKind::Expire, Posted) => root(EventType::PaymentExpired),
        (PaymentKind::Refund, Posted) => itself(EventType::RefundPosted),
        (PaymentKind::Refund, Rejected) => itself(EventType::RefundRejected),
        (PaymentKind::Transfer, Posted) => itself(EventType::TransferPosted),
        (PaymentKind::Transfer, Rejected) => itself(EventType::TransferRejected),
        (PaymentKind::Reversal, Posted) => root(EventType::PaymentReversed),
        (PaymentKind::Withdrawal | PaymentKind::Deposit | PaymentKind::Expire | PaymentKind::Reversal, _) => {
            None
        }
        // Illegal statuses, which are named as such.
        (_, Pending | Posted | Rejected | Conflicted | Authorized | Voided | Expired) => None,
    }
}

pub(super) fn check(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    shape: Shape,
    referred: &Referred,
) {
    let told = outcome(shape).filter(|_| payment.partner.is_some());
    let reference = payment.partner.zip(payment.event_sequence);
    check_one(report, row, payment, shape, referred, told, reference, payment.event_sequence.is_some());

    // A partner learns of money that someone else put into its account, and that it was moved back.
    let (account, told) = match shape.kind {
        PaymentKind::Reversal => (payment.debit, (EventType::AccountDebited, Subject::Debit)),
        _ => (payment.credit, (EventType::AccountCredited, Subject::Credit)),
    };
    let owner = partner_of(account, referred).filter(|owner| {
        let tells = matches!(shape.kind, PaymentKind::Transfer | PaymentKind::Reversal);
        tells && shape.moves && payment.partner != Some(*owner)
    });
    report.expect(Invariant::I9, row, "told_partner_id", &owner, &payment.told_partner);
    let told = owner.map(|_| told);
    let reference = payment.told_partner.zip(payment.told_sequence);
    check_one(report, row, payment, shape, referred, told, reference, payment.told_sequence.is_some());
}

#[expect(clippy::too_many_arguments, reason = "what a row refers to, twice")]
fn check_one(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    shape: Shape,
    referred: &Referred,
    told: Option<(EventType, Subject)>,
    reference: Option<(Uuid, u64)>,
    numbered: bool,
) {
    let (Some((event_type, subject)), Some((partner, sequence))) = (told, reference) else {
        let say = || (format!("an event {:?}", told.map(|it| it.0)), format!("{reference:?}"));
        report.hold(Invariant::I9, row, told.is_none() && !numbered, say);
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
    let same = match subject {
        Subject::Credit => {
            let entry = payment.credit.zip(payment.credit_version);
            tells_account(event, payment, shape, (shape.kind, payment), entry, referred)
        }
        Subject::Debit => {
            let entry = payment.debit.zip(payment.debit_version);
            referred.roots.get(&payment.root).is_some_and(|root| {
                let kind = PaymentKind::from_code(root.payment.kind);
                kind.is_some_and(|kind| {
                    tells_account(event, payment, shape, (kind, &root.payment), entry, referred)
                })
            })
        }
        Subject::Itself => tells(&event.data, payment, shape),
        Subject::Root => {
            referred.roots.get(&payment.root).is_some_and(|root| tells_root(event, root, payment))
        }
    };
    let say = || {
        let id = PaymentId::from_uuid(payment.id);
        (format!("the outcome of {id} as it is stored"), "another text".to_owned())
    };
    report.hold(Invariant::I9, &row, same, say);
}

/// What moved by `payment` on an account; `said` is what its words are from.
fn tells_account(
    event: &Event,
    payment: &Payment,
    shape: Shape,
    (kind, said): (PaymentKind, &Payment),
    entry: Option<(Uuid, u64)>,
    referred: &Referred,
) -> bool {
    #[derive(Deserialize)]
    struct Data {
        account: CreditView,
    }
    let entry = entry.and_then(|key| referred.entries.get(&key));
    let (Some(currency), Some(entry)) = (shape.currency, entry) else { return false };
    let Ok(Data { account }) = serde_json::from_str::<Data>(&event.data) else { return false };
    account
        == CreditView {
            id: AccountId::from_uuid(entry.account),
            amount: decimal_text(payment.amount_minor, currency),
            currency,
            balance: decimal_text(entry.balance_minor, currency),
            // The reference of a transfer is its sender's own.
            reference: match kind {
                PaymentKind::Transfer => said.description.clone(),
                _ => said.reference.clone(),
            },
        }
}

#[derive(Deserialize)]
struct Data {
    payment: PaymentView,
}

/// The payment as it was decided: all that changes later is what follow-ups made of it.
fn tells(data: &str, payment: &Payment, shape: Shape) -> bool {
    let Ok(Data { payment: told }) = serde_json::from_str::<Data>(data) else { return false };
    let captured = if shape.moves { payment.amount_minor } else { 0 };
    view(payment, shape, 1, shape.born(), captured, 0) == Some(told)
}

/// The root as a follow-up made it. Where more follow-ups came, its later state bounds what was told.
fn tells_root(event: &Event, root: &Root, payment: &Payment) -> bool {
    let Ok(Data { payment: told }) = serde_json::from_str::<Data>(&event.data) else { return false };
    let Some(shape) = Shape::of(&root.payment) else { return false };
    let root = &root.payment;
    if told.version == root.version {
        let (captured, refunded) = (root.captured_minor, root.refunded_minor);
        return view(root, shape, root.version, shape.status, captured, refunded) == Some(told);
    }
    // Only what gives money back is followed by more.
    let at_most = (payment.amount_minor..=root.refunded_minor)
        .contains(&told.amounts.as_ref().and_then(|it| minor(&it.amount_refunded)).unwrap_or_default());
    let refunded = told.amounts.as_ref().and_then(|it| minor(&it.amount_refunded)).unwrap_or_default();
    (2..root.version).contains(&told.version)
        && at_most
        && row::is_root(shape.kind)
        && view(root, shape, told.version, shape.status, root.captured_minor, refunded) == Some(told)
}

/// Minor units of a decimal text, whose digits are those of its currency.
fn minor(text: &str) -> Option<i64> {
    text.replace('.', "").parse().ok()
}

/// The payment as its partner sees it, in a version of its own.
fn view(
    payment: &Payment,
    shape: Shape,
    version: u32,
    status: PaymentStatus,
    captured_minor: i64,
    refunded_minor: i64,
) -> Option<PaymentView> {
    let metadata: Option<Metadata> =
        payment.metadata.as_deref().map(serde_json::from_str).transpose().ok()?;
    let id = PaymentId::from_uuid(payment.id);
    let is_transfer = shape.kind == PaymentKind::Transfer;
    let account = |id: Option<Uuid>| id.filter(|_| is_transfer).map(AccountId::from_uuid);
    Some(PaymentView {
        id,
        kind: shape.kind,
        root: PaymentId::from_uuid(payment.root),
        status,
        under_review: false,
        version,
        amounts: shape
            .currency
            .map(|currency| Amounts::of(currency, payment.amount_minor, captured_minor, refunded_minor)),
        from: account(payment.debit),
        to: account(payment.credit),
        mandate: payment.mandate.map(MandateId::from_uuid),
        reference: payment.reference.clone(),
        description: payment.description.clone(),
        metadata: metadata.unwrap_or_default(),
        reason: payment.reason.and_then(Reason::from_code),
        livemode: payment.livemode != 0,
        created_at: Timestamp::from_micros(payment.accepted_at),
        decided_at: Some(Timestamp::from_micros(payment.decided_at)),
        expires_at: payment.expires_at.map(Timestamp::from_micros),
        status_url: status_path(id),
    })
}
