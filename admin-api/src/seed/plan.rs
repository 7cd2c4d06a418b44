//! Which partners, customers and commands a sample has. Pure: every id is derived, so two runs plan the same.

use domain::{
    account::Owner,
    command::{BankCommand, BankEnvelope, Deposit, GrantMandate, OpenAccount, SCHEMA},
    ids::{AccountId, MandateId, PartnerId, UserId, derived_uuid},
    mandate::MandateKind,
    money::{Amount, Currency},
};
use uuid::Uuid;

use crate::cash_accounts;

/// A partner of the sample.
#[derive(Debug)]
pub(super) struct Partner {
    pub(super) id: PartnerId,
    pub(super) name: String,
    pub(super) settlement_account: AccountId,
    /// One of each customer, in the order of the customers.
    pub(super) mandates: Vec<MandateId>,
}

#[derive(Debug)]
struct Customer {
    user: UserId,
    account: AccountId,
}

/// A sample.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) partners: Vec<Partner>,
    customers: Vec<Customer>,
    deposit: Amount,
}

impl Plan {
    pub(super) fn new(name: &str, partners: u32, customers: u32, deposit: Amount) -> Self {
        let currency = deposit.currency();
        let id = |what: String| derived_uuid(&format!("seed:{name}:{what}"));
        let customers: Vec<_> = (1..=customers)
            .map(|number| Customer {
                user: UserId::from_uuid(id(format!("customer:{number}"))),
                account: AccountId::from_uuid(id(format!("customer:{number}:{currency}"))),
            })
            .collect();
        let partners = (1..=partners)
            .map(|number| Partner {
                id: PartnerId::from_uuid(id(format!("partner:{number}"))),
                name: if number == 1 { name.to_owned() } else { format!("{name} {number}") },
                settlement_account: AccountId::from_uuid(id(format!("partner:{number}:{currency}"))),
                mandates: (1..=customers.len())
                    .map(|customer| id(format!("mandate:{number}:{customer}:{currency}")))
                    .map(MandateId::from_uuid)
                    .collect(),
            })
            .collect();
        Self { partners, customers, deposit }
    }

    /// The accounts: the bank's own of every currency, the partners', the customers'.
    pub(super) fn openings(&self) -> Vec<BankEnvelope> {
        let currency = self.deposit.currency();
        let bank = Currency::ALL.iter().copied().map(cash_accounts::opening);
        let partners =
            self.partners.iter().map(|it| (it.settlement_account, Owner::Partner(it.id), currency));
        let customers = self.customers.iter().map(|it| (it.account, Owner::Customer(it.user), currency));
        let open = |(account, owner, currency)| {
            BankCommand::OpenAccount(OpenAccount {
                account,
                owner,
                currency,
                overdraft_minor: 0,
                payment_max_minor: None,
                daily_max_minor: None,
            })
        };
        bank.chain(partners.chain(customers).map(open)).map(envelope).collect()
    }

    /// The customers' money and the partners' mandates, which need the accounts.
    pub(super) fn funding(&self) -> Vec<BankEnvelope> {
        let deposits = self.customers.iter().map(|customer| {
            BankCommand::Deposit(Deposit {
                account: customer.account,
                amount_minor: self.deposit.minor(),
                currency: self.deposit.currency(),
                reference: Some("sample data".to_owned()),
            })
        });
        let mandates = self.partners.iter().flat_map(|partner| {
            self.customers.iter().zip(&partner.mandates).map(|(customer, &mandate)| {
                BankCommand::GrantMandate(GrantMandate {
                    mandate,
                    partner: partner.id,
                    account: customer.account,
                    kind: MandateKind::Standing,
                    currency: self.deposit.currency(),
                    payment_max_minor: None,
                    daily_max_minor: None,
                    expires_at: None,
                    reference: None,
                })
            })
        });
        deposits.chain(mandates).map(envelope).collect()
    }
}

/// The id is derived from the whole command: the same command is applied once, and another one (a larger deposit, say)
/// is never taken for it.
fn envelope(command: BankCommand) -> BankEnvelope {
    let mut envelope = BankEnvelope {
        schema: SCHEMA,
        id: Uuid::nil(),
        actor: UserId::from_uuid(derived_uuid("seed")),
        reason: "sample data".to_owned(),
        request_id: Uuid::nil(),
        address: None,
        command,
    };
    envelope.id = derived_uuid(&format!("seed:command:{:?}", envelope.fingerprint()));
    envelope.request_id = envelope.id;
    envelope
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan(name: &str, minor: i64) -> Plan {
        Plan::new(name, 2, 3, Amount::new(minor, Currency::EUR).unwrap())
    }

    fn commands(plan: &Plan) -> Vec<BankEnvelope> {
        [plan.openings(), plan.funding()].concat()
    }

    #[test]
    fn two_runs_plan_the_same_and_no_id_stands_twice() {
        let first = commands(&plan("demo", 100));
        assert_eq!(first, commands(&plan("demo", 100)));
        assert_eq!(first.len(), Currency::ALL.len() + 2 + 3 + 3 + 6);
        let ids: HashSet<_> = first.iter().map(|it| it.id).collect();
        assert_eq!(ids.len(), first.len());
        for envelope in &first {
            assert_eq!(BankEnvelope::decode(&envelope.encode()).unwrap(), *envelope);
        }
    }

    #[test]
    fn another_deposit_is_another_command_and_another_name_another_sample() {
        let ids = |plan: &Plan| commands(plan).iter().map(|it| it.id).collect::<HashSet<_>>();
        let demo = ids(&plan("demo", 100));
        assert_eq!(demo.difference(&ids(&plan("demo", 200))).count(), 3, "only the deposits differ");
        let shared = Currency::ALL.len();
        assert_eq!(demo.intersection(&ids(&plan("other", 100))).count(), shared, "only the bank's accounts");
    }
}
