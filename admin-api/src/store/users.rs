//! Users. Personal fields pass through sealed.

use domain::account::{AccountStatus, OwnerKind};
use domain::ids::UserId;
use domain::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{MySqlExecutor, MySqlPool};

use super::{Columns, bytes};
use crate::personal::Index;
use crate::roles::{Role, UserStatus};
use crate::store::links::NewAddress;

const COLUMNS: &str = "SELECT id, role, status, data_key_sealed, email_sealed, name_sealed, phone_sealed, \
     address_sealed, password_hash, totp_sealed, totp_confirmed_at IS NOT NULL, totp_step, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) FROM users";

/// A user; what is sealed opens with the data key.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// The id.
    pub id: UserId,
    /// The role.
    pub role: Role,
    /// Where the user stands.
    pub status: UserStatus,
    /// The sealed data key; `None` once erased.
    pub data_key_sealed: Option<Vec<u8>>,
    /// The address.
    pub email_sealed: Option<Vec<u8>>,
    /// The name.
    pub name_sealed: Option<Vec<u8>>,
    /// The telephone number.
    pub phone_sealed: Option<Vec<u8>>,
    /// The postal address.
    pub address_sealed: Option<Vec<u8>>,
    /// The password's hash.
    pub password_hash: Option<String>,
    /// The secret of the second factor.
    pub totp_sealed: Option<Vec<u8>>,
    /// Whether the second factor counts.
    pub totp_confirmed: bool,
    /// The step of the last code taken.
    pub totp_step: u64,
    /// Since when.
    pub created_at: Timestamp,
}

fn read(row: &MySqlRow) -> Result<UserRow, sqlx::Error> {
    let mut columns = Columns::new(row);
    Ok(UserRow {
        id: columns.user()?,
        role: columns.named(Role::from_number)?,
        status: columns.named(UserStatus::from_number)?,
        data_key_sealed: columns.take()?,
        email_sealed: columns.take()?,
        name_sealed: columns.take()?,
        phone_sealed: columns.take()?,
        address_sealed: columns.take()?,
        password_hash: columns.text()?,
        totp_sealed: columns.take()?,
        totp_confirmed: columns.take::<i64>()? != 0,
        totp_step: columns.take()?,
        created_at: Timestamp::from_micros(columns.take()?),
    })
}

/// The user with this id.
pub async fn by_id(db: impl MySqlExecutor<'_>, id: UserId) -> Result<Option<UserRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ?");
    let row = sqlx::query(&text).bind(bytes(id)).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// The user with this id, locked.
pub async fn lock(db: &mut MySqlConnection, id: UserId) -> Result<Option<UserRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id = ? FOR UPDATE");
    let row = sqlx::query(&text).bind(bytes(id)).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// The user with this address.
pub async fn by_email(db: impl MySqlExecutor<'_>, email: &Index) -> Result<Option<UserRow>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE email_index = ?");
    let row = sqlx::query(&text).bind(&email[..]).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// Users below an id, newest first; ids are drawn in the order of time.
pub async fn list(
    pool: &MySqlPool,
    below: Option<UserId>,
    role: Option<Role>,
    limit: u32,
) -> Result<Vec<UserRow>, sqlx::Error> {
    let below = below.map_or_else(|| vec![0xff; 16], bytes);
    // Two texts, so that each finds its index.
    let rows = if let Some(role) = role {
        let text = format!("{COLUMNS} WHERE role = ? AND id < ? ORDER BY id DESC LIMIT ?");
        sqlx::query(&text).bind(role as u8).bind(below).bind(limit).fetch_all(pool).await?
    } else {
        let text = format!("{COLUMNS} WHERE id < ? ORDER BY id DESC LIMIT ?");
        sqlx::query(&text).bind(below).bind(limit).fetch_all(pool).await?
    };
    rows.iter().map(read).collect()
}

/// A user to insert; everything personal is sealed.
pub struct NewUser {
    /// The id.
    pub id: UserId,
    /// The role.
    pub role: Role,
    /// The sealed data key.
    pub data_key_sealed: Vec<u8>,
    /// Finds the user by address.
    pub email_index: Index,
    /// The address.
    pub email_sealed: Vec<u8>,
    /// The name.
    pub name_sealed: Vec<u8>,
}

/// Inserts a user who has to prove the address. A second one with the address is a duplicate.
pub async fn insert(db: &mut MySqlConnection, user: &NewUser) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO users (id, role, status, data_key_sealed, email_index, email_sealed, name_sealed, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(user.id))
    .bind(user.role as u8)
    .bind(UserStatus::Registered as u8)
    .bind(&user.data_key_sealed)
    .bind(&user.email_index[..])
    .bind(&user.email_sealed)
    .bind(&user.name_sealed)
    .execute(db)
    .await
    .map(drop)
}

/// Sets a new password; who was registered is active from now on.
pub async fn set_password(db: &mut MySqlConnection, id: UserId, hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET password_hash = ?, status = ? WHERE id = ?")
        .bind(hash)
        .bind(UserStatus::Active as u8)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// Replaces the address and what finds it. A duplicate: somebody else has it.
pub async fn set_email(
    db: &mut MySqlConnection,
    id: UserId,
    address: &NewAddress,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET email_index = ?, email_sealed = ? WHERE id = ?")
        .bind(&address.index[..])
        .bind(&address.sealed)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// Deletes a registration that nobody completed.
pub async fn delete(db: &mut MySqlConnection, id: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM users WHERE id = ? AND status = ?")
        .bind(bytes(id))
        .bind(UserStatus::Registered as u8)
        .execute(db)
        .await
        .map(drop)
}

/// Replaces the profile.
pub async fn set_profile(
    db: &mut MySqlConnection,
    id: UserId,
    name: Option<&[u8]>,
    phone: Option<&[u8]>,
    address: Option<&[u8]>,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET name_sealed = ?, phone_sealed = ?, address_sealed = ? WHERE id = ?")
        .bind(name)
        .bind(phone)
        .bind(address)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// A new second factor, which counts once it is confirmed; `None` removes it.
pub async fn begin_totp(
    db: &mut MySqlConnection,
    id: UserId,
    sealed: Option<&[u8]>,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET totp_sealed = ?, totp_confirmed_at = NULL, totp_step = 0 WHERE id = ?")
        .bind(sealed)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// From now on the second factor counts.
pub async fn confirm_totp(db: &mut MySqlConnection, id: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET totp_confirmed_at = UTC_TIMESTAMP(6) WHERE id = ?")
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// The code of this step was taken. `false`: it or a later one was taken before.
pub async fn take_step(db: &mut MySqlConnection, id: UserId, step: u64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE users SET totp_step = ? WHERE id = ? AND totp_step < ?")
        .bind(step)
        .bind(bytes(id))
        .bind(step)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a locked user another role.
pub async fn set_role(db: &mut MySqlConnection, id: UserId, role: Role) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET role = ? WHERE id = ?")
        .bind(role as u8)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// Lets a locked user in no more.
pub async fn disable(db: &mut MySqlConnection, id: UserId) -> Result<(), sqlx::Error> {
    set_status(db, id, UserStatus::Disabled).await
}

/// Lets a locked user in again, with the password that they had.
pub async fn enable(db: &mut MySqlConnection, id: UserId) -> Result<(), sqlx::Error> {
    set_status(db, id, UserStatus::Active).await
}

async fn set_status(db: &mut MySqlConnection, id: UserId, status: UserStatus) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET status = ? WHERE id = ?")
        .bind(status as u8)
        .bind(bytes(id))
        .execute(db)
        .await
        .map(drop)
}

/// How many admins are active; they and whoever counts at the same time wait for each other.
pub async fn lock_active_admins(db: &mut MySqlConnection) -> Result<usize, sqlx::Error> {
    let rows = sqlx::query("SELECT id, status FROM users WHERE role = ? FOR UPDATE")
        .bind(Role::Admin as u8)
        .fetch_all(db)
        .await?;
    let mut active = 0;
    for row in &rows {
        let mut columns = Columns::new(row);
        columns.user()?;
        active += usize::from(columns.named(UserStatus::from_number)? == UserStatus::Active);
    }
    Ok(active)
}

/// Leaves nothing of a person but the id.
pub async fn erase(db: &mut MySqlConnection, id: UserId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE users SET status = ?, data_key_sealed = NULL, email_index = NULL, email_sealed = NULL, \
         name_sealed = NULL, phone_sealed = NULL, address_sealed = NULL, password_hash = NULL, totp_sealed = NULL, \
         totp_confirmed_at = NULL WHERE id = ?",
    )
    .bind(UserStatus::Erased as u8)
    .bind(bytes(id))
    .execute(db)
    .await
    .map(drop)
}

/// The accounts of a customer, and whether each is closed: read-only, the ledger's.
pub async fn accounts(db: &mut MySqlConnection, id: UserId) -> Result<Vec<(uuid::Uuid, bool)>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, status FROM accounts WHERE owner_kind = ? AND owner_id = ? LIMIT 1000")
            .bind(OwnerKind::Customer.code())
            .bind(bytes(id))
            .fetch_all(db)
            .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            Ok((columns.uuid()?, columns.take::<u8>()? == AccountStatus::Closed.code()))
        })
        .collect()
}

/// Data keys above an id, for sealing anew.
pub async fn data_keys(
    pool: &MySqlPool,
    above: UserId,
    limit: u32,
) -> Result<Vec<(UserId, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, data_key_sealed FROM users WHERE id > ? AND data_key_sealed IS NOT NULL ORDER BY id LIMIT ?",
    )
    .bind(bytes(above))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::new(row);
            Ok((columns.user()?, columns.take()?))
        })
        .collect()
}

/// Replaces a data key by the same one sealed anew; whoever erased the user meanwhile wins.
pub async fn replace_data_key(
    pool: &MySqlPool,
    id: UserId,
    before: &[u8],
    after: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE users SET data_key_sealed = ? WHERE id = ? AND data_key_sealed = ?")
        .bind(after)
        .bind(bytes(id))
        .bind(before)
        .execute(pool)
        .await
        .map(drop)
}

/// Forgets registrations that nobody completed within a day, and invitations within 30.
pub async fn forget_registrations(pool: &MySqlPool, limit: u32) -> Result<u64, sqlx::Error> {
    let mut forgotten = 0;
    for role in Role::ALL {
        let days = if role.is_staff() { 30 } else { 1 };
        let done = sqlx::query(
            "DELETE FROM users WHERE status = ? AND role = ? AND created_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY LIMIT ?",
        )
        .bind(UserStatus::Registered as u8)
        .bind(role as u8)
        .bind(days)
        .bind(limit)
        .execute(pool)
        .await?;
        forgotten += done.rows_affected();
    }
    Ok(forgotten)
}
