//! I12: whatever is done to the audit log or its chain is found, and the first bad row named: by the chain alone, or
//! where somebody who rewrote all of it could not reach, by a checkpoint.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use domain::audit::{AuditRow, GENESIS};
use domain::checkpoint::{Checkpoint, FORMAT, GENESIS as FIRST, Hash, Merkle, Statement};
use domain::time::Timestamp;
use ed25519_dalek::SigningKey;
use sqlx::MySqlPool;
use testkit::Env;
use uuid::Uuid;
use verifier::{Finding, Invariant};

use crate::ledger::hex;

/// An audit log of so many rows, sealed in this order, as the bank writes it.
struct Log {
    rows: Vec<AuditRow>,
    heads: Vec<[u8; 32]>,
}

fn literal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

async fn execute(pool: &MySqlPool, sql: &str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn row(number: u64) -> AuditRow {
    let millis = u128::from(1_700_000_000_000 + number);
    AuditRow {
        id: Uuid::from_u128(millis << 80 | 7 << 76 | 2 << 62 | u128::from(number)),
        at: Timestamp::from_micros(1_700_000_000_000_000 + number as i64),
        actor: (!number.is_multiple_of(3)).then(|| Uuid::from_u128(7)),
        action: "user.log_in".to_owned(),
        target: (!number.is_multiple_of(2)).then(|| "usr_x".to_owned()),
        outcome: 1,
        detail: format!("{{\"ü\":{number}}}"),
        request_id: Uuid::from_u128(8),
        address: (number != 4).then(|| vec![127, 0, 0, 1]),
    }
}

async fn insert(pool: &MySqlPool, row: &AuditRow) {
    let opt = |bytes: Option<&[u8]>| bytes.map_or("NULL".to_owned(), literal);
    let sql = format!(
        "INSERT INTO audit_log VALUES ({}, '1970-01-01' + INTERVAL {} MICROSECOND, {}, '{}', {}, {}, '{}', {}, {})",
        hex(row.id),
        row.at.micros(),
        opt(row.actor.as_ref().map(|id| id.as_bytes().as_slice())),
        row.action,
        row.target.as_ref().map_or("NULL".to_owned(), |it| format!("'{it}'")),
        row.outcome,
        row.detail,
        hex(row.request_id),
        opt(row.address.as_deref()),
    );
    execute(pool, &sql).await;
}

impl Log {
    async fn write(pool: &MySqlPool, rows: u64) -> Self {
        execute(pool, "DELETE FROM audit_chain; DELETE FROM audit_log; DELETE FROM audit_unsealed").await;
        let mut log = Self { rows: Vec::new(), heads: vec![GENESIS] };
        for number in 1..=rows {
            let row = row(number);
            insert(pool, &row).await;
            log.rows.push(row);
        }
        log.seal(pool).await;
        log
    }

    /// Links what is not linked yet.
    async fn seal(&mut self, pool: &MySqlPool) {
        for number in self.heads.len()..=self.rows.len() {
            let row = &self.rows[number - 1];
            let hash = row.hash_after(self.heads.last().unwrap(), number as u64);
            let sql =
                format!("INSERT INTO audit_chain VALUES ({number}, {}, {})", hex(row.id), literal(&hash));
            execute(pool, &sql).await;
            self.heads.push(hash);
        }
    }
}

async fn found(env: &Env, checkpoints: Option<(&Path, &[u8; 32])>) -> Vec<Finding> {
    let pool = env.service_mysql("verifier").pool("verify", 2).unwrap();
    let pace = NonZeroU32::new(1_000_000);
    let (report, _) = verifier::verify_audit(&pool, checkpoints, pace, &|_| {}).await.unwrap();
    pool.close().await;
    report.findings
}

fn names(findings: &[Finding], table: &str, key: &str) -> bool {
    findings
        .first()
        .is_some_and(|it| it.invariant == Invariant::I12 && it.table == table && it.key.contains(key))
}

#[tokio::test]
async fn rows_altered_removed_added_and_reordered_are_found_and_named() {
    let env = Env::new("audit-altered").await;
    let pool = env.pool();
    let log = Log::write(pool, 7).await;
    assert_eq!(found(&env, None).await, []);
    let tables = ["audit_log", "audit_chain", "audit_unsealed"];
    for table in tables {
        execute(pool, &format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    let id = |number: usize| hex(log.rows[number - 1].id);
    let third = format!("WHERE id = {}", id(3));
    let column = |set: &str| format!("UPDATE audit_log SET {set} {third}");
    let swap = |a: u8, b: u8| {
        format!(
            "UPDATE audit_chain SET number = 99 WHERE number = {a}; UPDATE audit_chain SET number = {a} WHERE \
             number = {b}; UPDATE audit_chain SET number = {b} WHERE number = 99"
        )
    };
    let stray = Uuid::from_u128(0x018c_0000_0000_7000_8000_0000_0000_0001);
    let strayed = format!(
        "INSERT INTO audit_log SELECT {}, at, actor_id, action, target, outcome, detail, request_id, address FROM audit_log {third}",
        hex(stray)
    );
    let cases: Vec<(String, &str, String)> = vec![
        // Every column of a row.
        (column("at = at + INTERVAL 1 MICROSECOND"), "audit_log", "number 3 ".into()),
        (column("actor_id = REPEAT('x', 16)"), "audit_log", "number 3 ".into()),
        (column("actor_id = REPEAT('\\0', 16)"), "audit_log", "number 3 ".into()),
        (column("action = 'user.log_out'"), "audit_log", "number 3 ".into()),
        (column("target = NULL"), "audit_log", "number 3 ".into()),
        (column("target = ''"), "audit_log", "number 3 ".into()),
        (column("outcome = 2"), "audit_log", "number 3 ".into()),
        (column("detail = '{}'"), "audit_log", "number 3 ".into()),
        (column("request_id = REPEAT('x', 16)"), "audit_log", "number 3 ".into()),
        (column("address = NULL"), "audit_log", "number 3 ".into()),
        (column(&format!("id = {}", hex(stray))), "audit_log", "number 3 ".into()),
        // Removed.
        (format!("DELETE FROM audit_log {third}"), "audit_log", "number 3 ".into()),
        (format!("DELETE FROM audit_log WHERE id = {}", id(7)), "audit_log", "number 7 ".into()),
        ("DELETE FROM audit_chain WHERE number = 3".into(), "audit_chain", "number 4 ".into()),
        ("DELETE FROM audit_chain WHERE number = 1".into(), "audit_chain", "number 2 ".into()),
        // Removed with its link, and the numbers closed up.
        (
            format!(
                "DELETE FROM audit_log {third}; DELETE FROM audit_chain WHERE number = 3; UPDATE audit_chain SET number = number - 1 WHERE number > 3 ORDER BY number"
            ),
            "audit_log",
            "number 3 ".into(),
        ),
        // The tail of the chain alone: its rows have no link.
        ("DELETE FROM audit_chain WHERE number > 5".into(), "audit_log", log.rows[5].id.to_string()),
        // Reordered.
        (swap(3, 4), "audit_log", "number 3 ".into()),
        (
            format!(
                "UPDATE audit_chain SET audit_id = REPEAT('x', 16) WHERE number = 3; UPDATE audit_chain SET audit_id = {} WHERE number = 4; UPDATE audit_chain SET audit_id = {} WHERE number = 3",
                id(3),
                id(4)
            ),
            "audit_log",
            "number 3 ".into(),
        ),
        (
            "UPDATE audit_chain SET hash = REPEAT('x', 32) WHERE number = 3".into(),
            "audit_log",
            "number 3 ".into(),
        ),
        // Added.
        (strayed.clone(), "audit_log", stray.to_string()),
        (format!("INSERT INTO audit_unsealed VALUES ({})", hex(stray)), "audit_log", stray.to_string()),
        (
            format!(
                "{strayed}; UPDATE audit_chain SET number = number + 1 WHERE number > 3 ORDER BY number DESC; INSERT INTO audit_chain VALUES (4, {}, REPEAT('x', 32))",
                hex(stray)
            ),
            "audit_log",
            "number 4 ".into(),
        ),
    ];
    for (sql, table, key) in cases {
        execute(pool, &sql).await;
        let findings = found(&env, None).await;
        assert!(names(&findings, table, &key), "{sql}: {findings:#?}");
        for table in tables {
            execute(pool, &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}"))
                .await;
        }
    }
    assert_eq!(found(&env, None).await, [], "all is brought back");
    // A row that waits for its link is no finding.
    execute(pool, &format!("{strayed}; INSERT INTO audit_unsealed VALUES ({})", hex(stray))).await;
    assert_eq!(found(&env, None).await, []);
    env.close().await;
}

#[tokio::test]
async fn a_tail_that_was_cut_off_and_a_chain_that_was_rewritten_are_found_by_checkpoints() {
    let env = Env::new("audit-checkpoints").await;
    let pool = env.pool();
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[3; 32]);
    let public = key.verifying_key().to_bytes();
    let against = Some((folder.path(), &public));
    let mut log = Log::write(pool, 10).await;
    // Before anything was sealed, twice at the same head, and at heads between which nothing was taken.
    let mut last: Option<Checkpoint> = None;
    for (index, head) in [0, 3, 3, 6, 8].into_iter().enumerate() {
        let statement = Statement {
            format: FORMAT,
            number: index as u64 + 1,
            taken_at: Timestamp::from_micros(1_700_000_000_000_000),
            leaves: 0,
            root: Merkle::default().root(),
            previous: last.map_or(FIRST, |last| last.statement.digest()),
            audit_head: Hash(log.heads[head]),
        };
        let checkpoint = statement.sign(&key);
        let row = format!(
            "INSERT INTO checkpoints VALUES ({0}, NOW(), 0, {1}, {2}, {3}, {4}, '[]'); \
             INSERT INTO checkpoint_publications VALUES ({0}, NOW())",
            statement.number,
            literal(&statement.root.0),
            literal(&statement.previous.0),
            literal(&statement.audit_head.0),
            literal(&checkpoint.signature.0),
        );
        execute(pool, &row).await;
        let path = folder.path().join(Checkpoint::file_name(statement.number));
        fs::write(path, serde_json::to_string(&checkpoint).unwrap()).unwrap();
        last = Some(checkpoint);
    }
    assert_eq!(found(&env, against).await, []);

    // The tail, with its rows: nothing inside the database tells.
    let cut = |above: u64| {
        format!(
            "DELETE l FROM audit_log l JOIN audit_chain c ON c.audit_id = l.id WHERE c.number > {above}; \
             DELETE FROM audit_chain WHERE number > {above}"
        )
    };
    execute(pool, &cut(8)).await;
    assert_eq!(found(&env, against).await, [], "behind the last checkpoint nobody can tell");
    execute(pool, &cut(7)).await;
    assert_eq!(found(&env, None).await, []);
    let findings = found(&env, against).await;
    assert!(names(&findings, "audit_chain", "number 7"), "{findings:#?}");
    assert!(findings[0].expected.contains("checkpoint 5") && findings[0].found.contains("ends at number 7"));
    execute(pool, &cut(0)).await;
    let findings = found(&env, against).await;
    assert!(names(&findings, "audit_chain", "number 1"), "{findings:#?}");

    // Another story with right hashes from row 5 on: the head of checkpoint 4 is never reached.
    log.rows[4].detail = "{}".to_owned();
    let rows = log.rows.clone();
    execute(pool, "DELETE FROM audit_chain; DELETE FROM audit_log").await;
    for row in &rows {
        insert(pool, row).await;
    }
    log.heads.truncate(1);
    log.seal(pool).await;
    assert_eq!(found(&env, None).await, []);
    let findings = found(&env, against).await;
    assert!(names(&findings, "audit_chain", "number 4"), "{findings:#?}");
    assert!(findings[0].expected.contains("checkpoint 4"), "{findings:#?}");

    // The same from an export, in a database of the auditor's own.
    let (scratch, files) = (Env::new("audit-imported").await, folder.path().join("export"));
    let reader = env.service_mysql("verifier").pool("export", 1).unwrap();
    verifier::export(&reader, &files).await.unwrap();
    verifier::import(scratch.pool(), &files).await.unwrap();
    assert_eq!(found(&scratch, against).await, findings);
    reader.close().await;
    scratch.close().await;
    env.close().await;
}

#[tokio::test]
async fn a_run_that_goes_on_finds_what_is_new_and_a_tail_that_was_cut_off_since() {
    let env = Env::new("audit-resumed").await;
    let pool = env.pool();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let reader = env.service_mysql("verifier").pool("verify", 2).unwrap();
    let run = async || verifier::verify(&reader, Some(&state)).await.unwrap();
    let mut log = Log::write(pool, 4).await;
    assert_eq!((run().await.findings, run().await.rows["audit_chain"]), (vec![], 0));
    for number in 5..=6 {
        insert(pool, &row(number)).await;
        log.rows.push(row(number));
    }
    let findings = run().await.findings;
    assert!(names(&findings, "audit_log", &log.rows[4].id.to_string()), "{findings:#?}");
    log.seal(pool).await;
    let whole = run().await;
    assert_eq!((whole.findings, whole.rows["audit_chain"]), (vec![], 2));
    execute(pool, "DELETE l FROM audit_log l JOIN audit_chain c ON c.audit_id = l.id WHERE c.number > 5; DELETE FROM audit_chain WHERE number > 5").await;
    let findings = run().await.findings;
    assert!(names(&findings, "audit_chain", "number 6"), "{findings:#?}");
    reader.close().await;
    env.close().await;
}
