//! What signed checkpoints outside the database find that the chains alone do not.

use std::{collections::HashMap, fs, path::Path};

use domain::{
    checkpoint::{Checkpoint, FORMAT, GENESIS, Hash, Leaf, Merkle, NO_AUDIT_HEAD, Statement},
    ids::AccountId,
    time::Timestamp,
};
use ed25519_dalek::SigningKey;
use sqlx::Row as _;
use testkit::Env;
use uuid::Uuid;
use verifier::{Finding, Invariant};

use crate::ledger::{Ledger, hex};

/// Takes and publishes checkpoints, as the bank does.
struct Taker<'a> {
    env: &'a Env,
    folder: &'a Path,
    key: SigningKey,
    heads: HashMap<Uuid, u64>,
    last: Option<Checkpoint>,
}

impl Taker<'_> {
    async fn take(&mut self, ledger: &Ledger) {
        let mut merkle = Merkle::default();
        let number = self.last.map_or(0, |last| last.statement.number) + 1;
        let accounts = sqlx::raw_sql("SELECT id, version, head FROM accounts WHERE version > 0 ORDER BY id");
        for row in accounts.fetch_all(self.env.pool()).await.unwrap() {
            let account = Uuid::from_slice(row.get(0)).unwrap();
            let (version, hash): (u64, Vec<u8>) = (row.get(1), row.get(2));
            if self.heads.insert(account, version) == Some(version) {
                continue;
            }
            let hash = hash.try_into().unwrap();
            merkle.push(&Leaf { account: AccountId::from_uuid(account), version, hash });
            let leaf = format!(
                "INSERT INTO checkpoint_leaves VALUES ({number}, {}, {version}, {})",
                hex(account),
                literal(&hash)
            );
            ledger.execute(&leaf).await;
        }
        let statement = Statement {
            format: FORMAT,
            number,
            taken_at: Timestamp::from_micros(1_700_000_000_000_000 + number as i64),
            leaves: merkle.leaves(),
            root: merkle.root(),
            previous: self.last.map_or(GENESIS, |last| last.statement.digest()),
            audit_head: NO_AUDIT_HEAD,
        };
        let checkpoint = statement.sign(&self.key);
        let row = format!(
            "INSERT INTO checkpoints VALUES ({number}, NOW(), {}, {}, {}, {}, {}, '[]'); \
             INSERT INTO checkpoint_publications VALUES ({number}, NOW())",
            statement.leaves,
            literal(&statement.root.0),
            literal(&statement.previous.0),
            literal(&statement.audit_head.0),
            literal(&checkpoint.signature.0),
        );
        ledger.execute(&row).await;
        self.publish(&checkpoint);
        self.last = Some(checkpoint);
    }

    fn publish(&self, checkpoint: &Checkpoint) {
        let path = self.folder.join(Checkpoint::file_name(checkpoint.statement.number));
        fs::write(path, serde_json::to_string(checkpoint).unwrap()).unwrap();
    }

    async fn verify(&self) -> Vec<Finding> {
        let pool = self.env.service_mysql("verifier").pool("verify", 2).unwrap();
        let mut report = verifier::verify(&pool, None).await.unwrap();
        let key = self.key.verifying_key().to_bytes();
        verifier::verify_checkpoints(&pool, self.folder, &key, &mut report).await.unwrap();
        pool.close().await;
        report.findings
    }
}

fn literal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn names(findings: &[Finding], table: &str, key: &str) -> bool {
    findings.iter().any(|it| it.invariant == Invariant::I11 && it.table == table && it.key.contains(key))
}

#[tokio::test]
async fn a_rewritten_ledger_is_found_by_its_checkpoints() {
    let env = Env::new("verifier-rewritten").await;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::write(env.pool()).await;
    let key = SigningKey::from_bytes(&[3; 32]);
    let mut taker = Taker { env: &env, folder: folder.path(), key, heads: HashMap::new(), last: None };
    taker.take(&ledger).await;
    ledger.pay(&Ledger::paid("later", ledger.standing, 100)).await;
    taker.take(&ledger).await;
    taker.take(&ledger).await;
    let whole = taker.verify().await;
    assert!(whole.is_empty(), "{whole:#?}");
    ledger.keep().await;
    let keep = ["checkpoints", "checkpoint_leaves"]
        .map(|table| format!("CREATE TABLE whole_{table} AS SELECT * FROM {table}; "));
    ledger.execute(&keep.concat()).await;

    // What is done; where it is seen when a checkpoint is there.
    let customer = ledger.customer;
    let at = |version: u64| format!("{customer} version {version}");
    let last = "accounts.version - 1";
    let cases: Vec<(&str, String, &str, String)> = vec![
        (
            "an account is removed with its entries and its leaves",
            format!(
                "DELETE FROM entries WHERE account_id = {0}; DELETE FROM accounts WHERE id = {0}; \
                 DELETE FROM checkpoint_leaves WHERE account_id = {0}",
                hex(customer.uuid())
            ),
            "checkpoint_leaves",
            "number 1".to_owned(),
        ),
        (
            "an account is removed with its entries",
            format!("DELETE FROM entries WHERE account_id = {0}; DELETE FROM accounts WHERE id = {0}", hex(customer.uuid())),
            "entries",
            at(5),
        ),
        (
            "the tail of an account is cut off, and the account agrees",
            format!(
                "UPDATE accounts JOIN entries e ON e.account_id = id AND e.version = {last} \
                 SET accounts.balance_minor = e.balance_minor, accounts.head = e.hash, \
                 accounts.entered_at = e.entered_at WHERE id = {0}; \
                 UPDATE accounts SET version = version - 1 WHERE id = {0}; \
                 DELETE FROM entries WHERE account_id = {0} AND version = 6",
                hex(customer.uuid())
            ),
            "entries",
            at(6),
        ),
        ("a leaf is altered", "UPDATE checkpoint_leaves SET hash = REPEAT('x', 32) WHERE number = 2".to_owned(), "checkpoint_leaves", "number 2".to_owned()),
        ("a leaf is removed", "DELETE FROM checkpoint_leaves WHERE number = 2 LIMIT 1".to_owned(), "checkpoint_leaves", "number 2".to_owned()),
        (
            "leaves of two checkpoints are swapped",
            "UPDATE checkpoint_leaves SET number = number + 10; UPDATE checkpoint_leaves SET number = 1 WHERE number = 12; UPDATE checkpoint_leaves SET number = 2 WHERE number = 11".to_owned(),
            "checkpoint_leaves",
            "number 1".to_owned(),
        ),
        ("a checkpoint is removed from the database", "DELETE FROM checkpoints WHERE number = 2".to_owned(), "checkpoints", "number 2".to_owned()),
        ("a checkpoint is altered in the database", "UPDATE checkpoints SET root = REPEAT('x', 32) WHERE number = 3".to_owned(), "checkpoints", "number 3".to_owned()),
    ];
    for (what, sql, table, key) in cases {
        ledger.execute(&sql).await;
        let findings = taker.verify().await;
        assert!(names(&findings, table, &key), "{what}: {findings:#?}");
        ledger.restore().await;
        let restore = ["checkpoints", "checkpoint_leaves"]
            .map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM whole_{table}; "));
        ledger.execute(&restore.concat()).await;
    }
    assert!(taker.verify().await.is_empty(), "all is brought back");
    env.close().await;
}

#[tokio::test]
async fn a_chain_with_all_hashes_computed_anew_is_found_only_by_a_checkpoint() {
    let env = Env::new("verifier-rechained").await;
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[3; 32]);
    // The honest ledger and its checkpoint.
    let mut ledger = Ledger::write(env.pool()).await;
    ledger.pay(&Ledger::paid("stolen", ledger.standing, 900)).await;
    let mut taker = Taker { env: &env, folder: folder.path(), key, heads: HashMap::new(), last: None };
    taker.take(&ledger).await;
    assert!(taker.verify().await.is_empty());
    // The same ledger, with another amount in that payment, its entries, its event, the balances and all hashes.
    let mut ledger = Ledger::write(env.pool()).await;
    ledger.pay(&Ledger::paid("stolen", ledger.standing, 100)).await;
    let pool = env.service_mysql("verifier").pool("verify", 2).unwrap();
    let alone = verifier::verify(&pool, None).await.unwrap();
    assert!(alone.is_whole(), "nothing inside the database tells: {:#?}", alone.findings);
    let findings = taker.verify().await;
    let entry = format!("{} version 6", ledger.customer);
    assert!(names(&findings[..1], "entries", &entry) || names(&findings, "entries", &entry), "{findings:#?}");
    // The leaves are rewritten as well: then the signed root tells.
    ledger
        .execute("UPDATE checkpoint_leaves l JOIN accounts a ON a.id = l.account_id SET l.hash = a.head, l.version = a.version")
        .await;
    let findings = taker.verify().await;
    assert!(names(&findings[..1], "checkpoint_leaves", "number 1"), "{findings:#?}");
    pool.close().await;
    env.close().await;
}

#[tokio::test]
async fn an_altered_folder_is_found() {
    let env = Env::new("verifier-folder").await;
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::write(env.pool()).await;
    let key = SigningKey::from_bytes(&[3; 32]);
    let mut taker = Taker { env: &env, folder: folder.path(), key, heads: HashMap::new(), last: None };
    let mut taken = Vec::new();
    for number in 0..3 {
        ledger.pay(&Ledger::paid(&format!("p{number}"), ledger.standing, 100)).await;
        taker.take(&ledger).await;
        taken.push(taker.last.unwrap());
    }
    assert!(taker.verify().await.is_empty());
    let path = |number: u64| folder.path().join(Checkpoint::file_name(number));
    let forged =
        |checkpoint: &Checkpoint, seed| checkpoint.statement.sign(&SigningKey::from_bytes(&[seed; 32]));

    fs::remove_file(path(2)).unwrap();
    assert!(names(&taker.verify().await[..1], "checkpoints", "number 2"), "one is dropped");
    taker.publish(&taken[1]);

    fs::rename(path(3), folder.path().join("away")).unwrap();
    let findings = taker.verify().await;
    assert!(names(&findings[..1], "checkpoints", "number 3"), "{findings:#?}");
    assert!(findings[0].expected.contains("older than the database"), "{findings:#?}");
    taker.publish(&taken[2]);

    for (number, other) in [(1, 2), (2, 1)] {
        fs::write(path(number), serde_json::to_string(&taken[other - 1]).unwrap()).unwrap();
    }
    assert!(names(&taker.verify().await[..1], "checkpoints", "number 1"), "two are swapped");
    taker.publish(&taken[0]);
    taker.publish(&taken[1]);

    taker.publish(&forged(&taken[1], 4));
    assert!(names(&taker.verify().await[..1], "checkpoints", "number 2"), "a forged signature");
    // Signed with the right key, on another predecessor.
    let other = Statement { previous: Hash([9; 32]), ..taken[2].statement };
    taker.publish(&taken[1]);
    taker.publish(&other.sign(&taker.key));
    assert!(names(&taker.verify().await[..1], "checkpoints", "number 3"), "another chain");
    fs::write(path(3), "{}").unwrap();
    assert!(names(&taker.verify().await[..1], "checkpoints", "number 3"), "no checkpoint");
    taker.publish(&taken[2]);

    ledger.execute("DELETE FROM checkpoints WHERE number = 3; DELETE FROM checkpoint_leaves WHERE number = 3; DELETE FROM checkpoint_publications WHERE number = 3").await;
    let findings = taker.verify().await;
    assert!(findings[0].found.contains("older than the folder"), "{findings:#?}");
    env.close().await;
}

#[tokio::test]
async fn what_checkpoints_do_not_vouch_for_is_said() {
    let env = Env::new("verifier-vouched").await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::write(env.pool()).await;
    let key = SigningKey::from_bytes(&[3; 32]);
    let mut report = verifier::Report::default();
    let public = key.verifying_key().to_bytes();
    let none = verifier::verify_checkpoints(env.pool(), folder.path(), &public, &mut report).await.unwrap();
    assert!(none.statement().contains("rewritten all of it"), "{}", none.statement());
    let mut taker = Taker { env: &env, folder: folder.path(), key, heads: HashMap::new(), last: None };
    taker.take(&ledger).await;
    let one = verifier::verify_checkpoints(env.pool(), folder.path(), &public, &mut report).await.unwrap();
    assert_eq!((one.checkpoints, one.leaves), (1, 3));
    assert!(
        one.statement().contains("after the last checkpoint, 2023-11-14T22:13:20.000001Z"),
        "{}",
        one.statement()
    );
    assert!(report.is_whole());
    let error =
        verifier::verify_checkpoints(env.pool(), &folder.path().join("none"), &public, &mut report).await;
    assert!(error.is_err());
    env.close().await;
}
