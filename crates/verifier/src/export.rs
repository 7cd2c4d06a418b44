//! The ledger as files: for an auditor who gets no access to the database.
//!
//! An export is a folder with a file for each table: a line with the names of its columns, then a line for each row, as
//! JSON arrays in the order of the primary key; bytes are hexadecimal digits. Everything is of one moment. Nothing is held
//! in memory but a row, on either way.
//!
//! It is verified by loading it into an empty database of the auditor's own (`migrate apply` makes one) and verifying
//! that: the same checks, so the same findings. Files may come from anybody: their values become literals of fixed
//! statements, their column names must be those of the schema.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

use futures_util::TryStreamExt as _;
use runtime::sql::Sql;
use serde_json::Value;
use sqlx::{MySqlConnection, MySqlPool};

use crate::{
    Error,
    store::{self, Form, TABLES, Table},
};

/// Bytes of one INSERT: well below `max_allowed_packet`.
const STATEMENT_BYTES: usize = 1 << 20;
/// A longer line is no row of ours: the largest is a dead letter of 1 MiB in hexadecimal digits.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// Writes the ledger into a new folder. Gives the rows of all tables.
pub async fn export(pool: &MySqlPool, folder: &Path) -> Result<u64, Error> {
    fs::create_dir(folder).map_err(|error| failed(folder, &error.to_string()))?;
    let mut connection = pool.acquire().await?;
    store::begin(&mut connection).await?;
    let written = write_tables(&mut connection, folder).await;
    store::end(&mut connection).await?;
    written
}

async fn write_tables(connection: &mut MySqlConnection, folder: &Path) -> Result<u64, Error> {
    let columns = store::columns(connection).await?;
    let mut rows = 0;
    for table in TABLES {
        let path = folder.join(file_name(table));
        let columns =
            columns.get(table.name).ok_or_else(|| failed(&path, "the database has no such table"))?;
        let io = |error: io::Error| failed(&path, &error.to_string());
        let mut file = BufWriter::new(File::create_new(&path).map_err(io)?);
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        writeln!(file, "{}", serde_json::to_string(&names).unwrap_or_default()).map_err(io)?;
        let mut found = store::stream(connection, table.select);
        while let Some(row) = found.try_next().await? {
            let mut values = Vec::with_capacity(columns.len());
            for (index, (_, form)) in columns.iter().enumerate() {
                values.push(to_json(store::value(&row, index)?, *form));
            }
            writeln!(file, "{}", Value::Array(values)).map_err(io)?;
            rows += 1;
        }
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(io)?;
    }
    Ok(rows)
}

fn to_json(value: Option<Vec<u8>>, form: Form) -> Value {
    let Some(bytes) = value else { return Value::Null };
    let text = String::from_utf8_lossy(&bytes);
    match form {
        Form::Number => {
            text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from))
        }
        Form::Bytes => Ok(Value::from(to_hex(&bytes))),
        Form::Text => Ok(Value::from(text.as_ref())),
    }
    .unwrap_or(Value::Null)
}

/// Loads an export into an empty database with the schema of this version. Gives the rows of all tables.
pub async fn import(pool: &MySqlPool, folder: &Path) -> Result<u64, Error> {
    if !store::is_fresh(pool).await? {
        let reason = "the database is not empty: make a new one with `migrate apply`";
        return Err(failed(folder, reason));
    }
    let columns = store::columns(&mut *pool.acquire().await?).await?;
    store::forget_positions(pool).await?;
    let mut rows = 0;
    for table in TABLES {
        let known = columns.get(table.name).map(Vec::as_slice).unwrap_or_default();
        rows += read_table(pool, table, known, &folder.join(file_name(table))).await?;
    }
    Ok(rows)
}

async fn read_table(
    pool: &MySqlPool,
    table: &Table,
    columns: &[(String, Form)],
    path: &Path,
) -> Result<u64, Error> {
    let io = |error: io::Error| failed(path, &error.to_string());
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let mut line = String::new();
    read_line(&mut file, &mut line).map_err(io)?;
    let names: Vec<String> = serde_json::from_str(&line).unwrap_or_default();
    if !names.iter().eq(columns.iter().map(|(name, _)| name)) {
        return Err(failed(path, "its columns are not those of this schema: use the version that wrote it"));
    }
    let (mut rows, mut sql) = (0, Sql::new());
    while read_line(&mut file, &mut line).map_err(io)? {
        rows += 1;
        let wrong = || failed(path, &format!("row {rows} is none of this table"));
        let Ok(Value::Array(values)) = serde_json::from_str(&line) else { return Err(wrong()) };
        if values.len() != columns.len() {
            return Err(wrong());
        }
        sql.text(if sql.is_empty() { table.insert } else { "," }).text("(");
        for (index, (value, (_, form))) in values.iter().zip(columns).enumerate() {
            sql.text(if index == 0 { "" } else { "," });
            encode(&mut sql, value, *form).ok_or_else(wrong)?;
        }
        sql.text(")");
        if sql.len() >= STATEMENT_BYTES {
            store::insert(pool, &sql).await?;
            sql.clear();
        }
    }
    if !sql.is_empty() {
        store::insert(pool, &sql).await?;
    }
    Ok(rows)
}

fn encode(sql: &mut Sql, value: &Value, form: Form) -> Option<()> {
    match (value, form) {
        (Value::Null, _) => sql.null(),
        (Value::Number(number), Form::Number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => sql.int(number),
            (None, Some(number)) => sql.int(number),
            (None, None) => return None,
        },
        (Value::String(digits), Form::Bytes) => sql.bytes(&from_hex(digits)?),
        (Value::String(text), Form::Text) => sql.string(text),
        (_, _) => return None,
    };
    Some(())
}

/// The next line; `false` at the end.
fn read_line(file: &mut BufReader<File>, line: &mut String) -> io::Result<bool> {
    line.clear();
    let read = io::Read::take(&mut *file, LINE_BYTES_MAX).read_line(line)?;
    if read as u64 == LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
    }
    Ok(read > 0)
}

fn file_name(table: &Table) -> String {
    format!("{}.ndjson", table.name)
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|it| it.to_digit(16).map(|it| it as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn failed(path: &Path, reason: &str) -> Error {
    Error::Folder { path: path.to_owned(), reason: reason.to_owned() }
}
