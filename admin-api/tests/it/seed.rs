//! Seeding end to end on real MySQL and Kafka, with the processor as a process of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use admin_api::seed;
use clap::Parser;
use testkit::{Env, fixtures, free_address};

#[derive(Parser)]
struct SeedCli {
    #[command(flatten)]
    config: seed::Config,
}

/// A process that ends with its test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed otherwise.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start_processor(env: &Env) -> Running {
    let programs = Path::new(env!("CARGO_BIN_EXE_admin-api")).parent().unwrap();
    let program = programs.join("processor");
    assert!(
        program.exists(),
        "{} is not built: run `make test` or `cargo build -p processor`",
        program.display()
    );
    let child = Command::new(program)
        .env("WIRED_MYSQL_URL", env.service_url("processor"))
        .env("WIRED_KAFKA_BROKERS", &env.kafka.kafka_brokers)
        .env("WIRED_TOPIC_PREFIX", &env.kafka.topic_prefix)
        .env("WIRED_PRIVATE_LISTEN", free_address().to_string())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Running(child)
}

struct Seeder<'a> {
    env: &'a Env,
    keys: fixtures::Kek,
    secrets: fixtures::Kek,
    folder: tempfile::TempDir,
}

impl<'a> Seeder<'a> {
    fn new(env: &'a Env) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { env, keys: fixtures::kek(), secrets: fixtures::kek(), folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("partner.env")
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn config(&self, more: &[&str]) -> seed::Config {
        let (file, url) = (self.file(), self.env.service_url("admin-api"));
        let (keys, secrets) = (self.keys.path(), self.secrets.path());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments = vec!["seed".to_owned()];
        for (name, value) in [
            ("--mysql-url", url),
            ("--kafka-brokers", self.env.kafka.kafka_brokers.clone()),
            ("--topic-prefix", self.env.kafka.topic_prefix.clone()),
            ("--partner-keys-kek-file", text(keys)),
            ("--webhook-secrets-kek-file", text(secrets)),
            ("--env-file", text(&file)),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(more.iter().map(|&it| it.to_owned()));
        SeedCli::parse_from(arguments).config
    }

    async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(&format!("SELECT COUNT(*) FROM {table}")).fetch_one(self.env.pool()).await.unwrap()
    }
}

const ADDRESSES: [&str; 4] = ["--base-url", "http://127.0.0.1:8080", "--webhook-listen", "127.0.0.1:9090"];

#[tokio::test]
async fn seeding_twice_adds_nothing_and_a_lost_file_is_made_anew() {
    let env = Env::new("admin-api-seed").await;
    let seeder = Seeder::new(&env);
    let processor = start_processor(&env);
    let first = seed::run(&seeder.config(&ADDRESSES)).await.unwrap();
    assert_eq!(first.len(), 1);
    let file = seeder.read();
    for name in ["URL", "KEY_ID", "KEY_SECRET", "MANDATE", "WEBHOOK_SECRET", "WEBHOOK_LISTEN", "PARTNER"]
        .map(|it| format!("WIRED_{it}='"))
    {
        assert!(file.contains(&name), "{name} is missing");
    }
    for secret in file.lines().filter(|line| line.contains("SECRET=")) {
        let value = secret.split('\'').nth(1).unwrap();
        assert!(!format!("{:?} {}", first[0], first[0]).contains(value), "a secret is printed");
    }
    let report = verifier::verify(env.pool(), None).await.unwrap();
    assert!(report.is_whole(), "{:#?}", report.findings);
    let (mandates, payments) = (seeder.count("mandates").await, seeder.count("payments").await);
    assert_eq!((mandates, payments), (3, 3));

    // What the file says need not be said again.
    seed::run(&seeder.config(&[])).await.unwrap();
    assert_eq!(seeder.read(), file);
    assert_eq!(seeder.count("payments").await, payments);
    assert_eq!(seeder.count("api_keys").await, 1);
    assert_eq!(seeder.count("endpoint_secrets").await, 1);

    // Lost files: at most two keys stay live, and one secret is current.
    for _ in 0..3 {
        std::fs::remove_file(seeder.file()).unwrap();
        seed::run(&seeder.config(&ADDRESSES)).await.unwrap();
        assert_ne!(seeder.read(), file);
    }
    assert_eq!(seeder.count("api_keys WHERE revoked_at IS NULL").await, 2);
    assert_eq!(seeder.count("endpoint_secrets WHERE expires_at IS NULL").await, 1);
    assert_eq!(seeder.count("payments").await, payments);

    // More of everything is added to what is there.
    let more = ["--customers", "6", "--partners", "2", "--requests-per-second", "7"];
    let seeded = seed::run(&seeder.config(&[&ADDRESSES[..], &more].concat())).await.unwrap();
    assert_eq!(seeded.len(), 2);
    assert_eq!(seeder.count("mandates").await, 12);
    assert_eq!(seeder.count("partners WHERE requests_per_second = 7").await, 2);
    let listed = std::fs::read_to_string(seeder.folder.path().join("partner.env.mandates")).unwrap();
    assert_eq!(listed.lines().count(), 6);
    assert!(seeder.folder.path().join("partner.env.2").exists());
    let report = verifier::verify(env.pool(), None).await.unwrap();
    assert!(report.is_whole(), "{:#?}", report.findings);
    drop(processor);
    env.close().await;
}

#[tokio::test]
async fn a_refused_command_is_told_with_its_reason() {
    let env = Env::new("admin-api-refused").await;
    let seeder = Seeder::new(&env);
    let processor = start_processor(&env);
    seed::run(&seeder.config(&ADDRESSES)).await.unwrap();
    // The bank's own account is closed by hand: no deposit can be posted.
    sqlx::query("UPDATE accounts SET status = 3 WHERE owner_kind = 3").execute(env.pool()).await.unwrap();
    let error = seed::run(&seeder.config(&["--deposit", "5.00"])).await.unwrap_err().to_string();
    assert!(error.contains("account_closed"), "{error}");
    // Where there are admins, nobody makes keys and money alone.
    sqlx::query(
        "INSERT INTO users (id, role, status, email_index, created_at) VALUES (0x01, 4, 2, 0x01, UTC_TIMESTAMP(6))",
    )
    .execute(env.pool())
    .await
    .unwrap();
    let error = seed::run(&seeder.config(&["--name", "another"])).await.unwrap_err().to_string();
    assert!(error.contains("has admins"), "{error}");
    drop(processor);
    env.close().await;
}

#[tokio::test]
async fn options_that_cannot_be_are_told() {
    let env = Env::new("admin-api-options").await;
    let seeder = Seeder::new(&env);
    for (options, says) in [
        (&["--base-url", "http://x"][..], "--webhook-listen"),
        (&["--deposit", "1.5"], "2 digits"),
        (&["--name", ""], "--name"),
        (&["--customers", "200000", "--partners", "1000"], "mandates"),
    ] {
        let error = seed::run(&seeder.config(options)).await.unwrap_err().to_string();
        assert!(error.contains(says), "{options:?}: {error}");
    }
    assert!(!seeder.file().exists());
    env.close().await;
}
