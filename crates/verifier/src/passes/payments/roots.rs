//! I6 and I8: a payment against everything that belongs to it, read at one moment.

use domain::{
    ids::PaymentId,
    payment::{PaymentKind, PaymentStatus, Reason},
};

use super::{
    Referred, payment_key,
    row::{Shape, is_follow_up},
};
use crate::{
    Invariant, Report,
    report::Row,
    store::{Payment, Root},
};

/// What the follow-ups of a payment leave of it: status, version, what was captured and what was given back.
pub(super) fn check(report: &mut Report, root: &Root) {
    let payment = &root.payment;
    let key = || payment_key(payment);
    let row = Row { table: "payments", key: &key };
    // A row of unknown codes is named by its own checks.
    let Some(shape) = Shape::of(payment) else { return };
    let [captures, voids, expiries, refunds, reversals] = root.posted;
    let say = || ("follow_ups of this payment only".to_owned(), format!("{} that are none", root.strangers));
    report.hold(Invariant::I4, &row, root.strangers == 0, say);
    if is_follow_up(shape.kind) || shape.kind == PaymentKind::Conflict {
        let say = || ("no posted follow-up of what is one itself".to_owned(), format!("{:?}", root.posted));
        report.hold(Invariant::I8, &row, root.posted.iter().sum::<i64>() == 0, say);
        return;
    }
    let ended = captures + voids + expiries;
    if shape.holds {
        let expected = match (captures, voids, expiries) {
            (0, 0, 0) => Some(PaymentStatus::Authorized),
            (1, 0, 0) => Some(PaymentStatus::Posted),
            (0, 1, 0) => Some(PaymentStatus::Voided),
            (0, 0, 1) => Some(PaymentStatus::Expired),
            (_, _, _) => None,
        };
        let say = || {
            let found =
                format!("{} with {captures} captures, {voids} voids, {expiries} expiries", shape.status);
            ("the status that its captures, voids and expiries leave".to_owned(), found)
        };
        report.hold(Invariant::I6, &row, expected == Some(shape.status), say);
        let captured = i128::from(payment.captured_minor);
        report.expect(Invariant::I8, &row, "captured_minor", &root.captured_minor, &captured);
        let held = (shape.status == PaymentStatus::Authorized).then_some(payment.amount_minor);
        report.expect(Invariant::I2, &row, "a hold of", &held, &root.hold);
    } else {
        let say = || ("nothing captured, voided or expired".to_owned(), format!("{ended} follow-ups"));
        report.hold(Invariant::I6, &row, ended == 0, say);
        report.expect(Invariant::I2, &row, "a hold of", &None, &root.hold);
    }
    let refunded = i128::from(payment.refunded_minor);
    report.expect(Invariant::I8, &row, "refunded_minor", &root.given_back_minor, &refunded);
    let version = 1 + ended + refunds + reversals;
    report.expect(Invariant::I6, &row, "version", &version, &i64::from(payment.version));
}

/// A follow-up stands in the list of its root, and its root is there.
pub(super) fn check_link(
    report: &mut Report,
    row: &Row<'_>,
    payment: &Payment,
    shape: Shape,
    referred: &Referred,
) {
    if !is_follow_up(shape.kind) {
        return;
    }
    let root = referred.roots.get(&payment.root);
    let name = || PaymentId::from_uuid(payment.root);
    let reason = payment.reason.and_then(Reason::from_code);
    // These say that there was no such payment of this partner when it was decided; it may have come since.
    let unknown =
        matches!(reason, Some(Reason::PaymentUnknown | Reason::PartnerUnknown | Reason::ProcessingFailed));
    report.hold(Invariant::I4, row, unknown || root.is_some(), || {
        (format!("its root {}", name()), "no such payment".to_owned())
    });
    let linked = referred.follow_ups.contains(&(payment.root, payment.id));
    let say = || (format!("a row of follow_ups under {}", name()), "none".to_owned());
    report.hold(Invariant::I4, row, unknown || linked, say);
}
