//! Statements of the view: each reads one index in its own order, behind a key, so many rows at most.

use std::net::IpAddr;

use domain::ids::{AuditId, CallId, ChangeId, KeyId, PartnerId, PaymentId, UserId};
use domain::money::{Currency, decimal_text};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use domain::topic::Source as Topic;
use runtime::sql::Sql;
use serde_json::{Value, json};
use sqlx::mysql::MySqlRow;
use sqlx::{Executor as _, MySqlPool, Row as _};
use uuid::Uuid;

use super::merge::Key;
use super::plan::Stream;
use super::{Item, Outcome, Source};

type Result<T> = std::result::Result<T, sqlx::Error>;

/// Microseconds since 1970 of a DATETIME(6) in UTC.
macro_rules! micros {
    ($column:literal) => {
        concat!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', ", $column, ")")
    };
}

const LOG: &str = concat!(
    "SELECT id, ",
    micros!("at"),
    ", actor_id, action, target, outcome, detail, request_id, address FROM audit_log "
);
const CALLS: &str = concat!(
    "SELECT kafka_partition, kafka_offset, ",
    micros!("at"),
    ", service, method, route, status, duration_us, request_id, partner_id, actor_id, target_id, address \
     FROM api_calls "
);
const PAYMENTS: &str = concat!(
    "SELECT p.source, p.kafka_partition, p.kafka_offset, ",
    micros!("p.accepted_at"),
    ", p.id, p.root_id, p.kind, p.status, p.reason, p.partner_id, p.currency, p.amount_minor, p.reference, \
     p.actor_id, p.actor_reason, p.request_id, p.address FROM payments p "
);
const CHANGES: &str = concat!(
    "SELECT source, kafka_partition, kafka_offset, ",
    micros!("accepted_at"),
    ", id, kind, reason, target_id, partner_id, command, actor_id, actor_reason, request_id, address FROM changes "
);

/// The partitions of the command topics.
pub(super) async fn partitions(pool: &MySqlPool) -> Result<Vec<(u8, u16)>> {
    let sql = "SELECT source, kafka_partition FROM positions ORDER BY source, kafka_partition";
    pool.fetch_all(sql).await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The partner of an API key.
pub(super) async fn partner_of(pool: &MySqlPool, key: Uuid) -> Result<Option<Uuid>> {
    let mut sql = Sql::new();
    sql.text("SELECT partner_id FROM api_keys WHERE id = ").uuid(key);
    pool.fetch_optional(sql.as_str()).await?.map(|row| uuid(&row, 0)).transpose()
}

/// What the call of a request says of where to look.
#[derive(Debug, Clone)]
pub(super) struct Called {
    pub(super) of_partners: bool,
    pub(super) partner: Option<Uuid>,
    pub(super) target: Option<Uuid>,
}

/// The call of a request.
pub(super) async fn called(pool: &MySqlPool, request: Uuid) -> Result<Option<Called>> {
    let mut sql = Sql::new();
    sql.text("SELECT service, partner_id, target_id FROM api_calls WHERE request_id = ").uuid(request);
    let row = pool.fetch_optional(sql.as_str()).await?;
    row.map(|row| {
        let of_partners = row.try_get::<u8, _>(0)? == 1;
        Ok(Called { of_partners, partner: opt_uuid(&row, 1)?, target: opt_uuid(&row, 2)? })
    })
    .transpose()
}

/// The key behind which the rows of a stream are older than `to`, or at most so much newer as clocks differ. `None`: begin
/// with the newest.
pub(super) async fn before(pool: &MySqlPool, stream: &Stream, to: Timestamp) -> Result<Option<Key>> {
    let at = to.micros();
    let (table, source, partition) = match stream {
        Stream::Log | Stream::LogOfActor(_) | Stream::LogOfTarget(_) => {
            let millis = u128::try_from(at / 1_000).unwrap_or(0);
            return Ok(Some(Key { at, place: millis << 80 }));
        }
        Stream::CallsOfPartner(_) | Stream::CallsOfActor(_) | Stream::PaymentsOfPartner(_) => {
            return Ok(Some(Key { at, place: 0 }));
        }
        Stream::CallOfRequest(_) | Stream::PaymentsOfRoot(_) | Stream::ChangesOfTarget(_) => return Ok(None),
        Stream::Calls => (Placed::Calls, 0, 0),
        Stream::Payments(source, partition) => (Placed::Payments, *source, *partition),
        Stream::Changes(source, partition) => (Placed::Changes, *source, *partition),
    };
    let Some((newest, newest_at)) = placed(pool, table, source, partition, None).await? else {
        return Ok(None);
    };
    if newest_at < at {
        return Ok(None);
    }
    // The first offset that is not older. Offsets have gaps: a look finds the next row that there is.
    let (mut low, mut high) = (0, newest);
    while low < high {
        let middle = low + (high - low) / 2;
        match placed(pool, table, source, partition, Some(middle)).await? {
            Some((_, found_at)) if found_at < at => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(Some(Key { at, place: u128::from(low) }))
}

#[derive(Debug, Clone, Copy)]
enum Placed {
    Calls,
    Payments,
    Changes,
}

/// Offset and time of the first row at an offset or behind it, or of the newest.
async fn placed(
    pool: &MySqlPool,
    table: Placed,
    source: u8,
    partition: u16,
    from: Option<u64>,
) -> Result<Option<(u64, i64)>> {
    let mut sql = Sql::new();
    match table {
        Placed::Calls => sql.text(concat!("SELECT kafka_offset, ", micros!("at"), " FROM api_calls WHERE ")),
        Placed::Payments => sql
            .text(concat!("SELECT kafka_offset, ", micros!("accepted_at"), " FROM payments WHERE source = "))
            .int(source)
            .text(" AND "),
        Placed::Changes => sql
            .text(concat!("SELECT kafka_offset, ", micros!("accepted_at"), " FROM changes WHERE source = "))
            .int(source)
            .text(" AND "),
    };
    sql.text("kafka_partition = ").int(partition);
    match from {
        Some(from) => sql.text(" AND kafka_offset >= ").int(from).text(" ORDER BY kafka_offset LIMIT 1"),
        None => sql.text(" ORDER BY kafka_offset DESC LIMIT 1"),
    };
    let row = pool.fetch_optional(sql.as_str()).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// The next rows of a stream, newest first.
pub(super) async fn page(
    pool: &MySqlPool,
    stream: &Stream,
    below: Option<Key>,
    rows: u32,
) -> Result<Vec<(Key, Item)>> {
    let mut sql = Sql::new();
    let read: fn(&MySqlRow) -> Result<(Key, Item)> = match stream {
        Stream::Log | Stream::LogOfActor(_) | Stream::LogOfTarget(_) => {
            sql.text(LOG).text("WHERE ");
            match stream {
                Stream::LogOfActor(user) => sql.text("actor_id = ").uuid(*user).text(" AND "),
                Stream::LogOfTarget(target) => sql.text("target = ").string(target).text(" AND "),
                _ => &mut sql,
            };
            match below {
                Some(key) => sql.text("id < ").uuid(Uuid::from_u128(key.place)),
                None => sql.text("TRUE"),
            };
            sql.text(" ORDER BY id DESC");
            logged
        }
        Stream::Calls => {
            sql.text(CALLS).text("WHERE kafka_partition = 0");
            if let Some(key) = below {
                sql.text(" AND kafka_offset < ").int(offset(key));
            }
            sql.text(" ORDER BY kafka_partition DESC, kafka_offset DESC");
            call
        }
        Stream::CallsOfPartner(owner) | Stream::CallsOfActor(owner) => {
            let column =
                if matches!(stream, Stream::CallsOfActor(_)) { "actor_id = " } else { "partner_id = " };
            sql.text(CALLS).text("WHERE ").text(column).uuid(*owner);
            if let Some(key) = below {
                behind(&mut sql, "at", key, |sql| {
                    sql.text("(kafka_partition, kafka_offset) < (")
                        .int(partition(key))
                        .text(",")
                        .int(offset(key));
                });
            }
            sql.text(" ORDER BY at DESC, kafka_partition DESC, kafka_offset DESC");
            call
        }
        Stream::CallOfRequest(request) => {
            sql.text(CALLS).text("WHERE request_id = ").uuid(*request);
            if let Some(key) = below {
                sql.text(" AND kafka_offset < ").int(offset(key));
            }
            call
        }
        Stream::Payments(source, partition) => {
            sql.text(PAYMENTS)
                .text("WHERE p.source = ")
                .int(*source)
                .text(" AND p.kafka_partition = ")
                .int(*partition);
            if let Some(key) = below {
                sql.text(" AND p.kafka_offset < ").int(offset(key));
            }
            sql.text(" ORDER BY p.kafka_offset DESC");
            payment
        }
        Stream::PaymentsOfPartner(_) | Stream::PaymentsOfRoot(_) => {
            sql.text(PAYMENTS);
            match stream {
                Stream::PaymentsOfPartner(partner) => {
                    sql.text("FORCE INDEX (payments_of_partner) WHERE p.partner_id = ").uuid(*partner);
                }
                Stream::PaymentsOfRoot(root) => {
                    sql.text("JOIN (SELECT ").uuid(*root);
                    sql.text(" AS id UNION ALL SELECT payment_id FROM follow_ups WHERE root_id = ")
                        .uuid(*root);
                    sql.text(") these ON these.id = p.id WHERE TRUE");
                }
                _ => {}
            }
            if let Some(key) = below {
                behind(&mut sql, "p.accepted_at", key, |sql| {
                    sql.text("(p.source, p.kafka_partition, p.kafka_offset) < (")
                        .int(source_of(key))
                        .text(",");
                    sql.int(partition(key)).text(",").int(offset(key));
                });
            }
            sql.text(
                " ORDER BY p.accepted_at DESC, p.source DESC, p.kafka_partition DESC, p.kafka_offset DESC",
            );
            payment
        }
        Stream::Changes(source, partition) => {
            sql.text(CHANGES)
                .text("WHERE source = ")
                .int(*source)
                .text(" AND kafka_partition = ")
                .int(*partition);
            if let Some(key) = below {
                sql.text(" AND kafka_offset < ").int(offset(key));
            }
            sql.text(" ORDER BY kafka_offset DESC");
            change
        }
        Stream::ChangesOfTarget(target) => {
            sql.text(CHANGES).text("WHERE target_id = ").uuid(*target);
            if let Some(key) = below {
                sql.text(" AND (source, kafka_partition, kafka_offset) < (").int(source_of(key)).text(",");
                sql.int(partition(key)).text(",").int(offset(key)).text(")");
            }
            sql.text(" ORDER BY source DESC, kafka_partition DESC, kafka_offset DESC");
            change
        }
    };
    sql.text(" LIMIT ").int(rows);
    pool.fetch_all(sql.as_str()).await?.iter().map(read).collect()
}

/// Behind a key of an index that begins with a time: a range of the time, and of the same time those below.
fn behind(sql: &mut Sql, column: &'static str, key: Key, below: impl FnOnce(&mut Sql)) {
    let at = Timestamp::from_micros(key.at).civil();
    sql.text(" AND ")
        .text(column)
        .text(" <= ")
        .datetime(at)
        .text(" AND (")
        .text(column)
        .text(" < ")
        .datetime(at);
    sql.text(" OR ");
    below(sql);
    sql.text("))");
}

const fn offset(key: Key) -> u64 {
    key.place as u64
}

const fn partition(key: Key) -> u16 {
    (key.place >> 64) as u16
}

const fn source_of(key: Key) -> u8 {
    (key.place >> 80) as u8
}

fn place(source: u8, partition: u16, offset: u64) -> u128 {
    u128::from(source) << 80 | u128::from(partition) << 64 | u128::from(offset)
}

fn logged(row: &MySqlRow) -> Result<(Key, Item)> {
    let (id, at) = (uuid(row, 0)?, Timestamp::from_micros(row.try_get(1)?));
    let detail: String = row.try_get_unchecked(6)?;
    let item = Item {
        id: AuditId::from_uuid(id).to_string(),
        source: Source::People,
        at,
        actor: opt_uuid(row, 2)?.map(|id| UserId::from_uuid(id).to_string()),
        partner: None,
        action: row.try_get_unchecked(3)?,
        target: row.try_get_unchecked(4)?,
        outcome: if row.try_get::<u8, _>(5)? == 1 { Outcome::Done } else { Outcome::Refused },
        reason: None,
        status: None,
        duration_us: None,
        request_id: uuid(row, 7)?,
        address: address(row, 8)?,
        detail: as_json(detail),
    };
    Ok((Key { at: at.micros(), place: id.as_u128() }, item))
}

fn call(row: &MySqlRow) -> Result<(Key, Item)> {
    let at = Timestamp::from_micros(row.try_get(2)?);
    let of_partners = row.try_get::<u8, _>(3)? == 1;
    let (method, route): (String, String) = (row.try_get_unchecked(4)?, row.try_get_unchecked(5)?);
    let status: u16 = row.try_get(6)?;
    let request_id = uuid(row, 8)?;
    let actor = |id| {
        if of_partners { KeyId::from_uuid(id).to_string() } else { UserId::from_uuid(id).to_string() }
    };
    let item = Item {
        id: CallId::from_uuid(request_id).to_string(),
        source: Source::ApiCall,
        at,
        actor: opt_uuid(row, 10)?.map(actor),
        partner: opt_uuid(row, 9)?.map(|id| PartnerId::from_uuid(id).to_string()),
        action: format!("{method} {route}"),
        target: opt_uuid(row, 11)?.map(|id| PaymentId::from_uuid(id).to_string()),
        outcome: match status {
            0..400 => Outcome::Done,
            400..500 => Outcome::Refused,
            _ => Outcome::Failed,
        },
        reason: None,
        status: Some(status),
        duration_us: Some(row.try_get(7)?),
        request_id,
        address: address(row, 12)?,
        detail: json!({ "api": if of_partners { "partner" } else { "bank" } }),
    };
    Ok((Key { at: at.micros(), place: place(0, row.try_get(0)?, row.try_get(1)?) }, item))
}

/// Who asked for a command: keys of partners, users of the bank.
fn asked_by(source: u8, actor: Uuid) -> String {
    if source == Topic::Partner.code() {
        KeyId::from_uuid(actor).to_string()
    } else {
        UserId::from_uuid(actor).to_string()
    }
}

fn of_topic(source: u8) -> Source {
    if source == Topic::Partner.code() { Source::PartnerCommand } else { Source::BankCommand }
}

fn reason(row: &MySqlRow, column: usize) -> Result<Option<String>> {
    let code: Option<u8> = row.try_get(column)?;
    Ok(code.map(|code| Reason::from_code(code).map_or_else(|| code.to_string(), |it| it.to_string())))
}

fn payment(row: &MySqlRow) -> Result<(Key, Item)> {
    let (source, at): (u8, _) = (row.try_get(0)?, Timestamp::from_micros(row.try_get(3)?));
    let kind: u8 = row.try_get(6)?;
    let status = PaymentStatus::from_code(row.try_get(7)?);
    let currency: Option<String> = row.try_get_unchecked(10)?;
    let minor: i64 = row.try_get(11)?;
    let amount =
        currency.as_deref().and_then(|it| it.parse::<Currency>().ok()).map(|it| decimal_text(minor, it));
    let mut detail = json!({
        "status": status.map(PaymentStatus::as_str), "amount": amount, "currency": currency,
        "reference": row.try_get_unchecked::<Option<String>, _>(12)?,
        "reason_given": row.try_get_unchecked::<Option<String>, _>(14)?,
    });
    drop_nulls(&mut detail);
    let item = Item {
        id: PaymentId::from_uuid(uuid(row, 4)?).to_string(),
        source: of_topic(source),
        at,
        actor: Some(asked_by(source, uuid(row, 13)?)),
        partner: opt_uuid(row, 9)?.map(|id| PartnerId::from_uuid(id).to_string()),
        action: PaymentKind::from_code(kind).map_or_else(|| kind.to_string(), |it| it.to_string()),
        target: Some(PaymentId::from_uuid(uuid(row, 5)?).to_string()),
        outcome: match status {
            Some(PaymentStatus::Rejected | PaymentStatus::Conflicted) => Outcome::Refused,
            _ => Outcome::Done,
        },
        reason: reason(row, 8)?,
        status: None,
        duration_us: None,
        request_id: uuid(row, 15)?,
        address: address(row, 16)?,
        detail,
    };
    Ok((Key { at: at.micros(), place: place(source, row.try_get(1)?, row.try_get(2)?) }, item))
}

fn change(row: &MySqlRow) -> Result<(Key, Item)> {
    let (source, at): (u8, _) = (row.try_get(0)?, Timestamp::from_micros(row.try_get(3)?));
    let kind: String = row.try_get_unchecked(5)?;
    let target = uuid(row, 7)?;
    let reason = reason(row, 6)?;
    let mut detail = json!({
        "command": as_json(row.try_get_unchecked(9)?),
        "reason_given": row.try_get_unchecked::<String, _>(11)?,
    });
    drop_nulls(&mut detail);
    let item = Item {
        id: ChangeId::from_uuid(uuid(row, 4)?).to_string(),
        source: of_topic(source),
        at,
        actor: Some(asked_by(source, uuid(row, 10)?)),
        partner: opt_uuid(row, 8)?.map(|id| PartnerId::from_uuid(id).to_string()),
        target: Some(changed(&kind, target)),
        action: kind,
        outcome: if reason.is_none() { Outcome::Done } else { Outcome::Refused },
        reason,
        status: None,
        duration_us: None,
        request_id: uuid(row, 12)?,
        address: address(row, 13)?,
        detail,
    };
    Ok((Key { at: at.micros(), place: place(source, row.try_get(1)?, row.try_get(2)?) }, item))
}

/// The id of what a change changed, by the word of its command.
fn changed(kind: &str, target: Uuid) -> String {
    if kind.contains("mandate") {
        domain::ids::MandateId::from_uuid(target).to_string()
    } else if kind.contains("dead_letter") {
        PaymentId::from_uuid(target).to_string()
    } else {
        domain::ids::AccountId::from_uuid(target).to_string()
    }
}

fn as_json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn drop_nulls(value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
}

fn uuid(row: &MySqlRow, column: usize) -> Result<Uuid> {
    Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn opt_uuid(row: &MySqlRow, column: usize) -> Result<Option<Uuid>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(Uuid::from_slice).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A network address of 4 or 16 bytes; another length is none.
fn address(row: &MySqlRow, column: usize) -> Result<Option<IpAddr>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    Ok(bytes.and_then(|bytes| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
        v4.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
    }))
}
