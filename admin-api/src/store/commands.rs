//! Commands that people asked for, and what of the ledger has to be known before one is sent: read-only, the
//! ledger's tables.

use domain::account::OwnerKind;
use domain::command::BankEnvelope;
use domain::fingerprint::Fingerprint;
use domain::ids::{AccountId, PaymentId, UserId};
use domain::money::{Amount, Currency};
use domain::payment::{PaymentKind, PaymentStatus};
use domain::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlQueryResult, MySqlRow};
use sqlx::{MySql, MySqlExecutor, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::{Columns, bytes};

/// A command as it was asked for.
#[derive(Debug, Clone)]
pub struct CommandRow {
    /// The payment or change.
    pub id: Uuid,
    /// Who asked.
    pub actor: UserId,
    /// What was asked.
    pub fingerprint: Vec<u8>,
    /// The record's value.
    pub envelope: Vec<u8>,
    /// When.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "SELECT id, actor_id, fingerprint, envelope, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) FROM commands";

fn read(row: &MySqlRow) -> Result<CommandRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(CommandRow {
        id: columns.uuid()?,
        actor: columns.user()?,
        fingerprint: columns.take()?,
        envelope: columns.take()?,
        created_at: Timestamp::from_micros(columns.take()?),
    })
}

fn id_bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// The command with this id.
pub async fn by_id(db: impl MySqlExecutor<'_>, id: Uuid) -> Result<Option<CommandRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ?");
    let row = sqlx::query(&text).bind(id_bytes(id)).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// A command to insert.
#[derive(Debug)]
pub struct NewCommand<'a> {
    /// What is published.
    pub envelope: &'a BankEnvelope,
    /// The same as a record's value.
    pub value: &'a [u8],
    /// [`BankEnvelope::fingerprint`].
    pub fingerprint: &'a Fingerprint,
    /// What it moves at most.
    pub amount: Option<Amount>,
    /// Whether a second person agreed.
    pub approved: bool,
    /// After so many seconds the dispatcher publishes it, if nobody else did.
    pub due_in_s: u32,
}

/// Writes a command down. A second one with the id is a duplicate.
pub async fn insert(db: &mut MySqlConnection, command: &NewCommand<'_>) -> Result<(), sqlx::Error> {
    let envelope = command.envelope;
    sqlx::query(
        "INSERT INTO commands (id, actor_id, kind, fingerprint, target_id, amount_minor, currency, approved, envelope, \
         created_at, due_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? SECOND)",
    )
    .bind(id_bytes(envelope.id))
    .bind(bytes(envelope.actor))
    .bind(envelope.command.word())
    .bind(&command.fingerprint.as_bytes()[..])
    .bind(id_bytes(envelope.command.kafka_key()))
    .bind(command.amount.map(Amount::minor))
    .bind(command.amount.map(|amount| amount.currency().code()))
    .bind(command.approved)
    .bind(String::from_utf8_lossy(command.value).into_owned())
    .bind(command.due_in_s)
    .execute(db)
    .await
    .map(drop)
}

/// What somebody moved alone since midnight UTC, in minor units: what was asked for, also when it was rejected. Right
/// only while nobody else can insert for the same actor, who is locked.
pub async fn moved_today(
    db: &mut MySqlConnection,
    actor: UserId,
    currency: Currency,
) -> Result<i64, sqlx::Error> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(amount_minor), 0) AS SIGNED) FROM commands \
         WHERE actor_id = ? AND created_at >= UTC_DATE() AND currency = ? AND approved = 0",
    )
    .bind(bytes(actor))
    .bind(currency.code())
    .fetch_one(db)
    .await?;
    Columns::new(&row).take()
}

/// Ids of commands that are due, oldest first.
pub async fn due(pool: &MySqlPool, limit: u32) -> Result<Vec<Uuid>, sqlx::Error> {
    let text = "SELECT id FROM commands WHERE due_at <= UTC_TIMESTAMP(6) ORDER BY due_at LIMIT ?";
    let rows = sqlx::query(text).bind(limit).fetch_all(pool).await?;
    let mut ids = rows.iter().map(|row| Columns::new(row).uuid()).collect::<Result<Vec<_>, sqlx::Error>>()?;
    // Whoever claims at the same time locks in the same order.
    ids.sort_unstable();
    Ok(ids)
}

/// Takes those of `ids` that are still due for so many seconds, and returns them.
pub async fn claim(
    pool: &MySqlPool,
    ids: &[Uuid],
    claim: Uuid,
    seconds: u32,
) -> Result<Vec<CommandRow>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut update = QueryBuilder::new("UPDATE commands SET claim = ");
    update.push_bind(id_bytes(claim)).push(", due_at = UTC_TIMESTAMP(6) + INTERVAL ").push_bind(seconds);
    update.push(" SECOND WHERE due_at <= UTC_TIMESTAMP(6) AND ");
    if among(&mut update, ids).build().execute(pool).await?.rows_affected() == 0 {
        return Ok(Vec::new());
    }
    let mut select = QueryBuilder::new(COLUMNS);
    select.push(" WHERE claim = ").push_bind(id_bytes(claim)).push(" AND ");
    among(&mut select, ids).build().fetch_all(pool).await?.iter().map(read).collect()
}

/// Those of the claim that were published: due again after a pause that doubles from 10 s to 10 minutes.
pub async fn published(pool: &MySqlPool, ids: &[Uuid], claim: Uuid) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE commands SET due_at = UTC_TIMESTAMP(6) + INTERVAL LEAST(600, 10 * (1 << LEAST(attempts, 6))) SECOND, \
         attempts = LEAST(attempts + 1, 60000) WHERE due_at IS NOT NULL AND claim = ";
    of_claim(pool, SET, ids, claim).await.map(drop)
}

/// Those of the claim that could not be published: due at once.
pub async fn release(pool: &MySqlPool, ids: &[Uuid], claim: Uuid) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE commands SET due_at = UTC_TIMESTAMP(6) WHERE due_at IS NOT NULL AND claim = ";
    of_claim(pool, SET, ids, claim).await.map(drop)
}

/// The ledger has the outcome of these: nobody looks at them again.
pub async fn decided(pool: &MySqlPool, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut update = QueryBuilder::new("UPDATE commands SET due_at = NULL, claim = NULL WHERE ");
    among(&mut update, ids).build().execute(pool).await.map(drop)
}

async fn of_claim(
    pool: &MySqlPool,
    set: &'static str,
    ids: &[Uuid],
    claim: Uuid,
) -> Result<MySqlQueryResult, sqlx::Error> {
    if ids.is_empty() {
        return Ok(MySqlQueryResult::default());
    }
    let mut update = QueryBuilder::new(set);
    update.push_bind(id_bytes(claim)).push(" AND ");
    among(&mut update, ids).build().execute(pool).await
}

fn among<'a, 'q>(query: &'a mut QueryBuilder<'q, MySql>, ids: &[Uuid]) -> &'a mut QueryBuilder<'q, MySql> {
    query.push("id IN (");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id_bytes(*id));
    }
    query.push(")")
}

/// How many seconds ago the oldest undecided command was asked for; 0 when there is none.
pub async fn oldest_undecided_s(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    let text = "SELECT COALESCE(TIMESTAMPDIFF(SECOND, MIN(created_at), UTC_TIMESTAMP(6)), 0) \
         FROM commands WHERE due_at IS NOT NULL";
    let row = sqlx::query(text).fetch_one(pool).await?;
    Columns::new(&row).take()
}

/// The customers who own these accounts; accounts that are not there have no owner.
pub async fn owners(db: &mut MySqlConnection, accounts: &[AccountId]) -> Result<Vec<UserId>, sqlx::Error> {
    let mut found = Vec::with_capacity(accounts.len());
    for account in accounts {
        let row = sqlx::query("SELECT owner_id FROM accounts WHERE id = ? AND owner_kind = ?")
            .bind(id_bytes(account.uuid()))
            .bind(OwnerKind::Customer.code())
            .fetch_optional(&mut *db)
            .await?;
        found.extend(row.map(|row| Columns::new(&row).user()).transpose()?);
    }
    Ok(found)
}

/// The currency of an account, when there is such an account.
pub async fn currency_of(
    db: impl MySqlExecutor<'_>,
    account: AccountId,
) -> Result<Option<Currency>, sqlx::Error> {
    let text = "SELECT currency FROM accounts WHERE id = ?";
    let row = sqlx::query(text).bind(id_bytes(account.uuid())).fetch_optional(db).await?;
    let code = row.map(|row| Columns::new(&row).text()).transpose()?.flatten();
    Ok(code.and_then(|code| code.parse().ok()))
}

/// Whether there is such a partner.
pub async fn is_partner(db: impl MySqlExecutor<'_>, partner: Uuid) -> Result<bool, sqlx::Error> {
    let text = "SELECT 1 FROM partners WHERE id = ?";
    Ok(sqlx::query(text).bind(id_bytes(partner)).fetch_optional(db).await?.is_some())
}

/// A payment that may be moved back.
#[derive(Debug)]
pub struct Moved {
    /// What it was about: no reversal of it can move more.
    pub amount: Option<Amount>,
    /// The debited and the credited account.
    pub accounts: Vec<AccountId>,
}

/// What the payment moved.
pub async fn moved(db: &mut MySqlConnection, payment: PaymentId) -> Result<Option<Moved>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT amount_minor, currency, debit_account, credit_account FROM payments WHERE id = ?",
    )
    .bind(id_bytes(payment.uuid()))
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let mut columns = Columns::new(&row);
        let (minor, currency): (i64, _) = (columns.take()?, columns.text()?);
        let currency: Option<Currency> = currency.and_then(|code| code.parse().ok());
        let amount = currency.and_then(|currency| Amount::new(minor, currency).ok());
        let (debit, credit): (Option<Vec<u8>>, Option<Vec<u8>>) = (columns.take()?, columns.take()?);
        let accounts = [debit, credit].into_iter().flatten();
        let accounts = accounts.filter_map(|id| Uuid::from_slice(&id).ok()).map(AccountId::from_uuid);
        Ok(Moved { amount, accounts: accounts.collect() })
    })
    .transpose()
}

/// A decided payment, as whoever moved the money sees it.
#[derive(Debug)]
pub struct MovementRow {
    /// The payment.
    pub id: PaymentId,
    /// What it is.
    pub kind: PaymentKind,
    /// Where it stands.
    pub status: PaymentStatus,
    /// The payment that it belongs to.
    pub root: PaymentId,
    /// How much.
    pub amount_minor: i64,
    /// Of what; nothing when it asked for everything of what was not there.
    pub currency: Option<Currency>,
    /// The debited account.
    pub from: Option<AccountId>,
    /// The credited account.
    pub to: Option<AccountId>,
    /// When.
    pub decided_at: Timestamp,
}

/// A decided payment.
pub async fn movement(pool: &MySqlPool, id: PaymentId) -> Result<Option<MovementRow>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT kind, status, root_id, amount_minor, currency, debit_account, credit_account, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', decided_at) FROM payments WHERE id = ?",
    )
    .bind(id_bytes(id.uuid()))
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        let mut columns = Columns::new(&row);
        let account = |stored: Option<Vec<u8>>| {
            stored.and_then(|id| Uuid::from_slice(&id).ok()).map(AccountId::from_uuid)
        };
        Ok(MovementRow {
            id,
            kind: columns.named(PaymentKind::from_code)?,
            status: columns.named(PaymentStatus::from_code)?,
            root: PaymentId::from_uuid(columns.uuid()?),
            amount_minor: columns.take()?,
            currency: columns.text()?.and_then(|code| code.parse().ok()),
            from: account(columns.take()?),
            to: account(columns.take()?),
            decided_at: Timestamp::from_micros(columns.take()?),
        })
    })
    .transpose()
}
