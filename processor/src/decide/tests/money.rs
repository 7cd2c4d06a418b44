//! Captures, voids, expiries, refunds, reversals, transfers and what the bank does to accounts: every rejection, in
//! order of precedence.

use domain::account::{AccountStatus, Owner};
use domain::command::{
    BankCommand, BankTransfer, Deposit, FollowUp, Part, PartnerCommand, Reversal, SetLimits, TransferCommand,
};
use domain::event::EventType;
use domain::ids::{PartnerId, PaymentId, bank_account_id, expiry_id, payment_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency::{self, EUR, USD};
use domain::payment::{Metadata, PaymentStatus, Reason};
use domain::time::Timestamp;

use super::mandates::{end, terms};
use super::world::{self, World, customer_account, new_account, new_mandate, partner, shop_account};
use super::{Left, Row, Spoil, customer, decide, mandate, shop};
use crate::decide::{Slot, Touch, View};
use crate::item::{Content, Item};

/// How long the authorisations of these tests hold.
pub(super) const HOLD_S: u32 = 60;

fn part(amount_minor: i64) -> Part {
    Part { amount_minor, currency: EUR }
}

fn follow_up(part: Option<Part>) -> FollowUp {
    FollowUp { part, reference: None, description: None, metadata: Metadata::new() }
}

/// A command of the first partner on the payment under `root`.
fn on(root: PaymentId, key: &str, command: PartnerCommand) -> Item {
    world::partner_command(partner(1), key, root, command)
}

fn capture(root: PaymentId, key: &str, part: Option<Part>) -> Item {
    on(root, key, PartnerCommand::Capture(follow_up(part)))
}

fn refund(root: PaymentId, key: &str, part: Option<Part>) -> Item {
    on(root, key, PartnerCommand::Refund(follow_up(part)))
}

fn void(root: PaymentId, key: &str) -> Item {
    on(root, key, PartnerCommand::Void(follow_up(None)))
}

fn expire(root: PaymentId) -> Item {
    let mut item = on(root, "expire", PartnerCommand::Expire);
    if let Content::Partner(envelope) = &mut item.content {
        envelope.id = expiry_id(root);
    }
    item
}

fn transfer(key: &str, from: u128, to: u128, amount_minor: i64, outward: bool) -> Item {
    let command = TransferCommand {
        from: new_account(from),
        to: new_account(to),
        amount_minor,
        currency: EUR,
        outward,
        reference: None,
        description: None,
        metadata: Metadata::new(),
    };
    let id = payment_id(partner(1), key);
    world::partner_command(partner(1), key, id, PartnerCommand::Transfer(command))
}

pub(super) fn at(item: Item, accepted_at: Timestamp) -> Item {
    Item { accepted_at, ..item }
}

/// A payment of 10.00 that is authorised, and its id.
fn authorized(view: View) -> (View, PaymentId) {
    let item = world::authorization("root", 1_000, HOLD_S);
    let (mut view, left) = decide(&[item], view, world::DECIDED_AT);
    assert_eq!(left.payments[0].status, PaymentStatus::Authorized);
    read_again(&mut view);
    (view, left.payments[0].id)
}

/// The same, captured as a whole.
fn posted(view: View) -> (View, PaymentId) {
    let (mut view, left) = decide(&[world::payment("root", 1_000)], view, world::DECIDED_AT);
    read_again(&mut view);
    (view, left.payments[0].id)
}

/// As if the next batch had read what this one wrote.
fn read_again(view: &mut View) {
    view.accounts.values_mut().for_each(|slot| slot.touch = Touch::Read);
    view.mandates.values_mut().for_each(|slot| slot.touch = Touch::Read);
    view.payments.values_mut().for_each(|slot| slot.touch = Touch::Read);
}

fn root(view: &mut View) -> &mut crate::decide::Payment {
    let slot = view.payments.get_mut(&payment_id(partner(1), "root")).unwrap();
    &mut slot.row
}

fn suspend(view: &mut View) {
    view.partners.get_mut(&partner(1)).unwrap().active = false;
}

/// Spoils `view` by the last of `spoils`, then by the two last, and so on; the first one spoiled must win.
fn in_order(view: &View, item: &Item, spoils: &[(Reason, Spoil)], rejected: Option<EventType>) {
    for first in 0..spoils.len() {
        let mut spoiled = view.clone();
        for (_, spoil) in spoils[first..].iter().rev() {
            spoil(&mut spoiled);
        }
        let expected = spoils[first].0;
        let (after, left) = decide(std::slice::from_ref(item), spoiled, world::DECIDED_AT);
        let [row] = left.payments.as_slice() else { panic!("one row for {expected}") };
        assert_eq!((row.status, row.reason), (PaymentStatus::Rejected, Some(expected)));
        assert!(left.entries.is_empty() && left.released.is_empty(), "{expected}: no money moves");
        let untouched = after.accounts.values().all(|slot| slot.touch == Touch::Read);
        assert!(untouched, "{expected}: no account changes");
        let changed = after.payments.values().filter(|slot| slot.touch == Touch::Changed).count();
        assert_eq!(changed, 0, "{expected}: no payment changes");
        let told: Vec<_> = left.events.iter().map(|event| event.event_type).collect();
        assert_eq!(told, rejected.into_iter().collect::<Vec<_>>(), "{expected}");
    }
}

#[test]
fn a_capture_is_checked_in_order() {
    let (view, id) = authorized(World::new().view);
    let spoils: &[(Reason, Spoil)] = &[
        (Reason::PartnerUnknown, |view| view.partners.clear()),
        (Reason::PaymentUnknown, |view| root(view).partner = Some(partner(2))),
        (Reason::CurrencyMismatch, |view| root(view).amount = domain::money::Amount::new(1_000, USD).ok()),
        (Reason::PaymentNotCapturable, |view| root(view).status = PaymentStatus::Voided),
        (Reason::AmountExceedsAuthorized, |view| {
            let currency = root(view).amount.unwrap().currency();
            root(view).amount = domain::money::Amount::new(599, currency).ok();
        }),
        (Reason::PartnerSuspended, suspend),
        (Reason::AccountFrozen, |view| customer(view).status = AccountStatus::Frozen),
        (Reason::AccountClosed, |view| shop(view).status = AccountStatus::Closed),
        (Reason::AmountOverflow, |view| shop(view).balance_minor = i64::MAX),
    ];
    in_order(&view, &capture(id, "c", Some(part(600))), spoils, Some(EventType::CaptureRejected));
}

#[test]
fn a_refund_is_checked_in_order() {
    let (view, id) = posted(World::new().view);
    let spoils: &[(Reason, Spoil)] = &[
        (Reason::PartnerUnknown, |view| view.partners.clear()),
        (Reason::PaymentUnknown, |view| view.payments.clear()),
        (Reason::CurrencyMismatch, |view| root(view).amount = domain::money::Amount::new(1_000, USD).ok()),
        (Reason::PaymentNotRefundable, |view| root(view).status = PaymentStatus::Rejected),
        (Reason::AmountExceedsCaptured, |view| root(view).refunded_minor = 401),
        (Reason::AccountFrozen, |view| shop(view).status = AccountStatus::Frozen),
        (Reason::AccountClosed, |view| customer(view).status = AccountStatus::Closed),
        (Reason::InsufficientFunds, |view| shop(view).balance_minor = 599),
    ];
    in_order(&view, &refund(id, "r", Some(part(600))), spoils, Some(EventType::RefundRejected));
}

#[test]
fn a_void_is_checked_in_order() {
    let (view, id) = authorized(World::new().view);
    let spoils: &[(Reason, Spoil)] = &[
        (Reason::PartnerUnknown, |view| view.partners.clear()),
        (Reason::PaymentUnknown, |view| root(view).partner = None),
        (Reason::PaymentNotVoidable, |view| root(view).status = PaymentStatus::Posted),
    ];
    in_order(&view, &void(id, "v"), spoils, Some(EventType::VoidRejected));
}

#[test]
fn a_transfer_is_checked_in_order() {
    let mut view = World::new().view;
    let own = world::account(new_account(3), Owner::Partner(partner(1)), 0);
    view.accounts.insert(own.id, Slot::read(own));
    shop(&mut view).balance_minor = 1_000;
    let spoils: &[(Reason, Spoil)] = &[
        (Reason::PartnerUnknown, |view| view.partners.clear()),
        (Reason::AccountUnknown, |view| shop(view).owner = Owner::Partner(partner(2))),
        (Reason::TransferOutForbidden, |view| other(view).owner = Owner::Partner(partner(2))),
        (Reason::PartnerSuspended, suspend),
        (Reason::CurrencyMismatch, |view| other(view).currency = USD),
        (Reason::AccountFrozen, |view| shop(view).status = AccountStatus::Frozen),
        (Reason::AccountClosed, |view| other(view).status = AccountStatus::Closed),
        (Reason::PaymentLimit, |view| shop(view).payment_max_minor = Some(599)),
        (Reason::DailyLimit, |view| shop(view).daily_max_minor = Some(599)),
        (Reason::InsufficientFunds, |view| shop(view).held_minor = 401),
    ];
    in_order(&view, &transfer("t", 2, 3, 600, false), spoils, Some(EventType::TransferRejected));
    // To oneself, and from an account that is not there.
    let items = [transfer("self", 2, 2, 600, false), transfer("none", 9, 2, 600, false)];
    let (_, left) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = left.payments.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [Some(Reason::SameAccount), Some(Reason::AccountUnknown)]);
}

fn other(view: &mut View) -> &mut crate::decide::Account {
    &mut view.accounts.get_mut(&new_account(3)).unwrap().row
}

#[test]
fn a_reversal_is_checked_in_order() {
    let (view, payment) = posted(World::new().view);
    let reversal = world::bank(1, BankCommand::Reversal(Reversal { payment, part: Some(part(600)) }));
    let spoils: &[(Reason, Spoil)] = &[
        (Reason::PaymentUnknown, |view| view.payments.clear()),
        (Reason::CurrencyMismatch, |view| root(view).amount = domain::money::Amount::new(1_000, USD).ok()),
        (Reason::PaymentNotReversible, |view| root(view).status = PaymentStatus::Rejected),
        (Reason::AmountExceedsCaptured, |view| root(view).refunded_minor = 401),
        (Reason::AccountFrozen, |view| shop(view).status = AccountStatus::Frozen),
        (Reason::InsufficientFunds, |view| shop(view).balance_minor = 599),
    ];
    in_order(&view, &reversal, spoils, None);
}

#[test]
fn what_is_held_cannot_be_spent_and_what_is_not_captured_is_released() {
    let mut view = World::new().view;
    customer(&mut view).balance_minor = 1_500;
    let (view, id) = authorized(view);
    assert_eq!(view.accounts[&customer_account()].row.held_minor, 1_000);
    let items = [
        world::payment("above", 501),
        world::payment("fits", 500),
        capture(id, "c", Some(part(400))),
        world::payment("rest", 600),
    ];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = left.payments.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [Some(Reason::InsufficientFunds), None, None, None]);
    let account = &view.accounts[&customer_account()].row;
    assert_eq!((account.balance_minor, account.held_minor), (0, 0));
    let root = &view.payments[&id].row;
    assert_eq!((root.status, root.captured_minor, root.version), (PaymentStatus::Posted, 400, 2));
    assert_eq!(left.released, [(customer_account(), id)]);
    assert_eq!(left.follow_ups.len(), 1);
}

#[test]
fn of_capture_and_expiry_exactly_one_wins_at_the_boundary() {
    let (view, id) = authorized(World::new().view);
    let end = world::ACCEPTED_AT.plus_seconds(HOLD_S.into());
    let after = end.plus_micros(1);
    for (items, captured) in [
        // In time to the microsecond, whatever is asked first.
        ([at(expire(id), end), at(capture(id, "c", None), end)], true),
        ([at(capture(id, "c", None), end), at(expire(id), after)], true),
        // Late by a microsecond.
        ([at(capture(id, "c", None), after), at(expire(id), after)], false),
        ([at(expire(id), after), at(capture(id, "c", None), after)], false),
        // A late capture before the expiry was asked for by a clock that jumps.
        ([at(expire(id), after), at(capture(id, "c", None), end)], false),
    ] {
        let (view, left) = decide(&items, view.clone(), world::DECIDED_AT);
        let expected = if captured { PaymentStatus::Posted } else { PaymentStatus::Expired };
        assert_eq!(view.payments[&id].row.status, expected);
        assert_eq!(view.accounts[&customer_account()].row.held_minor, 0);
        assert_eq!(left.entries.len(), if captured { 2 } else { 0 });
        let expiries = left.payments.iter().filter(|row| row.id == expiry_id(id)).count();
        assert_eq!(expiries, usize::from(!captured), "an expiry with nothing to expire leaves nothing");
        assert_eq!(left.duplicates, usize::from(captured));
    }
}

#[test]
fn two_refunds_that_are_too_much_together_end_with_one_rejected() {
    let (view, id) = posted(World::new().view);
    let items = [
        refund(id, "a", Some(part(600))),
        refund(id, "b", Some(part(600))),
        refund(id, "rest", None),
        refund(id, "none", None),
    ];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = left.payments.iter().map(|row| row.reason).collect();
    assert_eq!(
        reasons,
        [None, Some(Reason::AmountExceedsCaptured), None, Some(Reason::PaymentNotRefundable)]
    );
    let root = &view.payments[&id].row;
    assert_eq!((root.refunded_minor, root.version), (1_000, 3));
    assert_eq!(view.accounts[&shop_account()].row.balance_minor, 0);
    assert_eq!(left.payments[2].amount.unwrap().minor(), 400);
}

#[test]
fn what_is_given_back_is_given_back_in_money_only() {
    let mut view = World::new().view;
    mandate(&mut view).daily_max_minor = Some(1_500);
    mandate(&mut view).kind = MandateKind::Single;
    let (view, id) = authorized(view);
    let items = [void(id, "v"), world::payment("again", 100)];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    assert_eq!(left.payments[1].reason, Some(Reason::MandateUsed), "a single use stays used");
    assert_eq!(view.mandates[&world::mandate_id()].row.spent.minor, 1_000, "the cap counts it");
    // A refund of a revoked mandate's payment, by a suspended partner, is still paid.
    let (mut view, id) = posted(World::new().view);
    mandate(&mut view).status = MandateStatus::Revoked;
    suspend(&mut view);
    let (_, left) = decide(&[refund(id, "r", None)], view, world::DECIDED_AT);
    assert_eq!(left.payments[0].reason, None);
}

#[test]
fn caps_count_what_is_authorised() {
    let mut view = World::new().view;
    mandate(&mut view).daily_max_minor = Some(1_500);
    let items =
        [world::authorization("a", 1_000, HOLD_S), world::payment("b", 501), world::payment("c", 500)];
    let (_, left) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = left.payments.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [None, Some(Reason::DailyLimit), None]);
}

#[test]
fn a_transfer_to_another_partner_tells_both() {
    let mut view = World::new().view;
    let theirs = world::account(new_account(3), Owner::Partner(partner(2)), 0);
    view.accounts.insert(theirs.id, Slot::read(theirs));
    shop(&mut view).balance_minor = 1_000;
    let mut item = transfer("t", 2, 3, 600, true);
    if let Content::Partner(envelope) = &mut item.content
        && let PartnerCommand::Transfer(command) = &mut envelope.command
    {
        command.reference = Some("the sender's own".to_owned());
        command.description = Some("for both".to_owned());
    }
    let (view, left) = decide(&[item], view, world::DECIDED_AT);
    assert!(left.events[0].data.contains("for both") && !left.events[0].data.contains("the sender's own"));
    let told: Vec<_> = left.events.iter().map(|event| (event.partner, event.event_type)).collect();
    // In the order of the two columns that name them: the credited one first, since it is told while money moves.
    let expected: [(PartnerId, EventType); 2] =
        [(partner(2), EventType::AccountCredited), (partner(1), EventType::TransferPosted)];
    assert_eq!(told, expected);
    let row = &left.payments[0];
    assert_eq!((row.asked.event_sequence, row.asked.told), (Some(1), Some((partner(2), 1))));
    assert_eq!(view.accounts[&new_account(3)].row.balance_minor, 600);
}

/// Whoever was told of money is told that it is gone, in the same words, and learns nothing of the sender's own.
#[test]
fn a_reversal_tells_the_partner_that_had_been_credited() {
    let mut view = World::new().view;
    let theirs = world::account(new_account(3), Owner::Partner(partner(2)), 0);
    view.accounts.insert(theirs.id, Slot::read(theirs));
    shop(&mut view).balance_minor = 1_000;
    let mut sent = transfer("t", 2, 3, 600, true);
    if let Content::Partner(envelope) = &mut sent.content
        && let PartnerCommand::Transfer(command) = &mut envelope.command
    {
        command.reference = Some("the sender's own".to_owned());
        command.description = Some("for both".to_owned());
    }
    let of_customer = BankTransfer {
        from: customer_account(),
        to: new_account(3),
        amount_minor: 50,
        currency: EUR,
        description: Some("rent".to_owned()),
    };
    let of_customer = world::bank(1, BankCommand::Transfer(of_customer));
    let by_bank = of_customer.id().map(PaymentId::from_uuid).unwrap();
    let reversal = |id, payment, part| world::bank(id, BankCommand::Reversal(Reversal { payment, part }));
    let items = [
        reversal(2, payment_id(partner(1), "t"), Some(part(200))),
        reversal(3, by_bank, None),
        reversal(4, payment_id(partner(1), "own"), None),
    ];
    let (view, left) = decide(&[sent, of_customer, world::payment("own", 100)], view, world::DECIDED_AT);
    assert!(left.payments.iter().all(|row| row.status == PaymentStatus::Posted), "{:?}", left.payments);
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    let told: Vec<_> = left.events.iter().map(|event| (event.partner, event.event_type)).collect();
    let (debited, reversed) = (EventType::AccountDebited, EventType::PaymentReversed);
    assert_eq!(
        told,
        [(partner(2), debited), (partner(1), reversed), (partner(2), debited), (partner(1), reversed)]
    );
    assert!(left.events[0].data.contains(r#""amount":"2.00""#) && left.events[0].data.contains("for both"));
    assert!(!left.events[0].data.contains("the sender's own"));
    assert!(left.events[2].data.contains("rent"), "{}", left.events[2].data);
    let asked: Vec<_> = left.payments.iter().map(|row| row.asked.told.map(|(partner, _)| partner)).collect();
    assert_eq!(asked, [Some(partner(2)), Some(partner(2)), None], "its own payment is told by its reversal");
    assert_eq!(view.accounts[&new_account(3)].row.balance_minor, 400);
}

#[test]
fn an_expiry_behind_a_dead_letter_is_not_kept_since_it_comes_again() {
    let (mut view, id) = authorized(World::new().view);
    view.blocked_roots.insert(id.uuid());
    let mut items =
        [at(expire(id), world::ACCEPTED_AT.plus_seconds(i64::from(HOLD_S) + 1)), capture(id, "c", None)];
    for item in &mut items {
        item.key = Some(id.uuid().as_bytes().to_vec());
    }
    let (_, left) = decide(&items, view, world::DECIDED_AT);
    assert_eq!((left.duplicates, left.dead_letters.len(), left.payments.len()), (1, 1, 0));
}

#[test]
fn sums_that_do_not_fit_are_rejections() {
    let overflow = Some(Reason::AmountOverflow);
    let mut view = World::new().view;
    shop(&mut view).balance_minor = i64::MAX - 1_000;
    shop(&mut view).overdraft_minor = 1;
    customer(&mut view).held_minor = i64::MAX - 1;
    customer(&mut view).overdraft_minor = i64::MAX;
    let set = |id, account, overdraft_minor| {
        let set = SetLimits { account, overdraft_minor, payment_max_minor: None, daily_max_minor: None };
        world::bank(id, BankCommand::SetLimits(set))
    };
    let items = [
        world::payment("credited", 1_000),
        world::authorization("held", 2, HOLD_S),
        world::payment("fits", 999),
        set(1, shop_account(), 2),
    ];
    let (_, left) = decide(&items, view, world::DECIDED_AT);
    let paid: Vec<_> = left.payments.iter().map(|row| row.reason).collect();
    assert_eq!(paid, [overflow, overflow, None]);
    assert_eq!(reasons(&left), [overflow]);
}

pub(super) fn reasons(left: &Left) -> Vec<Option<Reason>> {
    left.changes.iter().map(|row| row.reason).collect()
}

#[test]
fn the_banks_own_accounts_only_take_deposits_and_withdrawals() {
    let cash = bank_account_id(EUR);
    let account = customer_account();
    let money = |account, amount_minor, currency: Currency| Deposit {
        account,
        amount_minor,
        currency,
        reference: None,
    };
    let transfer = |from, to| BankTransfer { from, to, amount_minor: 100, currency: EUR, description: None };
    let items = [
        world::bank(1, BankCommand::Withdrawal(money(account, 100_001, EUR))),
        world::bank(2, BankCommand::Withdrawal(money(account, 100_000, EUR))),
        world::bank(3, BankCommand::Withdrawal(money(account, 1, USD))),
        world::bank(4, BankCommand::Withdrawal(money(cash, 1, EUR))),
        world::bank(5, BankCommand::Transfer(transfer(cash, account))),
        world::bank(6, BankCommand::Transfer(transfer(account, cash))),
        world::bank(7, BankCommand::Deposit(money(account, 100, EUR))),
        world::bank(8, BankCommand::Transfer(transfer(account, shop_account()))),
    ];
    let (view, left) = decide(&items, World::new().view, world::DECIDED_AT);
    let outcomes: Vec<_> = left.payments.iter().map(|row: &Row| row.reason).collect();
    assert_eq!(
        outcomes,
        [
            Some(Reason::InsufficientFunds),
            None,
            Some(Reason::AccountUnknown),
            Some(Reason::SameAccount),
            Some(Reason::BankAccount),
            Some(Reason::BankAccount),
            None,
            None
        ]
    );
    assert_eq!(view.accounts[&cash].row.balance_minor, -100);
    let changes = [
        world::bank(11, BankCommand::FreezeAccount { account: cash }),
        world::bank(12, BankCommand::CloseAccount { account: cash }),
    ];
    let (_, left) = decide(&changes, view, world::DECIDED_AT);
    assert_eq!(reasons(&left), [Some(Reason::BankAccount), Some(Reason::BankAccount)]);
}

#[test]
fn an_account_is_closed_only_when_it_is_empty_and_then_for_ever() {
    let account = customer_account();
    let close = |id| world::bank(id, BankCommand::CloseAccount { account });
    let mut view = World::new().view;
    customer(&mut view).balance_minor = 1_000;
    let (view, id) = authorized(view);
    let withdrawal = Deposit { account, amount_minor: 1_000, currency: EUR, reference: None };
    let items = [
        close(1),
        void(id, "v"),
        close(2),
        world::bank(3, BankCommand::Withdrawal(withdrawal.clone())),
        close(4),
        close(5),
        world::bank(6, BankCommand::Deposit(withdrawal)),
    ];
    let (_, left) = decide(&items, view, world::DECIDED_AT);
    let not_empty = Some(Reason::AccountNotEmpty);
    assert_eq!(reasons(&left), [not_empty, not_empty, None, Some(Reason::AccountClosed)]);
    assert_eq!(left.payments.last().unwrap().reason, Some(Reason::AccountClosed));
}

#[test]
fn limits_are_replaced_as_a_whole_and_never_below_what_is_used() {
    let limits = |id, overdraft_minor, payment_max_minor| {
        let account = customer_account();
        let set = SetLimits { account, overdraft_minor, payment_max_minor, daily_max_minor: None };
        world::bank(id, BankCommand::SetLimits(set))
    };
    let mut view = World::new().view;
    customer(&mut view).balance_minor = 0;
    customer(&mut view).daily_max_minor = Some(1);
    let items = [
        world::payment("none", 500),
        limits(1, 500, None),
        world::payment("overdrawn", 500),
        limits(2, 499, None),
        limits(3, 500, Some(10)),
    ];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    assert_eq!(reasons(&left), [None, Some(Reason::InsufficientFunds), None]);
    let account = &view.accounts[&customer_account()].row;
    assert_eq!((account.balance_minor, account.payment_max_minor), (-500, Some(10)));
}

#[test]
fn the_settlement_account_is_one_of_the_partners_own() {
    let set = |id, n| {
        let command = BankCommand::SetSettlementAccount { partner: partner(1), account: new_account(n) };
        world::bank(id, command)
    };
    let mut view = World::new().view;
    let second = world::account(new_account(3), Owner::Partner(partner(1)), 0);
    view.accounts.insert(second.id, Slot::read(second));
    let items = [set(1, 1), set(2, 2), set(3, 3), world::payment("p", 100)];
    let (view, left) = decide(&items, view, world::DECIDED_AT);
    assert_eq!(reasons(&left), [Some(Reason::AccountUnknown), Some(Reason::StatusUnchanged), None]);
    assert_eq!(view.accounts[&new_account(3)].row.balance_minor, 100);
    assert_eq!(view.settlement_accounts[&(partner(1), EUR)].touch, Touch::Changed);
}

#[test]
fn test_money_never_becomes_real() {
    let test = |view: &mut View, n| view.accounts.get_mut(&new_account(n)).unwrap().row.livemode = false;
    let mismatch = Some(Reason::LivemodeMismatch);
    let mut view = World::new().view;
    shop(&mut view).balance_minor = 1_000;
    test(&mut view, 2);
    let deposit = Deposit { account: shop_account(), amount_minor: 5, currency: EUR, reference: None };
    let back = BankTransfer {
        from: customer_account(),
        to: shop_account(),
        amount_minor: 5,
        currency: EUR,
        description: None,
    };
    let items = [
        world::payment("in", 100),
        world::authorization("held", 100, HOLD_S),
        transfer("out", 2, 1, 100, true),
        world::bank(1, BankCommand::Deposit(deposit.clone())),
        world::bank(2, BankCommand::Withdrawal(deposit)),
        world::bank(3, BankCommand::Transfer(back)),
    ];
    let (_, left) = decide(&items, view.clone(), world::DECIDED_AT);
    assert!(left.payments.iter().all(|row| row.reason == mismatch), "{:?}", left.payments);
    // What moves test money, or would, says so, whoever asks.
    let live: Vec<_> = left.payments.iter().map(|row| row.livemode).collect();
    assert_eq!(live, [true, true, true, false, false, true]);
    test(&mut view, 1);
    let (_, left) = decide(&items[3..6], view.clone(), world::DECIDED_AT);
    assert_eq!(left.payments.iter().map(|row| row.livemode).collect::<Vec<_>>(), [false, false, false]);
    assert_eq!(left.payments[2].status, PaymentStatus::Posted);
    let mut view = World::new().view;
    shop(&mut view).balance_minor = 1_000;
    test(&mut view, 2);
    // Nor does a customer let a test partner debit a real account.
    view.partners.get_mut(&partner(1)).unwrap().livemode = false;
    let grant = world::bank(4, BankCommand::GrantMandate(world::grant(new_mandate(9))));
    let (view, left) = decide(&[grant], view, world::DECIDED_AT);
    assert_eq!(reasons(&left), [mismatch]);
    // And nobody debits the bank itself.
    let mut grant = world::grant(new_mandate(10));
    grant.account = bank_account_id(EUR);
    let (_, left) =
        decide(&[world::bank(5, BankCommand::GrantMandate(grant))], view.clone(), world::DECIDED_AT);
    assert_eq!(reasons(&left), [Some(Reason::BankAccount)]);
    // An account keeps its kind of money when its partner goes live.
    let open = BankCommand::OpenAccount(world::open_for_partner(new_account(7), 1));
    let (mut view, _) = decide(&[world::bank(6, open)], view, world::DECIDED_AT);
    view.partners.get_mut(&partner(1)).unwrap().livemode = true;
    assert!(!view.accounts[&new_account(7)].row.livemode);
}

/// One batch after which every type of event was told, each as it is described, and none otherwise than before.
#[test]
fn every_type_of_event_is_told_as_its_schema_describes_it() {
    let cancelled = end(6, "cancel", PartnerCommand::CancelMandate(terms(6)));
    let expired = end(7, "expire", PartnerCommand::ExpireMandate(terms(7)));
    let root = |key: &str| payment_id(partner(1), key);
    let reversal = Reversal { payment: root("posted"), part: Some(part(100)) };
    let deposit = Deposit {
        account: shop_account(),
        amount_minor: 5_000,
        currency: EUR,
        reference: Some("a loan".to_owned()),
    };
    let paid_in = BankTransfer {
        from: customer_account(),
        to: shop_account(),
        amount_minor: 300,
        currency: EUR,
        description: Some("a deposit for the kegs".to_owned()),
    };
    let of_bank = world::bank(5, BankCommand::Transfer(paid_in.clone())).id().map(PaymentId::from_uuid);
    let moved_back = Reversal { payment: of_bank.unwrap(), part: None };
    let over = world::ACCEPTED_AT.plus_seconds(i64::from(HOLD_S) + 1);
    let items = [
        world::bank(1, BankCommand::Deposit(deposit)),
        world::bank(2, BankCommand::GrantMandate(world::grant(new_mandate(5)))),
        world::bank(3, BankCommand::DeclineMandate { partner: partner(1), terms: terms(8) }),
        cancelled,
        expired,
        world::payment("posted", 1_000),
        world::payment("rejected", 1_000_000),
        world::payment("posted", 1_001),
        world::authorization("captured", 1_000, HOLD_S),
        world::authorization("voided", 1_000, HOLD_S),
        world::authorization("expired", 1_000, HOLD_S),
        capture(root("captured"), "c1", Some(part(600))),
        capture(root("captured"), "c2", None),
        void(root("voided"), "v1"),
        void(root("voided"), "v2"),
        at(expire(root("expired")), over),
        refund(root("posted"), "r1", Some(part(400))),
        refund(root("none"), "r2", None),
        world::bank(4, BankCommand::Reversal(reversal)),
        transfer("t1", 2, 1, 100, true),
        transfer("t2", 2, 9, 100, false),
        world::bank(5, BankCommand::Transfer(paid_in)),
        world::bank(6, BankCommand::Reversal(moved_back)),
    ];
    let (_, left) = decide(&items, World::new().view, world::DECIDED_AT);
    let bodies: std::collections::BTreeMap<_, _> = left
        .events
        .iter()
        .map(|row| {
            let event = domain::event::EventRecord {
                schema: domain::command::SCHEMA,
                id: domain::ids::event_id(row.partner, row.epoch, row.sequence),
                partner: row.partner,
                sequence: row.sequence,
                epoch: row.epoch,
                event_type: row.event_type,
                timestamp: row.occurred_at,
                data: serde_json::value::RawValue::from_string(row.data.clone()).unwrap(),
            };
            let body = event.webhook_body(domain::event::API_VERSION);
            testkit::schema::check(body.as_bytes()).unwrap();
            (row.event_type.as_str(), serde_json::from_str::<serde_json::Value>(&body).unwrap())
        })
        .collect();
    let all: std::collections::BTreeSet<_> = EventType::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(bodies.keys().copied().collect::<std::collections::BTreeSet<_>>(), all);
    insta::assert_json_snapshot!(bodies);
}
