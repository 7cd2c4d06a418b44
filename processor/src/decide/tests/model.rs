//! A naive bank, written for obviousness: one command at a time, plain maps, no batches, no versions. The real
//! decider is given the same random commands, cut into random batches, and must come to the same outcomes and
//! balances.

use std::collections::HashMap;

use domain::account::Owner;
use domain::command::{BankCommand, Deposit, GrantMandate, OpenAccount, PartnerCommand};
use domain::ids::{UserId, bank_account_id};
use domain::mandate::MandateKind;
use domain::money::Currency;
use domain::time::Day;
use proptest::prelude::*;
use uuid::Uuid;

use super::world::{self, bank, new_account, new_mandate, partner};
use crate::decide::{Partner, Touch, View};
use crate::item::{Content, Item};

/// Outcomes in words: `posted`, `applied`, `duplicate`, `conflict` or a reason.
type Outcome = String;

#[derive(Default)]
struct NaiveBank {
    seen: HashMap<Uuid, Vec<u8>>,
    conflicts: Vec<(Uuid, Vec<u8>)>,
    balances: HashMap<Uuid, i64>,
    frozen: HashMap<Uuid, bool>,
    settlement: Option<Uuid>,
    mandates: HashMap<Uuid, NaiveMandate>,
}

struct NaiveMandate {
    account: Uuid,
    single: bool,
    used: bool,
    revoked: bool,
    payment_max: Option<i64>,
    daily_max: Option<i64>,
    day: Day,
    spent: i64,
}

impl NaiveBank {
    fn apply(&mut self, item: &Item) -> Outcome {
        let (id, said) = match &item.content {
            Content::Partner(envelope) => (envelope.id.uuid(), envelope.fingerprint.as_bytes().to_vec()),
            Content::Bank(envelope, fingerprint) => (envelope.id, fingerprint.as_bytes().to_vec()),
            Content::Undecodable(_) => panic!("the model is given commands only"),
        };
        if let Some(before) = self.seen.get(&id) {
            if *before == said || self.conflicts.contains(&(id, said.clone())) {
                return "duplicate".to_owned();
            }
            self.conflicts.push((id, said));
            return "conflict".to_owned();
        }
        self.seen.insert(id, said);
        let outcome = match &item.content {
            Content::Partner(envelope) => match &envelope.command {
                PartnerCommand::Payment(payment) => {
                    self.pay(payment.mandate.uuid(), payment.amount_minor, item.accepted_day)
                }
                other => Err(other.word()),
            },
            Content::Bank(envelope, _) => self.bank(&envelope.command),
            Content::Undecodable(_) => Err("undecodable"),
        };
        outcome.unwrap_or_else(|reason| reason).to_owned()
    }

    fn pay(&mut self, mandate: Uuid, amount: i64, day: Day) -> Result<&'static str, &'static str> {
        let mandate = self.mandates.get_mut(&mandate).ok_or("mandate_unknown")?;
        let shop = self.settlement.ok_or("settlement_account_missing")?;
        if shop == mandate.account {
            return Err("same_account");
        }
        if self.frozen[&mandate.account] {
            return Err("account_frozen");
        }
        if mandate.used {
            return Err("mandate_used");
        }
        if mandate.revoked {
            return Err("mandate_revoked");
        }
        if mandate.payment_max.is_some_and(|max| amount > max) {
            return Err("mandate_limit");
        }
        let day = day.max(mandate.day);
        let spent = if day > mandate.day { 0 } else { mandate.spent } + amount;
        if mandate.daily_max.is_some_and(|max| spent > max) {
            return Err("daily_limit");
        }
        if self.balances[&mandate.account] < amount {
            return Err("insufficient_funds");
        }
        if mandate.daily_max.is_some() {
            (mandate.day, mandate.spent) = (day, spent);
        }
        mandate.used = mandate.single;
        *self.balances.get_mut(&mandate.account).unwrap() -= amount;
        *self.balances.get_mut(&shop).unwrap() += amount;
        Ok("posted")
    }

    fn bank(&mut self, command: &BankCommand) -> Result<&'static str, &'static str> {
        match command {
            BankCommand::OpenAccount(open) => {
                if self.balances.contains_key(&open.account.uuid()) {
                    return Err("account_exists");
                }
                if matches!(open.owner, Owner::Partner(_)) && self.settlement.is_none() {
                    self.settlement = Some(open.account.uuid());
                }
                self.balances.insert(open.account.uuid(), 0);
                self.frozen.insert(open.account.uuid(), false);
                Ok("applied")
            }
            BankCommand::Deposit(deposit) => {
                let cash = bank_account_id(deposit.currency).uuid();
                if !self.balances.contains_key(&deposit.account.uuid()) || !self.balances.contains_key(&cash)
                {
                    return Err("account_unknown");
                }
                *self.balances.get_mut(&cash).unwrap() -= deposit.amount_minor;
                *self.balances.get_mut(&deposit.account.uuid()).unwrap() += deposit.amount_minor;
                Ok("posted")
            }
            BankCommand::GrantMandate(grant) => {
                if self.mandates.contains_key(&grant.mandate.uuid()) {
                    return Err("mandate_exists");
                }
                if !self.balances.contains_key(&grant.account.uuid()) {
                    return Err("account_unknown");
                }
                let mandate = NaiveMandate {
                    account: grant.account.uuid(),
                    single: grant.kind == MandateKind::Single,
                    used: false,
                    revoked: false,
                    payment_max: grant.payment_max_minor,
                    daily_max: grant.daily_max_minor,
                    day: Day(0),
                    spent: 0,
                };
                self.mandates.insert(grant.mandate.uuid(), mandate);
                Ok("applied")
            }
            BankCommand::RevokeMandate { mandate } => {
                let mandate = self.mandates.get_mut(&mandate.uuid()).ok_or("mandate_unknown")?;
                if mandate.revoked || mandate.used {
                    return Err("mandate_not_active");
                }
                mandate.revoked = true;
                Ok("applied")
            }
            BankCommand::FreezeAccount { account } => self.set_frozen(account.uuid(), true),
            BankCommand::UnfreezeAccount { account } => self.set_frozen(account.uuid(), false),
            other => Err(other.word()),
        }
    }

    fn set_frozen(&mut self, account: Uuid, to: bool) -> Result<&'static str, &'static str> {
        let frozen = self.frozen.get_mut(&account).ok_or("account_unknown")?;
        if *frozen == to {
            return Err("status_unchanged");
        }
        *frozen = to;
        Ok("applied")
    }
}

/// A command over a world of four accounts, three mandates and eight ids of each kind.
fn command() -> impl Strategy<Value = Item> {
    let user = UserId::from_uuid(Uuid::from_u128(0x4001));
    let account = (1_u128..=3).prop_map(new_account);
    let mandate = (1_u128..=3).prop_map(new_mandate);
    let cash = Just(bank_account_id(Currency::EUR));
    let limit = || prop::option::of(1_i64..300);
    let open = (prop_oneof![account.clone(), cash]).prop_map(move |account| {
        let owner = if account == bank_account_id(Currency::EUR) {
            Owner::Bank
        } else if account == new_account(3) {
            Owner::Partner(partner(1))
        } else {
            Owner::Customer(user)
        };
        let currency = Currency::EUR;
        BankCommand::OpenAccount(OpenAccount {
            account,
            owner,
            currency,
            overdraft_minor: 0,
            payment_max_minor: None,
            daily_max_minor: None,
        })
    });
    let deposit = (account.clone(), 1_i64..500).prop_map(|(account, amount_minor)| {
        BankCommand::Deposit(Deposit { account, amount_minor, currency: Currency::EUR, reference: None })
    });
    let grant = (mandate.clone(), account.clone(), any::<bool>(), limit(), limit()).prop_map(
        |(mandate, account, single, payment_max_minor, daily_max_minor)| {
            let kind = if single { MandateKind::Single } else { MandateKind::Standing };
            BankCommand::GrantMandate(GrantMandate {
                account,
                kind,
                payment_max_minor,
                daily_max_minor,
                ..world::grant(mandate)
            })
        },
    );
    let change = prop_oneof![
        1 => mandate.clone().prop_map(|mandate| BankCommand::RevokeMandate { mandate }),
        2 => account.clone().prop_map(|account| BankCommand::FreezeAccount { account }),
        2 => account.prop_map(|account| BankCommand::UnfreezeAccount { account }),
    ];
    let bank_command = prop_oneof![3 => open, 3 => deposit, 3 => grant, 2 => change];
    let payment = (0_u8..30, mandate, 1_i64..200, 100_i32..103).prop_map(|(key, mandate, amount, day)| {
        let item = world::payment_of(partner(1), mandate, &key.to_string(), amount);
        Item { accepted_day: Day(day), ..item }
    });
    prop_oneof![
        2 => (0_u128..60, bank_command).prop_map(|(id, command)| bank(id, command)),
        3 => payment,
    ]
}

fn outcomes(
    items: &[Item],
    view: View,
    naive: &mut Vec<Outcome>,
    bank: &mut NaiveBank,
) -> (View, Vec<Outcome>) {
    let mut outcomes = Vec::new();
    let mut view = view;
    naive.extend(items.iter().map(|item| bank.apply(item)));
    // One item at a time only to read its outcome; the batch below is what is compared.
    let batch = super::decide(items, view.clone(), world::DECIDED_AT);
    for item in items {
        let (after, effects) = super::decide(std::slice::from_ref(item), view, world::DECIDED_AT);
        view = after;
        let payment = effects.payments.first().map(|row| match (row.reason, row.status.as_str()) {
            (Some(reason), _) => reason.as_str().to_owned(),
            (None, "conflicted") => "conflict".to_owned(),
            (None, status) => status.to_owned(),
        });
        let change =
            effects.changes.first().map(|row| match row.reason.map(domain::payment::Reason::as_str) {
                None => "applied".to_owned(),
                Some("idempotency_conflict") => "conflict".to_owned(),
                Some(reason) => reason.to_owned(),
            });
        outcomes.push(payment.or(change).unwrap_or_else(|| "duplicate".to_owned()));
    }
    let balances = |view: &View| {
        view.accounts
            .iter()
            .map(|(id, slot)| (*id, slot.row.balance_minor, slot.row.head))
            .collect::<Vec<_>>()
    };
    assert_eq!(balances(&batch.0), balances(&view), "a batch is its commands one after the other");
    let mut after = batch.0;
    for slot in after.accounts.values_mut() {
        slot.touch = Touch::Read;
    }
    for slot in after.mandates.values_mut() {
        slot.touch = Touch::Read;
    }
    (after, outcomes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_decider_agrees_with_a_naive_bank(
        items in prop::collection::vec(command(), 1..120),
        batch in 1_usize..40,
    ) {
        let mut bank = NaiveBank::default();
        let mut view = View::default();
        view.partners.insert(partner(1), Partner { active: true, livemode: true });
        let (mut expected, mut actual) = (Vec::new(), Vec::new());
        for items in items.chunks(batch) {
            let (after, outcomes) = outcomes(items, view, &mut expected, &mut bank);
            view = after;
            actual.extend(outcomes);
        }
        prop_assert_eq!(actual, expected);
        for (id, slot) in &view.accounts {
            prop_assert_eq!(bank.balances[&id.uuid()], slot.row.balance_minor);
        }
        let sum: i64 = view.accounts.values().map(|slot| slot.row.balance_minor).sum();
        prop_assert_eq!(sum, 0, "money is neither made nor lost");
    }
}
