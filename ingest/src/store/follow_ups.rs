//! What belongs to one payment: its entries on the partner's own accounts, and the commands that followed it.

use domain::account::{Direction, OwnerKind};
use domain::ids::{AccountId, PartnerId, PaymentId};
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentView};
use domain::time::Timestamp;
use futures_util::TryStreamExt;
use runtime::sql::Sql;
use sqlx::{Either, Executor, MySqlPool};

use super::payments::{COLUMNS, payment};
use super::{Columns, StoreError};

/// Captures, refunds and reversals that are read of one payment.
const FOLLOW_UPS_MAX: usize = 200;

/// What belongs to a payment.
#[derive(Debug, Default)]
pub struct Found {
    /// Its entries on accounts of the partner; two at most.
    pub entries: Vec<EntryRow>,
    /// Captures, refunds and reversals, in the order in which they were accepted.
    pub follow_ups: Vec<PaymentView>,
    /// Whether there are more of them.
    pub more: bool,
}

/// An entry on an account of the partner.
#[derive(Debug)]
pub struct EntryRow {
    /// The account.
    pub account: AccountId,
    /// Counts the account's entries.
    pub version: u64,
    /// Which side.
    pub direction: Direction,
    /// Minor units.
    pub amount_minor: i64,
    /// Minor units after it.
    pub balance_minor: i64,
    /// The account's currency.
    pub currency: Currency,
    /// When.
    pub entered_at: Timestamp,
}

/// Reads all that belongs to a payment, in one round trip.
pub async fn of_payment(
    pool: &MySqlPool,
    partner: PartnerId,
    payment_id: PaymentId,
) -> Result<Found, StoreError> {
    let mut sql = Sql::with_capacity(2_048);
    for (index, side) in ["debit", "credit"].into_iter().enumerate() {
        sql.text(if index == 0 { "" } else { " UNION ALL " })
            .text(
                "SELECT e.account_id, e.version, e.direction, e.amount_minor, e.balance_minor, a.currency, \
                 TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.entered_at) FROM payments p JOIN entries e ",
            )
            .text(if side == "debit" {
                "ON e.account_id = p.debit_account AND e.version = p.debit_version"
            } else {
                "ON e.account_id = p.credit_account AND e.version = p.credit_version"
            })
            .text(" JOIN accounts a ON a.id = e.account_id WHERE a.owner_kind = ")
            .int(OwnerKind::Partner.code())
            .text(" AND a.owner_id = ")
            .uuid(partner.uuid())
            .text(" AND p.id = ")
            .uuid(payment_id.uuid());
    }
    sql.text("; SELECT ")
        .text(COLUMNS)
        .text(" FROM follow_ups f STRAIGHT_JOIN payments p ON p.id = f.payment_id WHERE f.root_id = ")
        .uuid(payment_id.uuid())
        .text(" AND p.partner_id = ")
        .uuid(partner.uuid())
        .text(" AND p.kind IN (")
        .list([PaymentKind::Capture, PaymentKind::Refund, PaymentKind::Reversal], |sql, kind| {
            sql.int(kind.code());
        })
        .text(") LIMIT ")
        .int(FOLLOW_UPS_MAX as i64 + 1)
        .text(";");
    let mut found = Found::default();
    let mut is_entry = true;
    let mut results = pool.fetch_many(sql.as_str());
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Left(_) => is_entry = false,
            Either::Right(row) if is_entry => {
                let mut columns = Columns::new("entries", &row);
                found.entries.push(EntryRow {
                    account: AccountId::from_uuid(columns.uuid()?),
                    version: columns.take()?,
                    direction: columns.code(Direction::from_code)?,
                    amount_minor: columns.take()?,
                    balance_minor: columns.take()?,
                    currency: columns.currency()?,
                    entered_at: columns.time()?,
                });
            }
            Either::Right(row) => found.follow_ups.push(payment(&row)?.view),
        }
    }
    found.more = found.follow_ups.len() > FOLLOW_UPS_MAX;
    found.follow_ups.truncate(FOLLOW_UPS_MAX);
    found.follow_ups.sort_by_key(|view| (view.created_at, view.id.uuid()));
    Ok(found)
}
