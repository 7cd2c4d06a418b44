//! Who would like to become a partner. Written by ingest; decided here.

use domain::ids::{ApplicationId, PartnerId, UserId};
use domain::time::Timestamp;
use serde::Serialize;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::Columns;

const COLUMNS: &str = "SELECT a.id, a.status, a.partner_id, p.name, a.live_partner_id, a.contact_sealed, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', a.created_at), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', a.decided_at), a.decided_by \
     FROM partner_applications a STRAIGHT_JOIN partners p ON p.id = a.partner_id";

/// Where an application stands, as `partner_applications.status` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Status {
    /// Nobody has decided.
    Pending = 1,
    /// A live partner was made of it.
    Approved = 2,
    /// It was declined.
    Declined = 3,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Approved, Self::Declined];

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Declined => "declined",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }
}

/// An application.
#[derive(Clone)]
pub struct ApplicationRow {
    /// The id.
    pub id: ApplicationId,
    /// Where it stands.
    pub status: Status,
    /// The test partner that it made at once.
    pub partner: PartnerId,
    /// The test partner's name.
    pub name: String,
    /// The live partner that its approval made.
    pub live_partner: Option<PartnerId>,
    /// Who applied, sealed.
    pub contact_sealed: Vec<u8>,
    /// When.
    pub created_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Who decided.
    pub decided_by: Option<UserId>,
}

fn opt_uuid(columns: &mut Columns<'_>) -> Result<Option<Uuid>, sqlx::Error> {
    let bytes: Option<&[u8]> = columns.take()?;
    bytes.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}

fn read(row: &MySqlRow) -> Result<ApplicationRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(ApplicationRow {
        id: ApplicationId::from_uuid(columns.uuid()?),
        status: columns.named(Status::from_number)?,
        partner: PartnerId::from_uuid(columns.uuid()?),
        name: columns.text()?.unwrap_or_default(),
        live_partner: opt_uuid(&mut columns)?.map(PartnerId::from_uuid),
        contact_sealed: columns.take()?,
        created_at: Timestamp::from_micros(columns.take()?),
        decided_at: columns.take::<Option<i64>>()?.map(Timestamp::from_micros),
        decided_by: opt_uuid(&mut columns)?.map(UserId::from_uuid),
    })
}

fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Applications below an id, newest first.
pub async fn list(
    pool: &MySqlPool,
    status: Option<Status>,
    below: Option<Uuid>,
    limit: u32,
) -> Result<Vec<ApplicationRow>, sqlx::Error> {
    let below = below.map_or_else(|| vec![0xff; 16], bytes);
    // Two texts, so that each finds its index.
    let rows = if let Some(status) = status {
        let text = format!("{COLUMNS} WHERE a.status = ? AND a.id < ? ORDER BY a.id DESC LIMIT ?");
        sqlx::query(&text).bind(status as u8).bind(below).bind(limit).fetch_all(pool).await?
    } else {
        let text = format!("{COLUMNS} WHERE a.id < ? ORDER BY a.id DESC LIMIT ?");
        sqlx::query(&text).bind(below).bind(limit).fetch_all(pool).await?
    };
    rows.iter().map(read).collect()
}

/// The application with this id.
pub async fn by_id(
    db: impl MySqlExecutor<'_>,
    id: ApplicationId,
) -> Result<Option<ApplicationRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE a.id = ?");
    let row = sqlx::query(&text).bind(bytes(id.uuid())).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// The application with this id, locked; its partner is not.
pub async fn lock(
    db: &mut MySqlConnection,
    id: ApplicationId,
) -> Result<Option<ApplicationRow>, sqlx::Error> {
    sqlx::query("SELECT id FROM partner_applications WHERE id = ? FOR UPDATE")
        .bind(bytes(id.uuid()))
        .fetch_optional(&mut *db)
        .await?;
    by_id(db, id).await
}

/// Decides a locked application.
pub async fn decide(
    db: &mut MySqlConnection,
    id: ApplicationId,
    status: Status,
    by: UserId,
    live_partner: Option<PartnerId>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE partner_applications SET status = ?, decided_at = UTC_TIMESTAMP(6), decided_by = ?, \
         live_partner_id = ? WHERE id = ?",
    )
    .bind(status as u8)
    .bind(super::bytes(by))
    .bind(live_partner.map(|partner| bytes(partner.uuid())))
    .bind(bytes(id.uuid()))
    .execute(db)
    .await
    .map(drop)
}
