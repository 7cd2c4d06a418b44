//! The ledger against signed checkpoints, which are kept where whoever can write the database cannot write.
//!
//! The folder counts, not the copies in the database: every number from 1 to the last must be there, signed with the
//! key, following the one before. The leaves in the database must make the signed root, and each leaf must be the hash
//! of the entry that it names. Together with the walk along the chains, that fixes every entry up to the leaf. The audit
//! chain must come to the head that each checkpoint names, in their order: that fixes every row of the audit log up to it.

use std::{collections::HashMap, fs, io, path::Path};

use domain::{
    checkpoint::{Checkpoint, GENESIS, Hash, Leaf, Merkle},
    ids::AccountId,
    time::Timestamp,
};
use ed25519_dalek::VerifyingKey;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Error, Invariant, Report,
    audit::Heads,
    report::Row,
    store::{self, StoredCheckpoint},
};

/// A longer file is no checkpoint.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the checkpoints vouch for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vouched {
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// How many heads of accounts they name.
    pub leaves: u64,
    /// When the first and the last were taken.
    pub between: Option<(Timestamp, Timestamp)>,
}

impl Vouched {
    /// What an attacker could still have done, in words.
    pub fn statement(&self) -> String {
        let Some((first, last)) = self.between else {
            return "No checkpoint vouches for this ledger: whoever could write the database could have rewritten all \
                    of it, together with its chains."
                .to_owned();
        };
        format!(
            "{} checkpoints, taken from {first} to {last}, vouch for the accounts they name and every entry before, and\n\
             for the audit log up to the last link that they name.\n\
             Whoever could write the database, but neither the folder nor the signing key, could still have\n\
             - rewritten what came after the last checkpoint, {last}, as long as it agrees with itself;\n\
             - rewritten an entry between its posting and the next checkpoint, within one interval;\n\
             - rewritten what came before the first checkpoint, {first}, before that was taken;\n\
             - altered what no chain covers: texts of payments, rejected payments, events, mandates, limits.\n\
             Compare the last number with the topic ledger.checkpoints.v1: a folder that was cut off at its end \
             together with the database looks like an older one.",
            self.checkpoints
        )
    }
}

/// What is compared with checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Ledger and audit log.
    Everything,
    /// The audit log.
    AuditAlone,
}

/// Verifies the checkpoints in `folder`, and the ledger against them; what is wrong is added to `report`.
pub(crate) async fn verify(
    store: &sqlx::MySqlPool,
    folder: &Path,
    key: &VerifyingKey,
    compared: Compared,
    report: &mut Report,
) -> Result<Vouched, Error> {
    // In this order, so that a checkpoint that is taken and published meanwhile is no finding.
    let published = store::last_published(store).await?;
    let last = last_number(folder)?;
    let stored_last = store::last_checkpoint(store).await?;
    let mut vouched = Vouched::default();
    let mut previous = GENESIS;
    let mut heads = Heads::new();
    for number in 1..=last.max(published) {
        let row = Row { table: "checkpoints", key: &|| key_of(number) };
        let checkpoint = read(folder, number)?;
        let File::Checkpoint(checkpoint) = checkpoint else {
            let what = if number > last {
                "a checkpoint in the folder, which is older than the database or was cut off"
            } else {
                "a checkpoint in the folder"
            };
            report.hold(Invariant::I11, &row, false, || (what.to_owned(), format!("{checkpoint:?}")));
            if number > last || report.is_full() {
                break;
            }
            // The next one signs the digest of this, which is not known: it is compared no more.
            previous = Hash([0xff; 32]);
            continue;
        };
        check_statement(report, &row, &checkpoint, number, key, previous);
        previous = checkpoint.statement.digest();
        let stored = store::checkpoint(store, number).await?;
        check_stored(report, &row, &checkpoint, stored.as_ref(), number > stored_last);
        if compared == Compared::Everything {
            check_leaves(store, report, &checkpoint).await?;
        }
        heads.check(store, report, number, checkpoint.statement.audit_head.0).await?;
        let at = checkpoint.statement.taken_at;
        vouched.checkpoints += 1;
        vouched.leaves += checkpoint.statement.leaves;
        vouched.between = Some((vouched.between.map_or(at, |(first, _)| first), at));
        if report.is_full() {
            break;
        }
    }
    report.read("checkpoints", vouched.checkpoints as usize);
    Ok(vouched)
}

fn check_statement(
    report: &mut Report,
    row: &Row<'_>,
    checkpoint: &Checkpoint,
    number: u64,
    key: &VerifyingKey,
    previous: Hash,
) {
    let signed = checkpoint.is_signed_by(key);
    let say = || ("a statement signed with the key".to_owned(), "another signature".to_owned());
    report.hold(Invariant::I11, row, signed, say);
    report.expect(Invariant::I11, row, "number", &number, &checkpoint.statement.number);
    if previous != Hash([0xff; 32]) {
        let follows = checkpoint.statement.previous == previous;
        let say = || ("the digest of the checkpoint before".to_owned(), "another one".to_owned());
        report.hold(Invariant::I11, row, follows, say);
    }
}

fn check_stored(
    report: &mut Report,
    row: &Row<'_>,
    checkpoint: &Checkpoint,
    stored: Option<&StoredCheckpoint>,
    beyond: bool,
) {
    let statement = &checkpoint.statement;
    let expected = (statement.leaves, statement.root.0, statement.audit_head.0, checkpoint.signature.0);
    let same = stored.is_some_and(|it| (it.leaves, it.root, it.audit_head, it.signature) == expected);
    let say = || {
        let found = match (stored, beyond) {
            (Some(_), _) => "another one",
            (None, true) => "none: the database is older than the folder",
            (None, false) => "none",
        };
        ("this checkpoint in the database, too".to_owned(), found.to_owned())
    };
    report.hold(Invariant::I11, row, same, say);
}

async fn check_leaves(
    store: &sqlx::MySqlPool,
    report: &mut Report,
    checkpoint: &Checkpoint,
) -> Result<(), Error> {
    let number = checkpoint.statement.number;
    let mut merkle = Merkle::default();
    let mut after: Option<Uuid> = None;
    loop {
        let page = store::leaves_after(store, number, after).await?;
        report.read("checkpoint_leaves", page.len());
        let keys: Vec<_> = page.iter().map(|leaf| (leaf.account.uuid(), leaf.version)).collect();
        let entries = store::entries_at(store, &keys).await?;
        let entries: HashMap<_, _> = entries.iter().map(|it| ((it.account, it.version), it.hash)).collect();
        for leaf in &page {
            merkle.push(leaf);
            let found = entries.get(&(leaf.account.uuid(), leaf.version)).copied();
            check_entry(report, leaf, found, number);
        }
        match page.last() {
            Some(last) if page.len() >= store::COMMAND_PAGE as usize && !report.is_full() => {
                after = Some(last.account.uuid());
            }
            _ => break,
        }
    }
    let row = Row { table: "checkpoint_leaves", key: &|| key_of(number) };
    let same =
        (merkle.leaves(), merkle.clone().root()) == (checkpoint.statement.leaves, checkpoint.statement.root);
    let say = || {
        let expected = format!("{} leaves that make the signed root", checkpoint.statement.leaves);
        (expected, format!("{} with another root", merkle.leaves()))
    };
    // Leaves that were not read to their end make no root.
    let same = same || report.is_full();
    report.hold(Invariant::I11, &row, same, say);
    Ok(())
}

fn check_entry(report: &mut Report, leaf: &Leaf, found: Option<[u8; 32]>, number: u64) {
    let key = || format!("{} version {}", AccountId::from_uuid(leaf.account.uuid()), leaf.version);
    let row = Row { table: "entries", key: &key };
    let say = || {
        let expected =
            format!("the hash that checkpoint {number} names, so this or an earlier entry was rewritten");
        (expected, if found.is_some() { "another hash" } else { "no such entry" }.to_owned())
    };
    report.hold(Invariant::I11, &row, found == Some(leaf.hash), say);
}

fn key_of(number: u64) -> String {
    format!("number {number}")
}

/// The greatest number in the folder.
fn last_number(folder: &Path) -> Result<u64, Error> {
    let failed = |source: io::Error| Error::Folder { path: folder.to_owned(), reason: source.to_string() };
    let mut last = 0;
    for file in fs::read_dir(folder).map_err(failed)? {
        let name = file.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("checkpoint-"));
        let number =
            number.and_then(|name| name.strip_suffix(".json")).and_then(|number| number.parse().ok());
        last = last.max(number.unwrap_or_default());
    }
    Ok(last)
}

/// What the folder holds under a number.
#[derive(Debug)]
enum File {
    Nothing,
    NoCheckpoint,
    Checkpoint(Box<Checkpoint>),
}

fn read(folder: &Path, number: u64) -> Result<File, Error> {
    let path = folder.join(Checkpoint::file_name(number));
    let failed = |error: io::Error| Error::Folder { path: path.clone(), reason: error.to_string() };
    match fs::metadata(&path) {
        Ok(file) if file.len() > FILE_BYTES_MAX => return Ok(File::NoCheckpoint),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::Nothing),
        Err(error) => return Err(failed(error)),
    }
    let text = fs::read(&path).map_err(failed)?;
    Ok(serde_json::from_slice(&text).map_or(File::NoCheckpoint, |it| File::Checkpoint(Box::new(it))))
}
