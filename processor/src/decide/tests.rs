//! Tables of every rejection, in order of precedence, and a property test against a naive model.

mod mandates;
mod model;
mod money;
mod world;

use domain::account::{AccountStatus, Direction};
use domain::command::{BankCommand, Deposit};
use domain::event::EventType;
use domain::ids::bank_account_id;
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::{Day, Timestamp};
use uuid::Uuid;

use super::{Asked, DeadLetterReason, Effects, Payment, Touch, View};
use crate::item::{Content, Item};
use world::{World, partner, shop_account};

type Spoil = fn(&mut View);

/// A row of `payments`: the payment and who was told.
#[derive(Debug, Clone)]
struct Row {
    payment: Payment,
    asked: Asked,
}

impl std::ops::Deref for Row {
    type Target = Payment;

    fn deref(&self) -> &Payment {
        &self.payment
    }
}

/// What a batch leaves, with its payments put together.
struct Left {
    payments: Vec<Row>,
    effects: Effects,
}

impl std::ops::Deref for Left {
    type Target = Effects;

    fn deref(&self) -> &Effects {
        &self.effects
    }
}

fn decide(items: &[Item], view: View, decided_at: Timestamp) -> (View, Left) {
    let (view, effects) = super::decide(items, view, decided_at);
    let rows = effects.payments.iter().map(|asked| {
        let payment = view.payments[&asked.payment].row.clone();
        Row { payment, asked: asked.clone() }
    });
    (view.clone(), Left { payments: rows.collect(), effects })
}

/// Each row breaks one more thing on top of all rows below it, so that the row above must win.
#[test]
fn a_payment_is_checked_in_order() {
    let world = World::new();
    let spoils: &[(Reason, Spoil)] = &[
        (Reason::PartnerUnknown, |view| view.partners.clear()),
        (Reason::MandateUnknown, |view| mandate(view).partner = partner(9)),
        (Reason::CurrencyMismatch, |view| mandate(view).currency = Currency::USD),
        (Reason::SettlementAccountMissing, |view| view.settlement_accounts.clear()),
        (Reason::PartnerSuspended, |view| {
            if let Some(partner) = view.partners.get_mut(&partner(1)) {
                partner.active = false;
            }
        }),
        (Reason::AccountFrozen, |view| customer(view).status = AccountStatus::Frozen),
        (Reason::AccountClosed, |view| shop(view).status = AccountStatus::Closed),
        (Reason::MandateRevoked, |view| mandate(view).status = MandateStatus::Revoked),
        (Reason::MandateExpired, |view| mandate(view).expires_at = Some(world::ACCEPTED_AT)),
        (Reason::MandateLimit, |view| mandate(view).payment_max_minor = Some(999)),
        (Reason::PaymentLimit, |view| customer(view).payment_max_minor = Some(999)),
        (Reason::DailyLimit, |view| mandate(view).daily_max_minor = Some(999)),
        (Reason::InsufficientFunds, |view| customer(view).balance_minor = 999),
    ];
    for first in 0..spoils.len() {
        let mut view = world.view.clone();
        for (_, spoil) in spoils[first..].iter().rev() {
            spoil(&mut view);
        }
        let expected = spoils[first].0;
        let (after, effects) = decide(&[world::payment("a", 1_000)], view.clone(), world::DECIDED_AT);
        let [row] = effects.payments.as_slice() else { panic!("one row for {expected}") };
        assert_eq!((row.status, row.reason), (PaymentStatus::Rejected, Some(expected)));
        assert_eq!(row.versions, None);
        assert!(effects.entries.is_empty(), "{expected}: no money moves");
        assert!(
            after.accounts.values().all(|slot| slot.touch == Touch::Read),
            "{expected}: no account changes"
        );
        assert!(
            after.mandates.values().all(|slot| slot.touch == Touch::Read),
            "{expected}: no mandate changes"
        );
        assert_eq!(effects.events.len(), 1, "{expected}: the partner is told");
        assert_eq!(effects.events[0].event_type, EventType::PaymentRejected);
    }
}

#[test]
fn the_statuses_that_the_table_of_precedence_cannot_combine() {
    let world = World::new();
    let cases: &[(Reason, Spoil)] = &[
        (Reason::AccountClosed, |view| customer(view).status = AccountStatus::Closed),
        (Reason::MandateUsed, |view| mandate(view).status = MandateStatus::Used),
        (Reason::MandateUnknown, |view| view.mandates.clear()),
        (Reason::DailyLimit, |view| customer(view).daily_max_minor = Some(999)),
        (Reason::SameAccount, |view| mandate(view).account = Some(shop_account())),
        (Reason::AmountOverflow, |view| shop(view).balance_minor = i64::MAX - 999),
        (Reason::InsufficientFunds, |view| customer(view).held_minor = 99_001),
    ];
    for (expected, spoil) in cases {
        let mut view = world.view.clone();
        spoil(&mut view);
        let (_, effects) = decide(&[world::payment("a", 1_000)], view, world::DECIDED_AT);
        assert_eq!(effects.payments[0].reason, Some(*expected));
    }
}

#[test]
fn a_payment_posts_two_entries_chained_to_their_accounts() {
    let world = World::new();
    let (view, effects) = decide(&[world::payment("a", 1_000)], world.view.clone(), world::DECIDED_AT);
    let row = &effects.payments[0];
    assert_eq!((row.status, row.reason, row.asked.event_sequence), (PaymentStatus::Posted, None, Some(1)));
    let [debit, credit] = effects.entries.as_slice() else { panic!("two entries") };
    assert_eq!((debit.entry.direction, debit.entry.balance_minor), (Direction::Debit, 99_000));
    assert_eq!((credit.entry.direction, credit.entry.balance_minor), (Direction::Credit, 1_000));
    for written in [debit, credit] {
        let before = world.view.accounts[&written.entry.account].row.head;
        assert_eq!(written.hash, written.entry.hash_after(&before));
        assert_eq!(view.accounts[&written.entry.account].row.head, written.hash);
    }
    assert!(
        view.mandates.values().all(|slot| slot.touch == Touch::Read),
        "an uncapped mandate is not written"
    );
}

#[test]
fn limits_hold_at_their_exact_value() {
    let world = World::new();
    let mut view = world.view.clone();
    mandate(&mut view).payment_max_minor = Some(1_000);
    mandate(&mut view).daily_max_minor = Some(2_500);
    customer(&mut view).balance_minor = 2_000;
    let items = [
        world::payment("a", 1_000),
        world::payment("b", 1_001),
        world::payment("c", 1_000),
        world::payment("d", 1),
    ];
    let (_, effects) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = effects.payments.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [None, Some(Reason::MandateLimit), None, Some(Reason::InsufficientFunds)]);
}

#[test]
fn a_daily_cap_begins_anew_with_the_day_and_never_goes_back() {
    let world = World::new();
    let mut view = world.view.clone();
    mandate(&mut view).daily_max_minor = Some(1_000);
    let day = |payment: Item, day: i32| Item { accepted_day: Day(day), ..payment };
    let items = [
        day(world::payment("a", 1_000), 10),
        day(world::payment("b", 1), 10),
        day(world::payment("c", 600), 11),
        // A late record of the day before counts for the later day.
        day(world::payment("d", 500), 10),
        day(world::payment("e", 400), 11),
    ];
    let (after, effects) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = effects.payments.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [None, Some(Reason::DailyLimit), None, Some(Reason::DailyLimit), None]);
    let mandate = &after.mandates[&world::mandate_id()].row;
    assert_eq!((mandate.spent.day, mandate.spent.minor), (Day(11), 1_000));
}

#[test]
fn a_single_use_is_spent_by_a_posted_payment_only() {
    let world = World::new();
    let mut view = world.view.clone();
    mandate(&mut view).kind = MandateKind::Single;
    let items = [world::payment("a", 100_001), world::payment("b", 1_000), world::payment("c", 1_000)];
    let (after, effects) = decide(&items, view, world::DECIDED_AT);
    let reasons: Vec<_> = effects.payments.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [Some(Reason::InsufficientFunds), None, Some(Reason::MandateUsed)]);
    assert_eq!(after.mandates[&world::mandate_id()].row.status, MandateStatus::Used);
}

#[test]
fn a_repeated_command_leaves_nothing_and_another_request_one_conflict() {
    let world = World::new();
    let other = world::payment("a", 2_000);
    let items = [world::payment("a", 1_000), world::payment("a", 1_000), other.clone(), other];
    let (view, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    let kinds: Vec<_> = effects.payments.iter().map(|row| (row.kind, row.status)).collect();
    assert_eq!(
        kinds,
        [(PaymentKind::Payment, PaymentStatus::Posted), (PaymentKind::Conflict, PaymentStatus::Conflicted)]
    );
    assert_eq!(effects.duplicates, 2);
    assert_eq!(effects.payments[1].root, effects.payments[0].id);
    assert_eq!(effects.events[1].event_type, EventType::PaymentConflicted);
    // In a later batch as well.
    let (_, effects) = decide(&items, view, world::DECIDED_AT);
    assert_eq!((effects.duplicates, effects.payments.len()), (4, 0));
}

#[test]
fn a_rejected_payment_stays_rejected() {
    let world = World::new();
    let mut view = world.view.clone();
    customer(&mut view).balance_minor = 0;
    let payment = world::payment("a", 1_000);
    let (mut view, effects) = decide(std::slice::from_ref(&payment), view, world::DECIDED_AT);
    assert_eq!(effects.payments[0].reason, Some(Reason::InsufficientFunds));
    customer(&mut view).balance_minor = 100_000;
    let (_, effects) = decide(&[payment], view, world::DECIDED_AT);
    assert_eq!((effects.duplicates, effects.entries.len()), (1, 0));
}

#[test]
fn what_cannot_be_applied_is_set_aside_and_holds_back_its_root() {
    let world = World::new();
    let mut undecodable = world::payment("a", 1_000);
    undecodable.content = Content::Undecodable("no JSON".to_owned());
    let mut unfit = world::payment("b", 1_000);
    unfit.data_error = Some("too long".to_owned());
    let mut behind = world::payment("c", 1_000);
    behind.key.clone_from(&unfit.key);
    let items = [undecodable, unfit, behind, world::payment("d", 1_000)];
    let (view, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    let letters: Vec<_> = effects.dead_letters.iter().map(|letter| (letter.item, letter.reason)).collect();
    assert_eq!(
        letters,
        [
            (0, DeadLetterReason::Undecodable),
            (1, DeadLetterReason::DataError),
            (2, DeadLetterReason::BehindDeadLetter)
        ]
    );
    assert_eq!(effects.payments.len(), 1, "the rest posts");
    assert_eq!(view.sequences[&partner(1)].row.last, 1, "a dead letter takes no sequence");
}

#[test]
fn accounts_are_opened_frozen_and_unfrozen() {
    let world = World::new();
    let account = world::new_account(7);
    let open = world::bank(1, BankCommand::OpenAccount(world::open_for_partner(account, 2)));
    let again = world::bank(2, BankCommand::OpenAccount(world::open_for_partner(account, 2)));
    let stranger =
        world::bank(3, BankCommand::OpenAccount(world::open_for_partner(world::new_account(8), 99)));
    let freeze = |id| world::bank(id, BankCommand::FreezeAccount { account });
    let unfreeze = |id| world::bank(id, BankCommand::UnfreezeAccount { account });
    let unknown = world::bank(8, BankCommand::FreezeAccount { account: world::new_account(99) });
    let items = [open, again, stranger, freeze(4), freeze(5), unfreeze(6), unfreeze(7), unknown];
    let (view, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    let reasons: Vec<_> = effects.changes.iter().map(|row| row.reason).collect();
    assert_eq!(
        reasons,
        [
            None,
            Some(Reason::AccountExists),
            Some(Reason::PartnerUnknown),
            None,
            Some(Reason::StatusUnchanged),
            None,
            Some(Reason::StatusUnchanged),
            Some(Reason::AccountUnknown)
        ]
    );
    assert_eq!(view.accounts[&account].touch, Touch::New);
    let settlement = &view.settlement_accounts[&(partner(2), Currency::EUR)];
    assert_eq!((settlement.row, settlement.touch), (account, Touch::New));
}

#[test]
fn a_closed_account_cannot_be_frozen() {
    let world = World::new();
    let mut view = world.view.clone();
    customer(&mut view).status = AccountStatus::Closed;
    let account = world::customer_account();
    let items = [
        world::bank(1, BankCommand::FreezeAccount { account }),
        world::bank(2, BankCommand::UnfreezeAccount { account }),
    ];
    let (_, effects) = decide(&items, view, world::DECIDED_AT);
    assert!(effects.changes.iter().all(|row| row.reason == Some(Reason::AccountClosed)));
}

#[test]
fn mandates_are_granted_and_revoked_and_their_partner_is_told() {
    let world = World::new();
    let granted = world::new_mandate(5);
    let grant = |change: fn(&mut domain::command::GrantMandate)| {
        let mut grant = world::grant(world::new_mandate(5));
        change(&mut grant);
        BankCommand::GrantMandate(grant)
    };
    let revoke = BankCommand::RevokeMandate { mandate: granted };
    let commands = [
        (grant(|grant| grant.partner = partner(99)), Some(Reason::PartnerUnknown)),
        (grant(|grant| grant.account = world::new_account(99)), Some(Reason::AccountUnknown)),
        (grant(|grant| grant.currency = Currency::USD), Some(Reason::CurrencyMismatch)),
        (grant(|grant| grant.expires_at = Some(world::ACCEPTED_AT)), Some(Reason::MandateExpired)),
        (revoke.clone(), Some(Reason::MandateUnknown)),
        (grant(|_| {}), None),
        (grant(|_| {}), Some(Reason::MandateExists)),
        (revoke.clone(), None),
        (revoke, Some(Reason::MandateNotActive)),
    ];
    let items: Vec<_> =
        commands.iter().zip(1..).map(|((command, _), id)| world::bank(id, command.clone())).collect();
    let (view, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    let reasons: Vec<_> = effects.changes.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, commands.map(|(_, reason)| reason));
    let types: Vec<_> = effects.events.iter().map(|row| row.event_type).collect();
    assert_eq!(types, [EventType::MandateActive, EventType::MandateRevoked]);
    assert_eq!(view.mandates[&granted].row.status, MandateStatus::Revoked);
    assert_eq!(effects.changes[5].told, Some((partner(1), 1)));
}

#[test]
fn a_used_change_id_with_another_command_is_a_conflict() {
    let world = World::new();
    let account = world::customer_account();
    let freeze = world::bank(1, BankCommand::FreezeAccount { account });
    let other = world::bank(1, BankCommand::UnfreezeAccount { account });
    let items = [freeze.clone(), freeze, other.clone(), other];
    let (view, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    let reasons: Vec<_> = effects.changes.iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [None, Some(Reason::IdempotencyConflict)]);
    assert_eq!(effects.duplicates, 2);
    assert_eq!(view.accounts[&account].row.status, AccountStatus::Frozen);
}

#[test]
fn deposits_come_from_the_banks_own_account() {
    let world = World::new();
    let deposit = |id: u128, account, currency| {
        world::bank(
            id,
            BankCommand::Deposit(Deposit { account, amount_minor: 500, currency, reference: None }),
        )
    };
    let items = [
        deposit(1, world::customer_account(), Currency::EUR),
        deposit(2, shop_account(), Currency::EUR),
        deposit(3, world::new_account(99), Currency::EUR),
        deposit(4, world::customer_account(), Currency::USD),
        deposit(5, bank_account_id(Currency::EUR), Currency::EUR),
        deposit(1, shop_account(), Currency::EUR),
    ];
    let (view, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    let outcomes: Vec<_> = effects.payments.iter().map(|row| (row.status, row.reason)).collect();
    assert_eq!(
        outcomes,
        [
            (PaymentStatus::Posted, None),
            (PaymentStatus::Posted, None),
            (PaymentStatus::Rejected, Some(Reason::AccountUnknown)),
            (PaymentStatus::Rejected, Some(Reason::AccountUnknown)),
            (PaymentStatus::Rejected, Some(Reason::SameAccount)),
            (PaymentStatus::Conflicted, None),
        ]
    );
    let told: Vec<_> = effects.events.iter().map(|row| (row.partner, row.event_type)).collect();
    assert_eq!(told, [(partner(1), EventType::AccountCredited)], "only a partner is told, and no customer");
    assert_eq!(view.accounts[&bank_account_id(Currency::EUR)].row.balance_minor, -101_000);
}

#[test]
fn a_frozen_account_may_be_credited() {
    let world = World::new();
    let mut view = world.view.clone();
    shop(&mut view).status = AccountStatus::Frozen;
    let (_, effects) = decide(&[world::payment("a", 1_000)], view, world::DECIDED_AT);
    assert_eq!(effects.payments[0].status, PaymentStatus::Posted);
}

#[test]
#[should_panic(expected = "back in time")]
fn an_entry_never_goes_back_in_time() {
    let world = World::new();
    let mut view = world.view.clone();
    shop(&mut view).entered_at = Timestamp::from_micros(world::DECIDED_AT.micros() + 1);
    let _ = decide(&[world::payment("a", 1_000)], view, world::DECIDED_AT);
}

#[test]
fn bank_commands_are_folded_before_partner_commands() {
    let world = World::new();
    let mut items = [
        world::payment("a", 1_000),
        world::bank(1, BankCommand::FreezeAccount { account: world::customer_account() }),
    ];
    items.sort_by_key(Item::fold_order);
    let (_, effects) = decide(&items, world.view.clone(), world::DECIDED_AT);
    assert_eq!(effects.payments[0].reason, Some(Reason::AccountFrozen));
}

fn mandate(view: &mut View) -> &mut super::Mandate {
    &mut view.mandates.get_mut(&world::mandate_id()).unwrap().row
}

fn customer(view: &mut View) -> &mut super::Account {
    &mut view.accounts.get_mut(&world::customer_account()).unwrap().row
}

fn shop(view: &mut View) -> &mut super::Account {
    &mut view.accounts.get_mut(&shop_account()).unwrap().row
}

#[test]
fn the_id_of_a_poisoned_record_is_kept_when_it_can_be_read() {
    assert_eq!(world::payment("a", 1).root(), world::payment("a", 1).id());
    let mut broken = world::payment("a", 1);
    broken.key = Some(b"no id".to_vec());
    assert_eq!(broken.root(), None::<Uuid>);
}
