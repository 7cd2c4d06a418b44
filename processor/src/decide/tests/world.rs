//! A small bank: a customer with 1,000.00 EUR, a shop, and a standing mandate between them.

use domain::account::{AccountStatus, Owner};
use domain::command::{
    BankCommand, BankEnvelope, GrantMandate, OpenAccount, PartnerCommand, PartnerEnvelope, PaymentCommand,
    SCHEMA,
};
use domain::entry::GENESIS;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, KeyId, MandateId, PartnerId, UserId, bank_account_id, payment_id};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency;
use domain::time::{Day, Timestamp};
use domain::topic::{Position, Source};
use uuid::Uuid;

use crate::decide::{Account, Mandate, Partner, Slot, Spent, View};
use crate::item::{Content, Item};

/// When every command of the world was accepted: 2026-01-01.
pub(super) const ACCEPTED_AT: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// When it was decided.
pub(super) const DECIDED_AT: Timestamp = Timestamp::from_micros(1_767_225_601_000_000);

pub(super) fn partner(n: u128) -> PartnerId {
    PartnerId::from_uuid(Uuid::from_u128(0x1000 + n))
}

pub(super) fn new_account(n: u128) -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(0x2000 + n))
}

pub(super) fn new_mandate(n: u128) -> MandateId {
    MandateId::from_uuid(Uuid::from_u128(0x3000 + n))
}

pub(super) fn customer_account() -> AccountId {
    new_account(1)
}

pub(super) fn shop_account() -> AccountId {
    new_account(2)
}

pub(super) fn mandate_id() -> MandateId {
    new_mandate(1)
}

fn user() -> UserId {
    UserId::from_uuid(Uuid::from_u128(0x4001))
}

pub(super) struct World {
    pub(super) view: View,
}

impl World {
    pub(super) fn new() -> Self {
        let mut view = View::default();
        for n in [1, 2] {
            view.partners.insert(partner(n), Partner { active: true, livemode: true });
        }
        let accounts = [
            (bank_account_id(Currency::EUR), Owner::Bank, -100_000),
            (customer_account(), Owner::Customer(user()), 100_000),
            (shop_account(), Owner::Partner(partner(1)), 0),
        ];
        for (id, owner, balance_minor) in accounts {
            view.accounts.insert(id, Slot::read(account(id, owner, balance_minor)));
        }
        view.settlement_accounts.insert((partner(1), Currency::EUR), Slot::read(shop_account()));
        view.mandates.insert(mandate_id(), Slot::read(mandate()));
        Self { view }
    }
}

/// A payment of the first partner under the mandate.
pub(super) fn payment(key: &str, amount_minor: i64) -> Item {
    payment_of(partner(1), mandate_id(), key, amount_minor)
}

pub(super) fn payment_of(partner: PartnerId, mandate: MandateId, key: &str, amount_minor: i64) -> Item {
    let id = payment_id(partner, key);
    let envelope = PartnerEnvelope {
        schema: SCHEMA,
        id,
        root: id,
        partner,
        key: KeyId::from_uuid(Uuid::from_u128(0x6001)),
        idempotency_key: key.to_owned(),
        fingerprint: Fingerprint::of(&[mandate.uuid().as_bytes(), &amount_minor.to_be_bytes()]),
        request_id: Uuid::from_u128(0x7001),
        address: None,
        command: PartnerCommand::Payment(PaymentCommand {
            mandate,
            amount_minor,
            currency: Currency::EUR,
            expires_in_s: None,
            reference: None,
            description: None,
            metadata: domain::payment::Metadata::new(),
        }),
    };
    item(Source::Partner, id.uuid(), &envelope.encode())
}

/// The same in two phases.
pub(super) fn authorization(key: &str, amount_minor: i64, expires_in_s: u32) -> Item {
    let mut payment = payment(key, amount_minor);
    if let Content::Partner(envelope) = &mut payment.content
        && let PartnerCommand::Payment(command) = &mut envelope.command
    {
        command.expires_in_s = Some(expires_in_s);
    }
    payment
}

/// Any command of a partner.
pub(super) fn partner_command(
    partner: PartnerId,
    key: &str,
    root: domain::ids::PaymentId,
    command: PartnerCommand,
) -> Item {
    let mut item = payment_of(partner, mandate_id(), key, 1);
    if let Content::Partner(envelope) = &mut item.content {
        envelope.root = root;
        envelope.fingerprint = Fingerprint::of(&[format!("{command:?}").as_bytes()]);
        envelope.command = command;
    }
    item
}

/// A command of the bank.
pub(super) fn bank(id: u128, command: BankCommand) -> Item {
    let (id, key) = (Uuid::from_u128(0x5000 + id), command.kafka_key());
    let envelope = BankEnvelope {
        schema: SCHEMA,
        id,
        actor: user(),
        reason: "test".to_owned(),
        request_id: Uuid::from_u128(0x7002),
        address: None,
        command,
    };
    item(Source::Bank, key, &envelope.encode())
}

fn item(source: Source, key: Uuid, value: &[u8]) -> Item {
    let position = Position { source, partition: 0, offset: 0 };
    let item = Item::read(position, ACCEPTED_AT, Day(20_454), Some(key.as_bytes()), Some(value));
    assert!(!matches!(item.content, Content::Undecodable(_)), "the world writes commands that can be read");
    item
}

pub(super) fn account(id: AccountId, owner: Owner, balance_minor: i64) -> Account {
    Account {
        id,
        owner,
        currency: Currency::EUR,
        livemode: true,
        status: AccountStatus::Active,
        balance_minor,
        held_minor: 0,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
        spent: Spent::default(),
        version: 0,
        head: GENESIS,
        entered_at: Timestamp::default(),
    }
}

fn mandate() -> Mandate {
    Mandate {
        id: mandate_id(),
        partner: partner(1),
        account: Some(customer_account()),
        kind: MandateKind::Standing,
        status: MandateStatus::Active,
        version: 1,
        currency: Currency::EUR,
        payment_max_minor: None,
        daily_max_minor: None,
        spent: Spent::default(),
        expires_at: None,
        reference: None,
        granted_at: Timestamp::default(),
    }
}

pub(super) fn open_for_partner(account: AccountId, n: u128) -> OpenAccount {
    OpenAccount {
        account,
        owner: Owner::Partner(partner(n)),
        currency: Currency::EUR,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    }
}

pub(super) fn grant(mandate: MandateId) -> GrantMandate {
    GrantMandate {
        mandate,
        partner: partner(1),
        account: customer_account(),
        kind: MandateKind::Standing,
        currency: Currency::EUR,
        payment_max_minor: None,
        daily_max_minor: None,
        expires_at: None,
        reference: None,
    }
}
