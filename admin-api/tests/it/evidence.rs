//! Checkpoints and the reconciler: one chain whoever takes it, published outside the database, and a broken ledger
//! that is noticed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use admin_api::evidence::EvidenceConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser;
use domain::{
    checkpoint::{Checkpoint, GENESIS, Leaf, Merkle},
    ids::AccountId,
    topic,
};
use ed25519_dalek::SigningKey;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use sqlx::Row as _;
use testkit::{Env, fixtures};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: EvidenceConfig,
}

fn config(arguments: &[(&str, &str)]) -> EvidenceConfig {
    let arguments = arguments.iter().flat_map(|(name, value)| [*name, *value]);
    Cli::parse_from(std::iter::once("admin-api").chain(arguments)).config
}

struct Running {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(env: &Env, config: &EvidenceConfig) -> Self {
        let stop = CancellationToken::new();
        let mysql = env.service_mysql("admin-api");
        Self { tasks: config.start(&mysql, &env.kafka, &stop).unwrap(), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("it stops").unwrap();
        }
    }
}

async fn execute(env: &Env, sql: &str) {
    sqlx::raw_sql(sql).execute(env.pool()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn number(env: &Env, sql: &str) -> i64 {
    let row = sqlx::raw_sql(sql).fetch_one(env.pool()).await.unwrap();
    row.try_get_unchecked::<Option<i64>, _>(0).unwrap().unwrap_or_default()
}

async fn until(what: &str, env: &Env, sql: &str, holds: impl Fn(i64) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = number(env, sql).await;
        if holds(found) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {found} after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// An account with a head, and a payment at a position that moved its money.
async fn moved(env: &Env, offset: u64, account: Uuid, version: u64) {
    let (account, head) = (hex(account.as_bytes()), hex(&[version as u8; 32]));
    let id = hex(Uuid::new_v4().as_bytes());
    execute(
        env,
        &format!(
            "REPLACE INTO accounts VALUES ({account}, 1, {account}, 'EUR', 1, 0, 0, 0, NULL, NULL, 0, 0, {version}, \
             {head}, NOW(), 1); \
             INSERT INTO payments VALUES (1, 0, {offset}, {id}, {id}, 8, 2, NULL, 1, NULL, NULL, 'EUR', 1, 1, 0, \
             {account}, {version}, {account}, {version}, NULL, REPEAT('x', 33), 1, NULL, NULL, NULL, {account}, NULL, \
             {account}, NULL, NULL, NOW(), NOW(), NULL, NULL, NULL); \
             UPDATE positions SET next_offset = {offset} + 1 WHERE source = 1 AND kafka_partition = 0"
        ),
    )
    .await;
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Reads the folder as an auditor does: each signed, each following the one before.
fn read_chain(folder: &Path, key: &SigningKey) -> Vec<Checkpoint> {
    let mut previous = GENESIS;
    let mut chain = Vec::new();
    for (index, path) in files(folder).iter().enumerate() {
        let checkpoint: Checkpoint = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(checkpoint.statement.number, index as u64 + 1, "no number is left out");
        assert!(checkpoint.is_signed_by(&key.verifying_key()));
        assert_eq!(checkpoint.statement.previous, previous);
        previous = checkpoint.statement.digest();
        chain.push(checkpoint);
    }
    chain
}

async fn leaves(env: &Env, number: u64) -> Vec<Leaf> {
    let sql = format!(
        "SELECT account_id, version, hash FROM checkpoint_leaves WHERE number = {number} ORDER BY account_id"
    );
    let rows = sqlx::raw_sql(&sql).fetch_all(env.pool()).await.unwrap();
    let leaf = |row: &sqlx::mysql::MySqlRow| Leaf {
        account: AccountId::from_uuid(Uuid::from_slice(row.get(0)).unwrap()),
        version: row.get(1),
        hash: row.get::<Vec<u8>, _>(2).try_into().unwrap(),
    };
    rows.iter().map(leaf).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_make_one_chain_that_is_published_whatever_happens() {
    let env = Env::new("evidence").await;
    let (secret, folder) = ([5; 32], tempfile::tempdir().unwrap());
    let key_file = fixtures::secret_file(&secret);
    let key = SigningKey::from_bytes(&secret);
    let folder = folder.path().join("checkpoints");
    let config = config(&[
        ("--checkpoint-key-file", key_file.path().to_str().unwrap()),
        ("--checkpoint-dir", folder.to_str().unwrap()),
        ("--checkpoint-interval-seconds", "0.2"),
        ("--reconciliation-interval-seconds", "3600"),
    ]);
    let [one, other] = [1, 2].map(Uuid::from_u128);
    moved(&env, 0, one, 1).await;
    moved(&env, 1, other, 1).await;
    let published = "SELECT MAX(number) FROM checkpoint_publications";
    let running = [Running::start(&env, &config), Running::start(&env, &config)];
    until("checkpoints", &env, published, |number| number >= 3).await;
    // A further change is in the next checkpoint, and only there.
    moved(&env, 2, other, 2).await;
    let changed = format!(
        "SELECT number FROM checkpoint_leaves WHERE account_id = {} AND version = 2 UNION SELECT 0 ORDER BY 1 DESC LIMIT 1",
        hex(other.as_bytes())
    );
    until("the change", &env, &changed, |number| number > 0).await;
    let with_change = number(&env, &changed).await as u64;
    until("more checkpoints", &env, published, |number| number as u64 > with_change + 1).await;
    for running in running {
        running.stop().await;
    }
    until(
        "all are published",
        &env,
        "SELECT COUNT(*) - (SELECT COUNT(*) FROM checkpoint_publications) FROM checkpoints",
        |left| left <= 1,
    )
    .await;

    let chain = read_chain(&folder, &key);
    let accounts =
        |leaves: &[Leaf]| leaves.iter().map(|it| (it.account.uuid(), it.version)).collect::<BTreeSet<_>>();
    for checkpoint in &chain {
        let number = checkpoint.statement.number;
        let leaves = leaves(&env, number).await;
        let mut merkle = Merkle::default();
        for leaf in &leaves {
            merkle.push(leaf);
        }
        assert_eq!(merkle.root(), checkpoint.statement.root, "number {number}");
        let expected = match number {
            1 => BTreeSet::from([(one, 1), (other, 1)]),
            _ if number == with_change => BTreeSet::from([(other, 2)]),
            _ => BTreeSet::new(),
        };
        assert_eq!(accounts(&leaves), expected, "number {number}");
    }
    let public = fs::read_to_string(format!("{}.pub", key_file.path().display())).unwrap();
    assert_eq!(STANDARD.decode(public.trim()).unwrap(), key.verifying_key().to_bytes());
    fs::remove_file(format!("{}.pub", key_file.path().display())).unwrap();

    // Killed between the commit and the publication: the last one is in the database only.
    let last = chain.last().unwrap().statement.number;
    let file = folder.join(Checkpoint::file_name(last));
    let text = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    execute(&env, &format!("DELETE FROM checkpoint_publications WHERE number >= {}", last - 1)).await;
    let running = Running::start(&env, &config);
    until("it is published again", &env, published, |number| number as u64 > last).await;
    running.stop().await;
    assert_eq!(fs::read(&file).unwrap(), text, "the very same");
    let chain = read_chain(&folder, &key);

    // The topic tells the same, perhaps more than once.
    let told = tokio::task::spawn_blocking({
        let (client, topic) = (env.kafka.client(), env.topic(topic::CHECKPOINTS));
        move || read_topic(client, &topic)
    });
    let told = told.await.unwrap();
    let numbers: BTreeSet<u64> = told.iter().map(|it| it.statement.number).collect();
    assert!(chain.iter().all(|it| numbers.contains(&it.statement.number)), "{numbers:?}");
    assert!(told.iter().all(|it| chain.get(it.statement.number as usize - 1).is_none_or(|same| same == it)));
    env.close().await;
}

fn read_topic(mut client: ClientConfig, topic: &str) -> Vec<Checkpoint> {
    let consumer: BaseConsumer = client.set("group.id", "evidence-test").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
    let mut told = Vec::new();
    while (told.len() as i64) < end {
        let record = consumer.poll(PATIENCE).expect("a record").unwrap();
        told.push(serde_json::from_slice(record.payload().unwrap()).unwrap());
    }
    told
}

#[tokio::test]
async fn an_altered_row_of_any_table_is_told_by_the_metric_and_the_table() {
    let env = Env::new("reconciler").await;
    // On this thread only: other tests of this process run services of their own.
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let config = config(&[("--reconciliation-interval-seconds", "0.2")]);
    let running = [Running::start(&env, &config), Running::start(&env, &config)];
    let status = "SELECT CAST(COALESCE((SELECT status FROM reconciliations WHERE kind = 1 ORDER BY finished_at DESC LIMIT 1), 0) AS SIGNED)";
    let full = "SELECT CAST(COALESCE((SELECT status FROM reconciliations WHERE kind = 2 ORDER BY finished_at DESC LIMIT 1), 0) AS SIGNED)";
    until("a whole ledger", &env, status, |status| status == 1).await;
    let x = "REPEAT('x', 16)";
    let other = "REPEAT('y', 16)";
    // Each is bad by itself: a row that a round could take for whole would be missed when it is taken away again.
    let cases = [
        (
            "accounts",
            "I2",
            format!(
                "INSERT INTO accounts VALUES ({x}, 1, {x}, 'EUR', 1, 5, 0, 0, NULL, NULL, 0, 0, 0, REPEAT('\\0', 32), NOW(), 1)"
            ),
        ),
        (
            "entries",
            "I2",
            format!("INSERT INTO entries VALUES ({x}, 1, {x}, 1, 5, 5, NOW(), REPEAT('x', 32))"),
        ),
        ("settlement_accounts", "I6", format!("INSERT INTO settlement_accounts VALUES ({x}, 'EUR', {x})")),
        (
            "payments",
            "I4",
            format!(
                "INSERT INTO payments VALUES (1, 0, 7, {x}, {x}, 8, 3, 1, 1, NULL, NULL, 'EUR', 1, 0, 0, NULL, NULL, NULL, NULL, NULL, REPEAT('x', 33), 1, NULL, NULL, NULL, {x}, NULL, {x}, NULL, NULL, NOW(), NOW(), NULL, NULL, NULL)"
            ),
        ),
        (
            "changes",
            "I4",
            format!(
                "INSERT INTO changes VALUES (2, 0, 7, {x}, 'freeze_account', 4, {x}, NULL, NULL, REPEAT('x', 33), '', {x}, '', {x}, NULL, NOW(), NOW())"
            ),
        ),
        ("holds", "I2", format!("INSERT INTO holds VALUES ({x}, {x}, 0, 5, NOW())")),
        ("follow_ups", "I4", format!("INSERT INTO follow_ups VALUES ({x}, {other})")),
        (
            "mandates",
            "I6",
            format!(
                "INSERT INTO mandates VALUES ({x}, {x}, NULL, 9, 3, 1, 'EUR', NULL, NULL, 0, 0, NULL, NULL, NOW())"
            ),
        ),
        ("events", "I9", format!("INSERT INTO events VALUES ({x}, 1, 1, 1, NOW(), '')")),
        ("partner_sequences", "I9", format!("INSERT INTO partner_sequences VALUES ({x}, 3, 1)")),
        (
            "dead_letters",
            "I6",
            format!(
                "INSERT INTO dead_letters VALUES (1, 0, 7, 2, NULL, NULL, 'undecodable', '', NULL, '', NOW(), NOW(), {x})"
            ),
        ),
    ];
    for (table, invariant, sql) in cases {
        execute(&env, &sql).await;
        until(table, &env, status, |status| status == 2).await;
        let found = format!("wired_admin_api_reconciliation_invariant_holds{{invariant=\"{invariant}\"}}");
        until_shown(&shown, &format!("{found} 0"), table).await;
        until("the slow rounds see it, too", &env, full, |status| status == 2).await;
        execute(&env, &format!("DELETE FROM {table}")).await;
        until("it is whole again", &env, status, |status| status == 1).await;
        until("the slow rounds as well", &env, full, |status| status == 1).await;
        until_shown(&shown, &format!("{found} 1"), table).await;
    }
    // Another process takes the lease: whoever had it stops, and takes it back when it has ended.
    execute(&env, "UPDATE leases SET holder = REPEAT('z', 16), expires_at = UTC_TIMESTAMP(6) + INTERVAL 8 SECOND WHERE name = 'reconciler'").await;
    let back = "SELECT CAST(holder <> REPEAT('z', 16) AS SIGNED) FROM leases WHERE name = 'reconciler'";
    until("the lease is taken again", &env, back, |back| back == 1).await;
    let [one, other] = running;
    one.stop().await;
    other.stop().await;
    env.close().await;
}

async fn until_shown(shown: &metrics_exporter_prometheus::PrometheusHandle, line: &str, what: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !shown.render().contains(line) {
        assert!(tokio::time::Instant::now() < deadline, "{what}: no {line}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
