//! The decider is given random commands of every kind, cut into random batches, and must leave what a naive bank leaves
//! that takes them one by one (`testkit::naive_bank`): every balance, hold, cap, status, reason, version and event.
//!
//! Commands are functions of their seeds, so that a failure shrinks to the commands that matter, which are printed.
//! `PROPTEST_CASES` runs more.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{AccountId, PartnerId, PaymentId, bank_account_id};
use domain::money::Currency;
use domain::payment::Reason;
use domain::time::Day;
use domain::topic::{Position, Source};
use proptest::prelude::*;
use testkit::naive_bank::{self, City, Command, Event, NaiveBank, When};
use uuid::Uuid;

use super::world::{ACCEPTED_AT, partner};
use crate::decide::{Mandate, Partner, Payment, Slot, Touch, View, decide};
use crate::item::{Content, Item};

/// The bank's days are a minute long here, so that a stream crosses a few midnights.
const DAY_S: i64 = 60;

/// The real bank's state after a few batches, with what a database would keep of their effects.
#[derive(Default)]
struct Real {
    view: View,
    holds: BTreeMap<(AccountId, PaymentId), i64>,
    changes: BTreeMap<Uuid, Option<Reason>>,
    follow_ups: BTreeSet<(PaymentId, PaymentId)>,
    events: BTreeMap<PartnerId, Vec<Event>>,
    /// Every event that a row says it told.
    told: Vec<(PartnerId, u64)>,
    offset: i64,
}

impl Real {
    fn batch(&mut self, commands: &[(Command, When)]) {
        let items: Vec<_> = commands.iter().map(|(command, when)| self.item(command, *when)).collect();
        let decided_at = ACCEPTED_AT.plus_seconds(10_000 + self.offset);
        let read = read_again(&self.view);
        let (view, effects) = decide(&items, read.clone(), decided_at);
        assert_written_rows_differ(&read, &view);
        self.view = view;
        assert!(effects.dead_letters.is_empty(), "{:?}", effects.dead_letters);
        for hold in effects.holds {
            assert!(self.holds.insert((hold.account, hold.payment), hold.amount.minor()).is_none());
        }
        for hold in effects.released {
            assert!(self.holds.remove(&hold).is_some(), "{hold:?} was released and not held");
        }
        for event in effects.events {
            let log = self.events.entry(event.partner).or_default();
            log.push(Event::read(event.event_type, &event.data));
            assert_eq!(event.sequence, log.len() as u64, "a log has no gap and no repeat");
        }
        for asked in effects.payments {
            let teller = self.view.payments[&asked.payment].row.partner;
            self.told.extend(teller.zip(asked.event_sequence).into_iter().chain(asked.told));
        }
        for change in effects.changes {
            self.told.extend(change.told);
            assert!(self.changes.insert(change.id, change.reason).is_none());
        }
        for follow_up in effects.follow_ups {
            assert!(self.follow_ups.insert(follow_up), "{follow_up:?} twice");
        }
    }

    fn item(&mut self, command: &Command, when: When) -> Item {
        self.offset += 1;
        let source = match command {
            Command::Partner(_) => Source::Partner,
            Command::Bank(_) => Source::Bank,
        };
        let position = Position { source, partition: 0, offset: self.offset };
        let (key, value) = (command.kafka_key(), command.encode());
        let item = Item::read(position, when.at, when.day, Some(key.as_bytes()), Some(&value));
        assert!(!matches!(item.content, Content::Undecodable(_)), "{:?}", item.content);
        item
    }

    /// What differs from the naive bank, in words.
    fn differences(&self, naive: &NaiveBank) -> Vec<String> {
        let mut differences = Vec::new();
        compare(&mut differences, "account", &self.accounts(), &naive.accounts);
        let of = |slot: &Slot<Mandate>| naive_mandate(&slot.row);
        let mandates = self.view.mandates.iter().map(|(id, slot)| (*id, of(slot))).collect();
        compare(&mut differences, "mandate", &mandates, &naive.mandates);
        let payments = self.view.payments.iter().map(|(id, slot)| (*id, naive_payment(&slot.row))).collect();
        compare(&mut differences, "payment", &payments, &naive.payments);
        let settlement = self.view.settlement_accounts.iter().map(|(key, slot)| (*key, slot.row)).collect();
        compare(&mut differences, "settlement account", &settlement, &naive.settlement);
        compare(&mut differences, "change", &self.changes, &naive.changes);
        compare(&mut differences, "log", &self.events, &naive.events);
        if self.follow_ups != naive.follow_ups {
            differences.push(format!("follow-ups {:?} and {:?}", self.follow_ups, naive.follow_ups));
        }
        let (mut told, mut events) = (self.told.clone(), Vec::new());
        told.sort_unstable();
        for (partner, log) in &self.events {
            events.extend((1..=log.len() as u64).map(|sequence| (*partner, sequence)));
        }
        if told != events {
            differences.push(format!("rows say that they told {told:?} and the logs hold {events:?}"));
        }
        for currency in Currency::ALL {
            let of_currency = self.view.accounts.values().filter(|slot| slot.row.currency == *currency);
            let sum: i128 = of_currency.map(|slot| i128::from(slot.row.balance_minor)).sum();
            if sum != 0 {
                differences.push(format!("{sum} {currency} were made or lost"));
            }
        }
        differences
    }

    fn accounts(&self) -> BTreeMap<AccountId, naive_bank::Account> {
        let accounts = self.view.accounts.iter().map(|(id, slot)| {
            let account = &slot.row;
            let of_account = self.holds.iter().filter(|((holder, _), _)| holder == id);
            let holds: BTreeMap<_, _> = of_account.map(|((_, payment), minor)| (*payment, *minor)).collect();
            assert_eq!(account.held_minor, holds.values().sum::<i64>(), "{id} holds its holds");
            let naive = naive_bank::Account {
                owner: account.owner,
                currency: account.currency,
                livemode: account.livemode,
                status: account.status,
                balance: account.balance_minor.into(),
                holds,
                overdraft: account.overdraft_minor,
                payment_max: account.payment_max_minor,
                daily_max: account.daily_max_minor,
                spent: (account.spent.day, account.spent.minor),
                version: account.version,
            };
            (*id, naive)
        });
        accounts.collect()
    }
}

/// The view as the next transaction reads it.
fn read_again(view: &View) -> View {
    fn read<K: Ord + Copy, T: Clone>(slots: &BTreeMap<K, Slot<T>>) -> BTreeMap<K, Slot<T>> {
        slots.iter().map(|(key, slot)| (*key, Slot::read(slot.row.clone()))).collect()
    }
    View {
        accounts: read(&view.accounts),
        settlement_accounts: read(&view.settlement_accounts),
        mandates: read(&view.mandates),
        payments: read(&view.payments),
        sequences: read(&view.sequences),
        ..view.clone()
    }
}

/// A row that is written counts as changed in the database only when it is another one.
fn assert_written_rows_differ(read: &View, view: &View) {
    fn differ<K: Ord + std::fmt::Debug, T: PartialEq + std::fmt::Debug>(
        read: &BTreeMap<K, Slot<T>>,
        slots: &BTreeMap<K, Slot<T>>,
    ) {
        for (key, slot) in slots.iter().filter(|(_, slot)| slot.touch == Touch::Changed) {
            assert_ne!(slot.row, read[key].row, "{key:?} is written and has not changed");
        }
    }
    differ(&read.accounts, &view.accounts);
    differ(&read.settlement_accounts, &view.settlement_accounts);
    differ(&read.mandates, &view.mandates);
    differ(&read.payments, &view.payments);
    differ(&read.sequences, &view.sequences);
}

fn naive_mandate(mandate: &Mandate) -> naive_bank::Mandate {
    naive_bank::Mandate {
        partner: mandate.partner,
        account: mandate.account,
        kind: mandate.kind,
        status: mandate.status,
        version: mandate.version,
        currency: mandate.currency,
        payment_max: mandate.payment_max_minor,
        daily_max: mandate.daily_max_minor,
        spent: (mandate.spent.day, mandate.spent.minor),
        expires_at: mandate.expires_at,
    }
}

fn naive_payment(payment: &Payment) -> naive_bank::Payment {
    naive_bank::Payment {
        kind: payment.kind,
        root: payment.root,
        status: payment.status,
        reason: payment.reason,
        version: payment.version,
        partner: payment.partner,
        livemode: payment.livemode,
        mandate: payment.mandate,
        amount: payment.amount,
        captured: payment.captured_minor,
        refunded: payment.refunded_minor,
        accounts: payment.accounts,
        versions: payment.versions,
        expires_at: payment.expires_at,
    }
}

fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    differences: &mut Vec<String>,
    what: &str,
    real: &BTreeMap<K, V>,
    naive: &BTreeMap<K, V>,
) {
    let keys: BTreeSet<&K> = real.keys().chain(naive.keys()).collect();
    for key in keys.into_iter().filter(|key| real.get(key) != naive.get(key)) {
        differences.push(format!(
            "{what} {key:?}:\n  real  {:?}\n  naive {:?}",
            real.get(key),
            naive.get(key)
        ));
    }
}

/// Two busy partners, a suspended one and a test partner.
fn city(salt: u64) -> City {
    City {
        salt,
        partners: (1..=4).map(partner).collect(),
        keys: 60,
        ends: [20, 60, 120].map(|seconds| ACCEPTED_AT.plus_seconds(seconds)).to_vec(),
        holds_s: vec![5, 20, 60],
    }
}

/// When the command of `seed` is accepted, about where it stands in the stream: partitions run ahead of each other.
fn when(number: usize, seed: u64) -> When {
    let seconds = number as i64 + (seed >> 40) as i64 % 20;
    let day = Day((ACCEPTED_AT.seconds() / DAY_S + seconds / DAY_S) as i32);
    When { at: ACCEPTED_AT.plus_seconds(seconds), day }
}

/// Both banks with the city's beginning, and in one of two cases an account that holds nearly all that can be held.
fn begin(city: &City, rich: bool) -> (Real, NaiveBank) {
    let (mut real, mut naive) = (Real::default(), NaiveBank::default());
    for (index, id) in city.partners.iter().enumerate() {
        let (active, livemode) = (index != 2, index != 3);
        real.view.partners.insert(*id, Partner { active, livemode });
        naive.partners.insert(*id, naive_bank::Partner { active, livemode });
    }
    let beginning: Vec<_> = city.beginning(0).into_iter().map(|command| (command, when(0, 0))).collect();
    real.batch(&beginning);
    for (command, when) in &beginning {
        naive.apply(command, *when);
    }
    if rich {
        let cash = bank_account_id(Currency::USD);
        for (id, account) in &mut naive.accounts {
            if account.currency == Currency::USD {
                let balance = i64::MAX - 120;
                let balance = if *id == cash { -balance } else { balance };
                account.balance = balance.into();
                real.view.accounts.get_mut(id).unwrap().row.balance_minor = balance;
            }
        }
    }
    (real, naive)
}

fn run(salt: u64, seeds: &[u64], rich: bool) -> Vec<String> {
    let city = city(salt);
    let (mut real, mut naive) = begin(&city, rich);
    let commands: Vec<_> = seeds
        .iter()
        .enumerate()
        .map(|(number, seed)| (city.command(0, *seed), when(number, *seed)))
        .collect();
    let mut rest = commands.as_slice();
    while !rest.is_empty() {
        // A batch ends behind every eighth command or so.
        let ends = seeds[seeds.len() - rest.len()..].iter().position(|seed| seed % 8 == 0);
        let (batch, behind) = rest.split_at(ends.map_or(rest.len(), |end| end + 1));
        real.batch(batch);
        for (command, when) in batch {
            naive.apply(command, *when);
        }
        let mut differences = real.differences(&naive);
        if !differences.is_empty() {
            differences.extend(commands.iter().map(|(command, when)| format!("{} {command:?}", when.at)));
            return differences;
        }
        rest = behind;
    }
    Vec::new()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn the_decider_agrees_with_a_naive_bank(
        salt in any::<u64>(),
        seeds in prop::collection::vec(any::<u64>(), 1..250),
        rich in any::<bool>(),
    ) {
        let differences = run(salt, &seeds, rich);
        prop_assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

/// A stream that never comes to a reason proves nothing about it.
#[test]
fn the_random_commands_reach_every_outcome() {
    let mut reached = BTreeSet::new();
    for round in 0..100 {
        let city = city(round);
        let (_, mut naive) = begin(&city, round % 2 == 0);
        for number in 0..250 {
            let seed = domain::ids::derived_uuid(&format!("{round}:{number}")).as_u128() as u64;
            naive.apply(&city.command(0, seed), when(number, seed));
        }
        for payment in naive.payments.values() {
            let outcome = payment.reason.map_or(payment.status.as_str(), Reason::as_str);
            reached.insert(format!("{} {outcome}", payment.kind));
        }
        let changes = naive.changes.values();
        reached.extend(changes.map(|reason| format!("change {}", reason.map_or("done", Reason::as_str))));
        reached.extend(naive.events.values().flatten().map(|event| format!("told {}", event.event_type)));
    }
    let reached: Vec<_> = reached.into_iter().collect();
    insta::assert_snapshot!(reached.join("\n"));
}
