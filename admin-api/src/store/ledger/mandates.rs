//! Mandates of the ledger, and the requests for them, which ingest writes.

use domain::account::{Owner, OwnerKind};
use domain::ids::{AccountId, MandateId, PartnerId, UserId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlPool, Row};
use uuid::Uuid;

use super::super::Columns;

/// Return URLs of one partner.
const RETURN_URLS_MAX: i64 = 100;

/// What a partner may debit, or asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// The currency.
    pub currency: Currency,
    /// The most that one payment may debit, in minor units.
    pub payment_max_minor: Option<i64>,
    /// The most that may be debited in a day of the bank, in minor units.
    pub daily_max_minor: Option<i64>,
    /// From when on it authorises nothing.
    pub expires_at: Option<Timestamp>,
    /// The merchant's reference.
    pub reference: Option<String>,
}

/// A merchant, as a customer has to know it.
#[derive(Debug, Clone)]
pub struct Merchant {
    /// The partner.
    pub id: PartnerId,
    /// Its name.
    pub name: String,
    /// Whether it is not suspended.
    pub active: bool,
    /// Whether it deals with real money: the bank approved it.
    pub livemode: bool,
}

/// A mandate.
#[derive(Debug, Clone)]
pub struct MandateRow {
    /// The mandate.
    pub id: MandateId,
    /// Who may debit.
    pub merchant: Merchant,
    /// What.
    pub terms: Terms,
    /// Where it stands in the ledger.
    pub status: MandateStatus,
    /// Which account; `None` when it was never granted.
    pub account: Option<AccountId>,
    /// Whose account that is.
    pub owner: Option<Owner>,
    /// When it was granted, or ended without that.
    pub granted_at: Timestamp,
}

/// A request for a mandate, and what became of it.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// The mandate that it asks for.
    pub id: MandateId,
    /// Who asks.
    pub merchant: Merchant,
    /// For what.
    pub terms: Terms,
    /// Where the customer goes afterwards.
    pub return_url: Option<String>,
    /// Until when it may be answered.
    pub answer_by: Timestamp,
    /// Where the mandate stands in the ledger, once the request is answered.
    pub status: Option<MandateStatus>,
    /// Whose account it was granted on.
    pub owner: Option<Owner>,
}

const MANDATES: &str = "SELECT m.id, n.id, n.name, n.status, n.livemode, m.kind, m.currency, m.payment_max_minor, \
     m.daily_max_minor, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', m.expires_at), m.reference, m.status, m.account_id, \
     a.owner_kind, a.owner_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', m.granted_at) FROM ";

fn merchant(columns: &mut Columns<'_>) -> Result<Merchant, sqlx::Error> {
    Ok(Merchant {
        id: PartnerId::from_uuid(columns.uuid()?),
        name: columns.take()?,
        active: columns.take::<u8>()? == 1,
        livemode: columns.take::<u8>()? != 0,
    })
}

fn terms(columns: &mut Columns<'_>) -> Result<Terms, sqlx::Error> {
    Ok(Terms {
        kind: columns.named(MandateKind::from_code)?,
        currency: columns.parsed()?,
        payment_max_minor: columns.take()?,
        daily_max_minor: columns.take()?,
        expires_at: columns.opt_time()?,
        reference: columns.take()?,
    })
}

fn owner(columns: &mut Columns<'_>) -> Result<Option<Owner>, sqlx::Error> {
    let (kind, id) = (columns.opt_named(OwnerKind::from_code)?, columns.opt_uuid()?);
    Ok(kind.zip(id).map(|(kind, id)| Owner::from_stored(kind, id)))
}

fn mandate(row: &MySqlRow) -> Result<MandateRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(MandateRow {
        id: MandateId::from_uuid(columns.uuid()?),
        merchant: merchant(&mut columns)?,
        terms: terms(&mut columns)?,
        status: columns.named(MandateStatus::from_code)?,
        account: columns.opt_uuid()?.map(AccountId::from_uuid),
        owner: owner(&mut columns)?,
        granted_at: columns.time()?,
    })
}

/// One mandate.
pub async fn find(pool: &MySqlPool, id: MandateId) -> Result<Option<MandateRow>, sqlx::Error> {
    let mut sql = Sql::with_capacity(768);
    sql.text(MANDATES).text("mandates m JOIN partners n ON n.id = m.partner_id ");
    sql.text("LEFT JOIN accounts a ON a.id = m.account_id WHERE m.id = ").uuid(id.uuid());
    pool.fetch_all(sql.as_str()).await?.first().map(mandate).transpose()
}

/// Whose mandates.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// On one account.
    Account(AccountId),
    /// On all accounts of a customer.
    Customer(UserId),
}

/// Mandates below an id, the highest id first.
pub async fn list(
    pool: &MySqlPool,
    of: Of,
    below: Option<MandateId>,
    rows_max: usize,
) -> Result<Vec<MandateRow>, sqlx::Error> {
    pool.fetch_all(select(of, below, rows_max).as_str()).await?.iter().map(mandate).collect()
}

fn select(of: Of, below: Option<MandateId>, rows_max: usize) -> Sql {
    let mut sql = Sql::with_capacity(1_024);
    // From the accounts to their mandates: the customer alone decides how many those are.
    sql.text(MANDATES).text("accounts a FORCE INDEX (PRIMARY, accounts_of_owner) STRAIGHT_JOIN mandates m ");
    sql.text("FORCE INDEX (mandates_of_account) ON m.account_id = a.id STRAIGHT_JOIN partners n FORCE INDEX (PRIMARY) ");
    sql.text("ON n.id = m.partner_id WHERE ");
    match of {
        Of::Account(account) => sql.text("a.id = ").uuid(account.uuid()),
        Of::Customer(user) => {
            let (kind, id) = Owner::Customer(user).stored();
            sql.text("a.owner_kind = ").int(kind.code()).text(" AND a.owner_id = ").uuid(id)
        }
    };
    if let Some(below) = below {
        sql.text(" AND m.id < ").uuid(below.uuid());
    }
    sql.text(" ORDER BY m.id DESC LIMIT ").int(rows_max as i64);
    sql
}

/// [`list`], explained.
pub async fn explain(pool: &MySqlPool, of: Of) -> Result<Vec<[String; 3]>, sqlx::Error> {
    runtime::mysql::explain(pool, &select(of, Some(MandateId::from_uuid(Uuid::max())), 51)).await
}

/// How a customer names a request.
#[derive(Debug, Clone, Copy)]
pub enum Named {
    /// By its id, which the merchant's link ends with.
    Id(MandateId),
    /// By the hash of the code that was entered.
    Code([u8; 32]),
}

/// A request for a mandate.
pub async fn request(pool: &MySqlPool, named: Named) -> Result<Option<RequestRow>, sqlx::Error> {
    let mut sql = Sql::with_capacity(1_024);
    sql.text(
        "SELECT r.id, n.id, n.name, n.status, n.livemode, r.kind, r.currency, r.payment_max_minor, r.daily_max_minor, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', r.expires_at), r.reference, r.return_url, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', r.answer_by), m.status, a.owner_kind, a.owner_id \
         FROM mandate_requests r JOIN partners n ON n.id = r.partner_id LEFT JOIN mandates m ON m.id = r.id \
         LEFT JOIN accounts a ON a.id = m.account_id WHERE ",
    );
    match named {
        Named::Id(id) => sql.text("r.id = ").uuid(id.uuid()),
        Named::Code(hash) => sql.text("r.code_hash = ").bytes(&hash),
    };
    let rows = pool.fetch_all(sql.as_str()).await?;
    rows.first()
        .map(|row| {
            let mut columns = Columns::new(row);
            Ok(RequestRow {
                id: MandateId::from_uuid(columns.uuid()?),
                merchant: merchant(&mut columns)?,
                terms: terms(&mut columns)?,
                return_url: columns.take()?,
                answer_by: columns.time()?,
                status: columns.opt_named(MandateStatus::from_code)?,
                owner: owner(&mut columns)?,
            })
        })
        .transpose()
}

/// The URLs under which a partner's customers may be sent.
pub async fn return_urls(pool: &MySqlPool, partner: PartnerId) -> Result<Vec<String>, sqlx::Error> {
    let mut sql = Sql::new();
    sql.text("SELECT url FROM return_urls WHERE partner_id = ").uuid(partner.uuid());
    sql.text(" LIMIT ").int(RETURN_URLS_MAX);
    pool.fetch_all(sql.as_str()).await?.iter().map(|row| row.try_get_unchecked(0)).collect()
}
