//! Mandates and the requests for them: a request is a row of ingest's, the mandate one of the ledger's with its id.

use domain::fingerprint::Fingerprint;
use domain::ids::{MandateId, PartnerId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::Currency;
use domain::payment::Reason;
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;
use sqlx::{Executor, MySqlConnection, MySqlPool, Row};
use uuid::Uuid;

use super::{Columns, StoreError, bytes};

/// Mandates that are looked at for one page: those that were granted on a request are told with their request.
const SCAN_MAX: usize = 500;
/// Return URLs of one partner.
const RETURN_URLS_MAX: i64 = 100;

/// A mandate or a request for one.
#[derive(Debug, Clone)]
pub struct MandateRow {
    /// Its id.
    pub id: MandateId,
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
    /// When it was asked for, or granted without a request.
    pub created_at: Timestamp,
    /// Until when the request may be answered; `None` without one.
    pub answer_by: Option<Timestamp>,
    /// Where it stands in the ledger; `None` when it is not there.
    pub status: Option<MandateStatus>,
}

impl MandateRow {
    /// Where it stands at `now`. What has come to its time is told so before the ledger knows.
    pub fn status_at(&self, now: Timestamp) -> MandateStatus {
        MandateStatus::at(self.status, self.expires_at, self.answer_by, now)
    }

    fn of(row: &MySqlRow) -> Result<Self, StoreError> {
        let mut columns = Columns::new("mandates", row);
        Ok(Self {
            id: MandateId::from_uuid(columns.uuid()?),
            kind: columns.code(MandateKind::from_code)?,
            currency: columns.currency()?,
            payment_max_minor: columns.take()?,
            daily_max_minor: columns.take()?,
            expires_at: columns.opt_time()?,
            reference: columns.take()?,
            created_at: columns.time()?,
            status: columns.opt_code(MandateStatus::from_code)?,
            answer_by: columns.opt_time()?,
        })
    }

    /// Where it stands in a list.
    pub fn place(&self) -> Place {
        Place { created_at: self.created_at, id: self.id }
    }
}

/// Where a mandate stands in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    created_at: Timestamp,
    id: MandateId,
}

impl Place {
    /// As bytes, for a cursor.
    pub fn encode(&self) -> Vec<u8> {
        [self.created_at.micros().to_be_bytes().as_slice(), self.id.uuid().as_bytes()].concat()
    }

    /// What [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (created_at, id) = bytes.split_first_chunk()?;
        let created_at = Timestamp::from_micros(i64::from_be_bytes(*created_at));
        Some(Self { created_at, id: MandateId::from_uuid(Uuid::from_slice(id).ok()?) })
    }
}

/// What a granted mandate says counts, and until then what was asked for.
const REQUESTS: &str = "SELECT r.id, r.kind, r.currency, IF(m.id IS NULL, r.payment_max_minor, m.payment_max_minor), \
     IF(m.id IS NULL, r.daily_max_minor, m.daily_max_minor), \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', IF(m.id IS NULL, r.expires_at, m.expires_at)), r.reference, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', r.created_at), m.status, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', r.answer_by) \
     FROM mandate_requests r LEFT JOIN mandates m ON m.id = r.id WHERE r.partner_id = ";

/// The last column says whether there is a request, too.
const MANDATES: &str = "SELECT m.id, m.kind, m.currency, m.payment_max_minor, m.daily_max_minor, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', m.expires_at), m.reference, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', m.granted_at), m.status, NULL, CAST(r.id IS NOT NULL AS SIGNED) \
     FROM mandates m LEFT JOIN mandate_requests r ON r.id = m.id WHERE m.partner_id = ";

/// A mandate of the partner, or its request for one.
pub async fn find(
    pool: &MySqlPool,
    partner: PartnerId,
    id: MandateId,
) -> Result<Option<MandateRow>, StoreError> {
    let mut sql = Sql::with_capacity(1_024);
    sql.text(REQUESTS).uuid(partner.uuid()).text(" AND r.id = ").uuid(id.uuid());
    if let Some(row) = pool.fetch_all(sql.as_str()).await?.first() {
        return MandateRow::of(row).map(Some);
    }
    let mut sql = Sql::with_capacity(1_024);
    sql.text(MANDATES).uuid(partner.uuid()).text(" AND m.id = ").uuid(id.uuid());
    pool.fetch_all(sql.as_str()).await?.first().map(MandateRow::of).transpose()
}

/// A page of mandates and requests, newest first, and after which place the next page begins, if there may be one.
pub async fn list(
    pool: &MySqlPool,
    partner: PartnerId,
    after: Option<Place>,
    limit: usize,
) -> Result<(Vec<MandateRow>, Option<Place>), StoreError> {
    let page = |select: &'static str, time: &'static str, id: &'static str, rows_max: usize| {
        let mut sql = Sql::with_capacity(1_536);
        sql.text(select).uuid(partner.uuid());
        if let Some(place) = after {
            let at = place.created_at.civil();
            sql.text(" AND ").text(time).text(" <= ").datetime(at);
            sql.text(" AND (").text(time).text(" < ").datetime(at);
            sql.text(" OR ").text(id).text(" < ").uuid(place.id.uuid()).text(")");
        }
        sql.text(" ORDER BY ").text(time).text(" DESC, ").text(id).text(" DESC LIMIT ").int(rows_max as i64);
        sql
    };
    let text = page(REQUESTS, "r.created_at", "r.id", limit + 1);
    let requests = pool.fetch_all(text.as_str()).await?;
    let text = page(MANDATES, "m.granted_at", "m.id", SCAN_MAX);
    let mandates = pool.fetch_all(text.as_str()).await?;
    let mut found = requests.iter().map(MandateRow::of).collect::<Result<Vec<_>, _>>()?;
    // Behind the last row of a full scan nothing is known.
    let mut known_to = (found.len() > limit).then(|| found.last().map(MandateRow::place)).flatten();
    if mandates.len() == SCAN_MAX {
        let last = mandates.last().map(MandateRow::of).transpose()?.map(|row| row.place());
        known_to = known_to.max(last);
    }
    for row in &mandates {
        if row.try_get_unchecked::<i64, _>(10)? == 0 {
            found.push(MandateRow::of(row)?);
        }
    }
    Ok(merged(found, known_to, limit))
}

/// The newest of what two scans found, of which one may have ended early.
fn merged(
    mut found: Vec<MandateRow>,
    known_to: Option<Place>,
    limit: usize,
) -> (Vec<MandateRow>, Option<Place>) {
    found.sort_by_key(|row| std::cmp::Reverse(row.place()));
    if let Some(place) = known_to {
        found.retain(|row| row.place() >= place);
    }
    let mut next = known_to;
    if found.len() > limit {
        found.truncate(limit);
        next = found.last().map(MandateRow::place);
    }
    (found, next)
}

/// A new request.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// What is asked for; `answer_by` is set.
    pub row: MandateRow,
    /// Where the customer goes afterwards.
    pub return_url: Option<String>,
    /// What is kept of the code.
    pub code_hash: [u8; 32],
}

/// Inserts a request; a code that another request has is a passing failure.
pub async fn insert(
    connection: &mut MySqlConnection,
    partner: PartnerId,
    new: &NewRequest,
) -> Result<(), StoreError> {
    const TIME: &str = "TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? MICROSECOND";
    let row = &new.row;
    let text = format!(
        "INSERT INTO mandate_requests (id, partner_id, kind, currency, payment_max_minor, daily_max_minor, expires_at, \
         reference, return_url, code_hash, answer_by, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, {TIME}, ?, ?, ?, {TIME}, {TIME})"
    );
    sqlx::query(&text)
        .bind(bytes(&row.id))
        .bind(bytes(&partner))
        .bind(row.kind.code())
        .bind(row.currency.code())
        .bind(row.payment_max_minor)
        .bind(row.daily_max_minor)
        .bind(row.expires_at.map(Timestamp::micros))
        .bind(&row.reference)
        .bind(&new.return_url)
        .bind(new.code_hash.as_slice())
        .bind(row.answer_by.map(Timestamp::micros))
        .bind(row.created_at.micros())
        .execute(connection)
        .await?;
    Ok(())
}

/// The URLs under which customers may be sent.
pub async fn return_urls(
    connection: &mut MySqlConnection,
    partner: PartnerId,
) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query("SELECT url FROM return_urls WHERE partner_id = ? LIMIT ?")
        .bind(bytes(&partner))
        .bind(RETURN_URLS_MAX)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok(row.try_get_unchecked(0)?)).collect()
}

/// What became of a command that leaves a change.
#[derive(Debug)]
pub struct Change {
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// Why it was rejected.
    pub reason: Option<Reason>,
}

/// The change of this id, if it is applied.
pub async fn change(pool: &MySqlPool, id: Uuid) -> Result<Option<Change>, StoreError> {
    let mut sql = Sql::new();
    sql.text("SELECT fingerprint, reason FROM changes WHERE id = ").uuid(id);
    let rows = pool.fetch_all(sql.as_str()).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut columns = Columns::new("changes", row);
    let fingerprint: Vec<u8> = columns.take()?;
    let fingerprint =
        Fingerprint::from_bytes(&fingerprint).ok_or_else(|| columns.wrong(&"a fingerprint is 33 bytes"))?;
    Ok(Some(Change { fingerprint, reason: columns.opt_code(Reason::from_code)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(micros: i64) -> MandateRow {
        MandateRow {
            id: MandateId::from_uuid(Uuid::from_u128(micros as u128)),
            kind: MandateKind::Standing,
            currency: Currency::EUR,
            payment_max_minor: None,
            daily_max_minor: None,
            expires_at: Some(Timestamp::from_micros(100)),
            reference: None,
            created_at: Timestamp::from_micros(micros),
            answer_by: Some(Timestamp::from_micros(50)),
            status: None,
        }
    }

    #[test]
    fn what_has_come_to_its_time_is_expired() {
        let at = |status, now| MandateRow { status, ..row(1) }.status_at(Timestamp::from_micros(now));
        assert_eq!(at(None, 49), MandateStatus::Pending);
        assert_eq!(at(None, 50), MandateStatus::Expired);
        assert_eq!(at(Some(MandateStatus::Active), 99), MandateStatus::Active);
        assert_eq!(at(Some(MandateStatus::Active), 100), MandateStatus::Expired);
        assert_eq!(at(Some(MandateStatus::Used), 1_000), MandateStatus::Used);
        assert_eq!(at(Some(MandateStatus::Revoked), 1_000), MandateStatus::Revoked);
    }

    #[test]
    fn two_scans_make_one_list_as_far_as_both_know() {
        let times = |(rows, next): (Vec<MandateRow>, Option<Place>)| {
            let times: Vec<_> = rows.iter().map(|row| row.created_at.micros()).collect();
            (times, next.map(|place| place.created_at.micros()))
        };
        let rows = |times: &[i64]| times.iter().map(|time| row(*time)).collect();
        assert_eq!(times(merged(rows(&[5, 9, 7]), None, 5)), (vec![9, 7, 5], None));
        assert_eq!(times(merged(rows(&[5, 9, 7]), None, 2)), (vec![9, 7], Some(7)));
        assert_eq!(times(merged(rows(&[5, 9, 7]), Some(row(6).place()), 5)), (vec![9, 7], Some(6)));
        assert_eq!(times(merged(rows(&[5]), Some(row(8).place()), 5)), (vec![], Some(8)));
        assert_eq!(Place::decode(&row(7).place().encode()), Some(row(7).place()));
    }
}
