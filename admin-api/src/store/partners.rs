//! Partners, where their customers may be sent back to, and where their payments are credited (read-only, the ledger's).

use domain::account::AccountStatus;
use domain::ids::{AccountId, PartnerId};
use domain::money::Currency;
use domain::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::Columns;
use crate::partners::PartnerStatus;

const COLUMNS: &str = "SELECT id, name, status, livemode, requests_per_second, contact_sealed, version, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) FROM partners";

/// A partner.
#[derive(Clone)]
pub struct PartnerRow {
    /// The id.
    pub id: PartnerId,
    /// The name, as customers see it.
    pub name: String,
    /// Where it stands.
    pub status: PartnerStatus,
    /// `false` for a test partner.
    pub livemode: bool,
    /// Requests that it may make in a second.
    pub requests_per_second: u32,
    /// Whom to reach, sealed.
    pub contact_sealed: Option<Vec<u8>>,
    /// Counts changes.
    pub version: u32,
    /// Since when.
    pub created_at: Timestamp,
}

fn bytes(id: PartnerId) -> Vec<u8> {
    id.uuid().as_bytes().to_vec()
}

fn read(row: &MySqlRow) -> Result<PartnerRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(PartnerRow {
        id: PartnerId::from_uuid(columns.uuid()?),
        name: columns.text()?.unwrap_or_default(),
        status: columns.named(PartnerStatus::from_number)?,
        livemode: columns.take::<u8>()? != 0,
        requests_per_second: columns.take()?,
        contact_sealed: columns.take()?,
        version: columns.take()?,
        created_at: Timestamp::from_micros(columns.take()?),
    })
}

/// Which partners are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this status.
    pub status: Option<PartnerStatus>,
    /// Live ones, or test partners.
    pub livemode: Option<bool>,
    /// The name begins so, in whatever case.
    pub name: Option<String>,
}

/// Partners below an id, newest first.
pub async fn list(
    pool: &MySqlPool,
    filter: &Filter,
    below: Option<Uuid>,
    limit: u32,
) -> Result<Vec<PartnerRow>, sqlx::Error> {
    let (text, name) = list_text(filter);
    let mut query =
        sqlx::query(&text).bind(below.map_or_else(|| vec![0xff; 16], |id| id.as_bytes().to_vec()));
    if let Some(status) = filter.status {
        query = query.bind(status as u8);
    }
    if let Some(livemode) = filter.livemode {
        query = query.bind(livemode);
    }
    if let Some(name) = name {
        query = query.bind(name);
    }
    query.bind(limit).fetch_all(pool).await?.iter().map(read).collect()
}

/// The text of a list, and the pattern of the name. The index of what is likely to leave least is forced: by the order
/// of the list alone, all partners would be looked at for a few.
fn list_text(filter: &Filter) -> (String, Option<String>) {
    let index = if filter.name.is_some() {
        "partners_of_name"
    } else if filter.status.is_some() {
        "partners_of_status"
    } else if filter.livemode.is_some() {
        "partners_of_livemode"
    } else {
        "PRIMARY"
    };
    let mut text = format!("{COLUMNS} FORCE INDEX ({index}) WHERE id < ?");
    if filter.status.is_some() {
        text.push_str(" AND status = ?");
    }
    if filter.livemode.is_some() {
        text.push_str(" AND livemode = ?");
    }
    let name = filter.name.as_ref().map(|name| {
        text.push_str(" AND name_search LIKE CONCAT(LOWER(?), '%')");
        name.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
    });
    text.push_str(" ORDER BY id DESC LIMIT ?");
    (text, name)
}

/// The partner with this id.
pub async fn by_id(db: impl MySqlExecutor<'_>, id: PartnerId) -> Result<Option<PartnerRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ?");
    let row = sqlx::query(&text).bind(bytes(id)).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// The partner with this id, locked: whoever changes its keys or URLs waits here, so that bounds on their number hold.
pub async fn lock(db: &mut MySqlConnection, id: PartnerId) -> Result<Option<PartnerRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ? FOR UPDATE");
    let row = sqlx::query(&text).bind(bytes(id)).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// A live partner to insert.
pub struct NewPartner {
    /// The id.
    pub id: PartnerId,
    /// The name.
    pub name: String,
    /// Where it stands.
    pub status: PartnerStatus,
    /// Requests that it may make in a second.
    pub requests_per_second: u32,
    /// Whom to reach, sealed.
    pub contact_sealed: Vec<u8>,
}

/// Inserts a live partner.
pub async fn insert(db: &mut MySqlConnection, new: &NewPartner) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO partners (id, name, status, livemode, requests_per_second, contact_sealed, created_at) \
         VALUES (?, ?, ?, 1, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(new.id))
    .bind(&new.name)
    .bind(new.status as u8)
    .bind(new.requests_per_second)
    .bind(&new.contact_sealed)
    .execute(db)
    .await
    .map(drop)
}

/// Writes the settings of a locked partner, under its next version.
pub async fn update(db: &mut MySqlConnection, row: &PartnerRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE partners SET name = ?, requests_per_second = ?, contact_sealed = ?, version = version + 1 WHERE id = ?",
    )
    .bind(&row.name)
    .bind(row.requests_per_second)
    .bind(&row.contact_sealed)
    .bind(bytes(row.id))
    .execute(db)
    .await
    .map(drop)
}

/// Moves a locked partner to another status, under its next version.
pub async fn set_status(
    db: &mut MySqlConnection,
    id: PartnerId,
    status: PartnerStatus,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE partners SET status = ?, version = version + 1 WHERE id = ?")
        .bind(status as u8)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// The URLs under which the partner's customers may be sent, at most so many.
pub async fn return_urls(
    db: impl MySqlExecutor<'_>,
    partner: PartnerId,
    limit: u32,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query("SELECT url FROM return_urls WHERE partner_id = ? ORDER BY url LIMIT ?")
        .bind(bytes(partner))
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok(Columns::new(row).text()?.unwrap_or_default())).collect()
}

/// Adds a URL that is not there yet.
pub async fn insert_return_url(
    db: &mut MySqlConnection,
    partner: PartnerId,
    url: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO return_urls (partner_id, url) VALUES (?, ?)")
        .bind(bytes(partner))
        .bind(url)
        .execute(db)
        .await
        .map(drop)
}

/// Takes a URL away. `false`: it was not there.
pub async fn delete_return_url(
    db: &mut MySqlConnection,
    partner: PartnerId,
    url: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM return_urls WHERE partner_id = ? AND url = ?")
        .bind(bytes(partner))
        .bind(url)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Where payments in a currency are credited.
#[derive(Debug, Clone)]
pub struct SettlementRow {
    /// The currency.
    pub currency: Currency,
    /// The account.
    pub account: AccountId,
    /// Where the account stands.
    pub status: AccountStatus,
    /// What is on it.
    pub balance_minor: i64,
}

/// The partner's settlement accounts, at most one for each currency.
pub async fn settlement_accounts(
    pool: &MySqlPool,
    partner: PartnerId,
) -> Result<Vec<SettlementRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT s.currency, s.account_id, a.status, a.balance_minor \
         FROM settlement_accounts s JOIN accounts a ON a.id = s.account_id WHERE s.partner_id = ? ORDER BY s.currency",
    )
    .bind(bytes(partner))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            let currency = columns.text()?.unwrap_or_default();
            Ok(SettlementRow {
                currency: currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                account: AccountId::from_uuid(columns.uuid()?),
                status: columns.named(AccountStatus::from_code)?,
                balance_minor: columns.take()?,
            })
        })
        .collect()
}

/// Whether the account is one of this partner's.
pub async fn owns(pool: &MySqlPool, partner: PartnerId, account: AccountId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM accounts WHERE id = ? AND owner_kind = ? AND owner_id = ?")
        .bind(&account.uuid().as_bytes()[..])
        .bind(domain::account::OwnerKind::Partner.code())
        .bind(bytes(partner))
        .fetch_optional(pool)
        .await?;
    Ok(row.is_some())
}
