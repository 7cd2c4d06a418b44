//! I8: whether this money was allowed to move, or to be reserved, between these two accounts.

use domain::{
    account::OwnerKind,
    ids::{MandateId, bank_account_id, sandbox_account_id},
    payment::PaymentKind,
    topic::Source,
};
use uuid::Uuid;

use super::{Referred, key_of, row::Shape};
use crate::{
    Invariant, Report,
    report::Row,
    store::{Payment, Root},
};

/// Checks what was accepted: rejected rows need no authority.
pub(super) fn check(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    shape: Shape,
    referred: &Referred,
) {
    let sides = [payment.debit, payment.credit];
    let cash = shape.currency.map(|currency| bank_account_id(currency).uuid());
    let mut side = |what: &str, expected: Option<Uuid>, found: Option<Uuid>| {
        let say = || (what.to_owned(), found.map_or("none".into(), key_of));
        report.hold(Invariant::I8, row, expected.is_some() && expected == found, say);
    };
    let root = referred.roots.get(&payment.root);
    match shape.kind {
        PaymentKind::Payment => under_mandate(report, row, payment, referred),
        PaymentKind::Deposit => {
            let of_partner = Source::from_code(payment.source) == Some(Source::Partner);
            let sandbox = shape.currency.map(|currency| sandbox_account_id(currency).uuid());
            let funds = if of_partner { sandbox } else { cash };
            side("the bank's own account to be debited", funds, payment.debit);
            if of_partner {
                let change = referred.changes.get(&payment.id).map(String::as_str);
                let say = || ("the sandbox_mandate that it funds".to_owned(), format!("{change:?}"));
                report.hold(Invariant::I8, row, change == Some("sandbox_mandate"), say);
            } else {
                shown_to_owner(report, row, payment, payment.credit, referred);
            }
        }
        PaymentKind::Withdrawal => {
            side("the bank's own account to be credited", cash, payment.credit);
            shown_to_owner(report, row, payment, payment.debit, referred);
        }
        PaymentKind::Transfer => {
            if let Some(partner) = payment.partner {
                let owner = partner_of(payment.debit, referred);
                report.expect(Invariant::I8, row, "an own account debited, of", &Some(partner), &owner);
            }
        }
        PaymentKind::Capture => {
            let Some(root) = belongs(report, row, payment, root) else { return };
            let expected = [root.payment.debit, root.payment.credit];
            report.expect(Invariant::I8, row, "the accounts of its root", &expected, &sides);
            within(report, row, payment, root.payment.amount_minor, "what its root had authorised");
            let in_time = root.payment.expires_at.is_some_and(|at| payment.accepted_at <= at);
            let say = || ("acceptance before its root expires".to_owned(), "later".to_owned());
            report.hold(Invariant::I8, row, in_time, say);
        }
        PaymentKind::Refund | PaymentKind::Reversal => {
            let Some(root) = belongs(report, row, payment, root) else { return };
            let expected = [root.payment.credit, root.payment.debit];
            report.expect(Invariant::I8, row, "the accounts of its root, the other way", &expected, &sides);
            within(report, row, payment, root.payment.captured_minor, "what its root had captured");
        }
        PaymentKind::Void | PaymentKind::Expire => {
            let Some(root) = belongs(report, row, payment, root) else { return };
            let expected = (root.payment.amount_minor, &root.payment.currency);
            let found = (payment.amount_minor, &payment.currency);
            report.expect(Invariant::I8, row, "the amount of its root", &expected, &found);
            let due = root.payment.expires_at.is_some_and(|at| payment.accepted_at > at);
            let say = || ("acceptance after its root's time".to_owned(), "earlier".to_owned());
            report.hold(Invariant::I8, row, due || shape.kind == PaymentKind::Void, say);
        }
        PaymentKind::Conflict => {}
    }
}

/// A follow-up's root, which must be the same partner's and in the same currency.
fn belongs<'a>(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    root: Option<&'a Root>,
) -> Option<&'a Root> {
    let Some(root) = root else {
        // `check_link` has said that there is none.
        return None;
    };
    let expected = (root.payment.partner, &root.payment.currency);
    let found = (payment.partner, &payment.currency);
    report.expect(Invariant::I8, row, "partner and currency of its root", &expected, &found);
    Some(root)
}

fn within(report: &mut Report, row: &Row<'_>, payment: &Payment, most: i64, what: &str) {
    let say = || (format!("at most {most}, {what}"), payment.amount_minor.to_string());
    report.hold(Invariant::I8, row, payment.amount_minor <= most, say);
}

fn shown_to_owner(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    account: Option<Uuid>,
    referred: &Referred,
) {
    let owner = partner_of(account, referred);
    report.expect(Invariant::I8, row, "partner", &owner, &payment.partner);
}

pub(super) fn partner_of(account: Option<Uuid>, referred: &Referred) -> Option<Uuid> {
    let account = referred.accounts.get(&account?)?;
    (account.owner_kind == OwnerKind::Partner.code()).then_some(account.owner_id)
}

fn under_mandate(report: &mut Report, row: &Row<'_>, payment: &Payment, referred: &Referred) {
    let Some(mandate) = payment.mandate.and_then(|id| referred.mandates.get(&id)) else {
        let found = || format!("{:?}", payment.mandate.map(MandateId::from_uuid));
        report.hold(Invariant::I8, row, false, || ("a mandate".to_owned(), found()));
        return;
    };
    let expected = (Some(mandate.partner), mandate.account, Some(&mandate.currency));
    let found = (payment.partner, payment.debit, payment.currency.as_ref());
    report.expect(Invariant::I8, row, "partner, debited account, currency of its mandate", &expected, &found);
    let within = mandate.payment_max_minor.is_none_or(|max| payment.amount_minor <= max);
    let say = || {
        let expected = format!("at most {:?}, its mandate's bound", mandate.payment_max_minor);
        (expected, payment.amount_minor.to_string())
    };
    report.hold(Invariant::I8, row, within, say);
    let alive = mandate.expires_at.is_none_or(|expires| payment.accepted_at < expires);
    let say = || ("acceptance before its mandate's expiry".to_owned(), "later".to_owned());
    report.hold(Invariant::I8, row, alive, say);
    // Which of its accounts a partner had chosen at that time is told by `changes`.
    let owner = partner_of(payment.credit, referred);
    let say = || {
        let found = payment.credit.map_or("none".into(), key_of);
        ("an account of the partner to be credited".to_owned(), found)
    };
    report.hold(Invariant::I8, row, owner.is_some() && owner == payment.partner, say);
}
