//! Accounts, their statements and the mandates on them, as customers see their own and staff see all.
//!
//! A foreign account is as unknown as one that never was. What a customer reads of the other side of an entry names
//! merchants and the bank, and nobody else.

pub mod accounts;
pub mod entries;
pub mod mandates;
pub mod statement;

use std::time::{SystemTime, UNIX_EPOCH};

use domain::account::{AccountStatus, Direction, Owner};
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId, UserId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::{Currency, decimal_text};
use domain::payment::PaymentKind;
use domain::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::problem::{Code, Problem};
use crate::store::ledger::entries::EntryRow;
use crate::store::ledger::mandates::{MandateRow, Merchant as MerchantRow};
use crate::store::ledger::{self as store, AccountRow};

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// A customer, who sees what is the customer's own.
    Customer(UserId),
    /// Staff, who see everything.
    Staff,
}

impl Viewer {
    fn may_see(self, owner: Option<Owner>) -> bool {
        match self {
            Self::Customer(user) => owner == Some(Owner::Customer(user)),
            Self::Staff => true,
        }
    }
}

/// An account, when the viewer may see it.
pub async fn find(app: &App, viewer: Viewer, id: AccountId) -> Result<AccountRow, Problem> {
    let found = store::account(&app.pool, id).await?;
    let found = found.filter(|account| viewer.may_see(Some(account.owner)));
    found.ok_or_else(|| Problem::new(Code::NotFound, "there is no such account, or it is not yours"))
}

/// Now, by this machine's clock.
pub fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
}

/// The owner's id; the bank has none.
fn owner_text(owner: Owner) -> String {
    match owner {
        Owner::Customer(user) => user.to_string(),
        Owner::Partner(partner) => partner.to_string(),
        Owner::Bank => "bank".to_owned(),
    }
}

/// An account. Amounts are decimal strings with the currency's digits.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    /// The account.
    #[schema(value_type = String, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    pub id: AccountId,
    /// Whose it is: `usr_…`, `ptr_…` or `bank`.
    #[schema(example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub owner: String,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// `active`, `frozen` (money comes in, none goes out) or `closed`.
    #[schema(value_type = String, example = "active")]
    pub status: AccountStatus,
    /// `false` for test money.
    #[schema(example = true)]
    pub livemode: bool,
    /// What is on it.
    #[schema(example = "99987.50")]
    pub balance: String,
    /// What authorised payments hold of it.
    #[schema(example = "0.00")]
    pub held: String,
    /// What can be spent: the balance and the overdraft without what is held.
    #[schema(example = "99987.50")]
    pub available: String,
    /// How far it may go below zero.
    #[schema(example = "0.00")]
    pub overdraft: String,
    /// The most that one payment or transfer may debit; nothing: no limit.
    #[schema(example = "500.00")]
    pub per_payment_max: Option<String>,
    /// The most that payments and transfers may debit in a day of the bank; nothing: no limit.
    #[schema(example = "1000.00")]
    pub daily_cap: Option<String>,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        let text = |minor| decimal_text(minor, row.currency);
        Self {
            id: row.id,
            owner: owner_text(row.owner),
            currency: row.currency,
            status: row.status,
            livemode: row.livemode,
            balance: text(row.balance_minor),
            held: text(row.held_minor),
            available: text(row.available_minor()),
            overdraft: text(row.overdraft_minor),
            per_payment_max: row.payment_max_minor.map(text),
            daily_cap: row.daily_max_minor.map(text),
        }
    }
}

/// An entry of a statement.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entry {
    /// Counts the account's entries from 1.
    #[schema(example = 2)]
    pub version: u64,
    /// The payment that moved the money.
    #[schema(value_type = String, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    pub payment: PaymentId,
    /// What it does: `payment`, `refund`, `transfer`, …
    #[schema(value_type = Option<String>, example = "payment")]
    pub kind: Option<PaymentKind>,
    /// `debit` or `credit`.
    #[schema(value_type = String, example = "debit")]
    pub direction: Direction,
    /// Decimal string.
    #[schema(example = "12.50")]
    pub amount: String,
    /// Decimal string: the account's balance after it.
    #[schema(example = "99987.50")]
    pub balance: String,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// When.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    pub entered_at: Timestamp,
    /// The other side, in words: the merchant, `own account`, `another customer`, or the bank.
    #[schema(example = "Café Mozart")]
    pub counterparty: String,
    /// The account on the other side, where it is known to whoever looks.
    #[schema(value_type = Option<String>, example = json!(null))]
    pub counterparty_account: Option<AccountId>,
    /// What the merchant, or the bank, calls it.
    #[schema(example = "order 4711")]
    pub reference: Option<String>,
    /// What both sides read.
    #[schema(example = "Two coffees")]
    pub description: Option<String>,
}

/// The bank, as statements name it.
const BANK: &str = "Wired City";

impl Entry {
    /// An entry of `account` as `viewer` sees it.
    fn of(row: EntryRow, account: &AccountRow, viewer: Viewer) -> Self {
        let of_customer = matches!(account.owner, Owner::Customer(_));
        let is_own = row.counter.is_some_and(|(_, owner)| owner == account.owner);
        let counterparty = match (row.partner_name, row.counter) {
            (_, Some(_)) if is_own => "own account".to_owned(),
            (Some(name), _) => name,
            (None, Some((_, Owner::Bank))) => BANK.to_owned(),
            (None, _) if of_customer => "another customer".to_owned(),
            (None, _) => "customer".to_owned(),
        };
        let is_transfer = row.kind == Some(PaymentKind::Transfer);
        // Who sent money named the account; who receives it learns nothing that the sender did not write.
        let knows_account =
            viewer == Viewer::Staff || is_own || (is_transfer && row.direction == Direction::Debit);
        let text = |minor| decimal_text(minor, account.currency);
        Self {
            version: row.version,
            payment: row.payment,
            kind: row.kind,
            direction: row.direction,
            amount: text(row.amount_minor),
            balance: text(row.balance_minor),
            currency: account.currency,
            entered_at: row.entered_at,
            counterparty,
            counterparty_account: row.counter.filter(|_| knows_account).map(|(id, _)| id),
            // A transfer's reference is the sender's own.
            reference: row.reference.filter(|_| viewer == Viewer::Staff || !is_transfer),
            description: row.description,
        }
    }
}

/// A merchant.
#[derive(Debug, Serialize, ToSchema)]
pub struct Merchant {
    /// The partner.
    #[schema(value_type = String, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub id: PartnerId,
    /// Its name.
    #[schema(example = "Café Mozart")]
    pub name: String,
    /// Whether the bank knows it and lets it deal with real money.
    #[schema(example = true)]
    pub verified: bool,
}

impl From<MerchantRow> for Merchant {
    fn from(row: MerchantRow) -> Self {
        Self { id: row.id, name: row.name, verified: row.active && row.livemode }
    }
}

/// A merchant's right to debit an account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Mandate {
    /// The mandate.
    #[schema(value_type = String, example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    pub id: MandateId,
    /// Who may debit.
    pub merchant: Merchant,
    /// Which account; nothing when it was never granted.
    #[schema(value_type = Option<String>, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    pub account: Option<AccountId>,
    /// `active`, `used`, `revoked`, `declined` or `expired`.
    #[schema(value_type = String, example = "active")]
    pub status: MandateStatus,
    /// `single` or `standing`.
    #[schema(value_type = String, example = "standing")]
    pub kind: MandateKind,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// Decimal string: the most that one payment may debit; nothing: no limit.
    #[schema(example = "50.00")]
    pub per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank; nothing: no limit.
    #[schema(example = "100.00")]
    pub daily_cap: Option<String>,
    /// From when on it authorises nothing.
    #[schema(value_type = Option<String>, example = "2027-01-31T12:00:00.000000Z")]
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    #[schema(example = "customer-7")]
    pub reference: Option<String>,
    /// When it was granted.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    pub granted_at: Timestamp,
}

impl Mandate {
    /// As it stands at `now`.
    pub fn of(row: MandateRow, now: Timestamp) -> Self {
        let text = |minor: Option<i64>| minor.map(|minor| decimal_text(minor, row.terms.currency));
        Self {
            id: row.id,
            account: row.account,
            status: MandateStatus::at(Some(row.status), row.terms.expires_at, None, now),
            kind: row.terms.kind,
            currency: row.terms.currency,
            per_payment_max: text(row.terms.payment_max_minor),
            daily_cap: text(row.terms.daily_max_minor),
            expires_at: row.terms.expires_at,
            merchant: row.merchant.into(),
            reference: row.terms.reference,
            granted_at: row.granted_at,
        }
    }
}
