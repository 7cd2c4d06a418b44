//! How mandates and requests for them end, until when they authorise, and test mandates.

use domain::command::{BankCommand, MandateTerms, PartnerCommand, SandboxMandate, SandboxState};
use domain::event::EventType;
use domain::ids::{mandate_end_id, payment_id, sandbox_account_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency::EUR;
use domain::payment::{PaymentStatus, Reason};

use super::money::{HOLD_S, at, reasons};
use super::world::{self, World, new_account, new_mandate, partner};
use super::{decide, mandate};
use crate::decide::Partner;
use crate::item::{Content, Item};

pub(super) fn terms(n: u128) -> MandateTerms {
    MandateTerms {
        mandate: new_mandate(n),
        kind: MandateKind::Standing,
        currency: EUR,
        payment_max_minor: None,
        daily_max_minor: None,
        expires_at: None,
        reference: None,
        answer_by: Some(world::ACCEPTED_AT),
    }
}

pub(super) fn end(n: u128, cause: &str, command: PartnerCommand) -> Item {
    end_by(1, n, cause, command)
}

/// The end of a mandate, asked for by this partner.
fn end_by(by: u128, n: u128, cause: &str, command: PartnerCommand) -> Item {
    let id = mandate_end_id(partner(by), new_mandate(n), cause);
    let mut item = world::partner_command(partner(by), cause, id, command);
    if let Content::Partner(envelope) = &mut item.content {
        envelope.id = id;
    }
    item
}

#[test]
fn what_ends_a_request_makes_a_mandate_that_nobody_can_grant_any_more() {
    let decline =
        |id, n| world::bank(id, BankCommand::DeclineMandate { partner: partner(1), terms: terms(n) });
    let items = [
        decline(1, 5),
        world::bank(2, BankCommand::GrantMandate(world::grant(new_mandate(5)))),
        decline(3, 5),
        end(6, "cancel", PartnerCommand::CancelMandate(terms(6))),
        world::bank(4, BankCommand::GrantMandate(world::grant(new_mandate(6)))),
        end(7, "expire", PartnerCommand::ExpireMandate(terms(7))),
        world::bank(5, BankCommand::GrantMandate(world::grant(new_mandate(7)))),
    ];
    let (view, left) = decide(&items, World::new().view, world::DECIDED_AT);
    let exists = Some(Reason::MandateExists);
    assert_eq!(reasons(&left), [None, exists, exists, None, exists, None, exists]);
    let told: Vec<_> = left.events.iter().map(|event| event.event_type).collect();
    assert_eq!(told, [EventType::MandateDeclined, EventType::MandateRevoked, EventType::MandateExpired]);
    let payments = [(5, "declined"), (6, "cancelled"), (7, "expired")]
        .map(|(n, key)| world::payment_of(partner(1), new_mandate(n), key, 100));
    let (_, left) = decide(&payments, view, world::DECIDED_AT);
    let refused: Vec<_> = left.payments.iter().map(|row| row.reason.unwrap()).collect();
    assert_eq!(refused, [Reason::MandateUnknown, Reason::MandateRevoked, Reason::MandateExpired]);
}

#[test]
fn a_mandate_expires_when_its_time_has_come_and_not_before() {
    let mut view = World::new().view;
    mandate(&mut view).expires_at = Some(world::ACCEPTED_AT.plus_micros(1));
    let expire =
        || end(1, "expire", PartnerCommand::ExpireMandate(MandateTerms { answer_by: None, ..terms(1) }));
    let items = [expire(), at(expire(), world::ACCEPTED_AT.plus_micros(1))];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    assert_eq!((reasons(&left), left.duplicates), (vec![None], 1));
    assert_eq!(view.mandates[&world::mandate_id()].row.status, MandateStatus::Expired);
    // A cancel after that, and one of a foreign mandate, are refused.
    let cancel = |by| end_by(by, 1, "cancel", PartnerCommand::CancelMandate(terms(1)));
    let (_, left) = decide(&[cancel(2), cancel(1)], view, world::DECIDED_AT);
    assert_eq!(reasons(&left), [Some(Reason::MandateUnknown), Some(Reason::MandateNotActive)]);
}

/// To the microsecond: from its end on a mandate authorises nothing and can no longer be granted.
#[test]
fn a_mandate_authorises_until_its_end_and_not_at_it() {
    let end = world::ACCEPTED_AT.plus_micros(1);
    let mut view = World::new().view;
    mandate(&mut view).expires_at = Some(end);
    let granted = |id, n| {
        let grant = domain::command::GrantMandate { expires_at: Some(end), ..world::grant(new_mandate(n)) };
        world::bank(id, BankCommand::GrantMandate(grant))
    };
    let items = [
        granted(1, 5),
        at(granted(2, 6), end),
        world::payment("before", 100),
        at(world::payment("at its end", 100), end),
        at(world::authorization("held at its end", 100, HOLD_S), end),
    ];
    let (_, left) = decide(&items, view, world::DECIDED_AT);
    let expired = Some(Reason::MandateExpired);
    assert_eq!(reasons(&left), [None, expired]);
    let paid: Vec<_> = left.payments.iter().map(|row| row.reason).collect();
    assert_eq!(paid, [None, expired, expired]);
}

/// What a foreign partner was refused is not what the right one asks for.
#[test]
fn nobody_can_use_up_the_cancel_of_another_partners_mandate() {
    let cancel = |by| end_by(by, 1, "cancel", PartnerCommand::CancelMandate(terms(1)));
    let (view, left) = decide(&[cancel(2), cancel(1)], World::new().view, world::DECIDED_AT);
    assert_eq!(reasons(&left), [Some(Reason::MandateUnknown), None]);
    assert_eq!(view.mandates[&world::mandate_id()].row.status, MandateStatus::Revoked);
}

#[test]
fn a_test_partner_gets_a_settlement_account_with_its_first_sandbox_mandate() {
    let sandbox = |key: &str, n: u128, state| {
        let terms = MandateTerms { answer_by: None, ..terms(n) };
        let command = SandboxMandate { account: new_account(n), balance_minor: 1_000, terms, state };
        let id = payment_id(partner(2), key);
        world::partner_command(partner(2), key, id, PartnerCommand::SandboxMandate(command))
    };
    let mut view = World::new().view;
    let live = sandbox("live", 10, SandboxState::Active);
    view.partners.insert(partner(2), Partner { active: true, livemode: false });
    let mut of_live = live.clone();
    if let Content::Partner(envelope) = &mut of_live.content {
        envelope.partner = partner(1);
    }
    let items = [
        of_live,
        sandbox("a", 11, SandboxState::Active),
        sandbox("a again", 11, SandboxState::Active),
        sandbox("b", 12, SandboxState::AccountFrozen),
        sandbox("c", 13, SandboxState::AccountClosed),
        world::payment_of(partner(2), new_mandate(11), "p", 1_000),
        world::payment_of(partner(2), new_mandate(12), "q", 1_000),
    ];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    assert_eq!(
        reasons(&left),
        [
            Some(Reason::TestPartnersOnly),
            None,
            Some(Reason::AccountExists),
            None,
            Some(Reason::AccountNotEmpty)
        ]
    );
    let paid: Vec<_> = left.payments.iter().map(|row| (row.status, row.reason)).collect();
    assert_eq!(
        paid[2..],
        [(PaymentStatus::Posted, None), (PaymentStatus::Rejected, Some(Reason::AccountFrozen))]
    );
    let settlement = view.settlement_accounts[&(partner(2), EUR)].row;
    assert_eq!(view.accounts[&settlement].row.balance_minor, 1_000);
    assert_eq!(view.accounts[&sandbox_account_id(EUR)].row.balance_minor, -2_000);
}
