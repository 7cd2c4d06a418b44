//! What has come to its time: holds, mandates, and requests for mandates that nobody answered.
//!
//! Each is one range read of an index that only these rows are in. What is read here is only asked for; whether it is
//! really due is decided under lock, by the time at which the broker accepts the command. A reading goes on behind the
//! last row of the one before, so that what cannot be ended (behind a dead letter, say) hides nothing that can.

use domain::command::MandateTerms;
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::time::Timestamp;
use runtime::sql::Sql;
use sqlx::mysql::MySqlRow;

use super::error::StoreError;
use super::row::{Columns as _, unreadable};
use super::session::Session;

/// The most rows of one read, and so what one sweep asks to expire. The rest comes with the next sweep.
pub const DUE_MAX: i64 = 2_000;

/// An authorised payment whose time is over.
#[derive(Debug, Clone, Copy)]
pub struct DueHold {
    /// The payment.
    pub payment: PaymentId,
    /// Whose it is.
    pub partner: PartnerId,
    /// Which account's funds are held.
    account: AccountId,
    /// Since when it is over.
    expires_at: Timestamp,
}

/// Holds of a partition whose time was over before `now`, the oldest first, behind `after`.
pub async fn holds(
    session: &mut Session,
    partition: i32,
    now: Timestamp,
    after: Option<&DueHold>,
) -> Result<Vec<DueHold>, StoreError> {
    let mut sql = Sql::new();
    sql.text("SELECT h.payment_id, p.partner_id, h.account_id, ");
    sql.text("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', h.expires_at) FROM holds AS h ");
    sql.text("JOIN payments AS p ON p.id = h.payment_id WHERE ");
    sql.text("h.kafka_partition = ").int(partition).text(" AND h.expires_at < ").datetime(now.civil());
    if let Some(after) = after {
        sql.text(" AND h.expires_at >= ").datetime(after.expires_at.civil());
        sql.text(" AND (h.expires_at > ").datetime(after.expires_at.civil());
        sql.text(" OR (h.account_id, h.payment_id) > (").uuid(after.account.uuid());
        sql.text(",").uuid(after.payment.uuid()).text("))");
    }
    sql.text(" ORDER BY h.expires_at, h.account_id, h.payment_id LIMIT ").int(DUE_MAX);
    let answer = session.send(&sql).await?;
    let rows = answer.rows.iter().flatten();
    rows.map(|row| {
        Ok(DueHold {
            payment: PaymentId::from_uuid(row.uuid(0)?),
            partner: PartnerId::from_uuid(row.uuid(1)?),
            account: AccountId::from_uuid(row.uuid(2)?),
            expires_at: row.time(3)?,
        })
    })
    .collect()
}

/// Active mandates whose time was over at `now`, the oldest first, behind `after`.
pub async fn mandates(
    session: &mut Session,
    now: Timestamp,
    after: Option<&MandateTerms>,
) -> Result<Vec<(PartnerId, MandateTerms)>, StoreError> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id, id, kind, currency, payment_max_minor, daily_max_minor, ");
    sql.text(
        "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at), reference, NULL FROM mandates WHERE status = ",
    );
    sql.int(MandateStatus::Active.code()).text(" AND expires_at <= ").datetime(now.civil());
    if let Some((mandate, at)) = after.and_then(|after| Some((after.mandate, after.expires_at?))) {
        sql.text(" AND expires_at >= ").datetime(at.civil()).text(" AND (expires_at > ").datetime(at.civil());
        sql.text(" OR id > ").uuid(mandate.uuid()).text(")");
    }
    sql.text(" ORDER BY expires_at, id LIMIT ").int(DUE_MAX);
    let answer = session.send(&sql).await?;
    answer.rows.iter().flatten().map(terms).collect()
}

/// Requests whose time to be answered was over between `since` and `now` and that are no mandate, the oldest first,
/// behind `after`.
pub async fn requests(
    session: &mut Session,
    since: Timestamp,
    now: Timestamp,
    after: Option<&MandateTerms>,
) -> Result<Vec<(PartnerId, MandateTerms)>, StoreError> {
    let mut sql = Sql::new();
    sql.text("SELECT r.partner_id, r.id, r.kind, r.currency, r.payment_max_minor, r.daily_max_minor, ");
    sql.text("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', r.expires_at), r.reference, ");
    sql.text("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', r.answer_by) FROM mandate_requests AS r ");
    sql.text("LEFT JOIN mandates AS m ON m.id = r.id WHERE m.id IS NULL AND r.answer_by > ");
    sql.datetime(since.civil()).text(" AND r.answer_by <= ").datetime(now.civil());
    if let Some((mandate, at)) = after.and_then(|after| Some((after.mandate, after.answer_by?))) {
        sql.text(" AND r.answer_by >= ").datetime(at.civil());
        sql.text(" AND (r.answer_by > ").datetime(at.civil());
        sql.text(" OR r.id > ").uuid(mandate.uuid()).text(")");
    }
    sql.text(" ORDER BY r.answer_by, r.id LIMIT ").int(DUE_MAX);
    let answer = session.send(&sql).await?;
    answer.rows.iter().flatten().map(terms).collect()
}

fn terms(row: &MySqlRow) -> Result<(PartnerId, MandateTerms), StoreError> {
    let terms = MandateTerms {
        mandate: MandateId::from_uuid(row.uuid(1)?),
        kind: row.code(2, MandateKind::from_code)?,
        currency: row.string(3)?.parse().map_err(|_| unreadable(3))?,
        payment_max_minor: row.opt_int(4)?,
        daily_max_minor: row.opt_int(5)?,
        expires_at: row.opt_int(6)?.map(Timestamp::from_micros),
        reference: row.opt_string(7)?,
        answer_by: row.opt_int(8)?.map(Timestamp::from_micros),
    };
    Ok((PartnerId::from_uuid(row.uuid(0)?), terms))
}
