//! `admin-api command` on real MySQL and Kafka, with the processor as a process of its own.

use admin_api::commands::Outcome;
use admin_api::operate::{self, Error};
use clap::Parser;
use domain::account::Owner;
use domain::ids::{PaymentId, bank_account_id};
use domain::money::Currency::EUR;
use domain::payment::Reason;
use testkit::{Env, fixtures};

use crate::seed::start_processor;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: operate::Config,
}

fn config(env: &Env, more: &[&str], command: &str) -> operate::Config {
    let url = env.service_url("admin-api");
    let base = [
        "command",
        "--mysql-url",
        &url,
        "--kafka-brokers",
        &env.kafka.kafka_brokers,
        "--topic-prefix",
        &env.kafka.topic_prefix,
    ];
    Cli::parse_from(base.iter().chain(more).chain([&command])).config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_carried_out_once_and_its_outcome_told() {
    let env = Env::new("command").await;
    let processor = start_processor(&env);
    let account = fixtures::account_id();
    for (id, owner) in [(bank_account_id(EUR), Owner::Bank), (account, Owner::Customer(fixtures::user_id()))]
    {
        let open = serde_json::to_string(&fixtures::open_account(id, owner, EUR)).unwrap();
        let done = operate::run(&config(&env, &["--reason", "first day"], &open)).await.unwrap();
        assert_eq!(done.outcome, Outcome::Applied);
    }
    let deposit = serde_json::to_string(&fixtures::deposit(account, 500, EUR)).unwrap();
    let withdrawal = deposit.replace("deposit", "withdrawal");
    let first = operate::run(&config(&env, &["--reason", "cash"], &deposit)).await.unwrap();
    let id = first.id.to_string();
    let again = operate::run(&config(&env, &["--reason", "cash", "--id", &id], &deposit)).await.unwrap();
    assert_eq!((first.outcome, again.outcome), (Outcome::Applied, Outcome::Applied));
    let all = operate::run(&config(&env, &["--reason", "cash"], &withdrawal)).await.unwrap();
    assert_eq!(all.outcome, Outcome::Applied, "the deposit was made once");
    let more = operate::run(&config(&env, &["--reason", "cash"], &withdrawal)).await.unwrap();
    assert_eq!(more.outcome, Outcome::Rejected(Some(Reason::InsufficientFunds)));
    assert_eq!(more.to_string(), format!("{}: rejected: insufficient_funds", more.id));
    drop(processor);
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_there_are_two_admins_the_shell_is_one_person() {
    let env = Env::new("command-two").await;
    let processor = start_processor(&env);
    let account = fixtures::account_id();
    let run = async |command: &domain::command::BankCommand, more: &[&str]| {
        let command = serde_json::to_string(command).unwrap();
        operate::run(&config(&env, &[&["--reason", "first day"], more].concat(), &command)).await
    };
    let customer = Owner::Customer(fixtures::user_id());
    for (id, owner) in [(bank_account_id(EUR), Owner::Bank), (account, customer)] {
        run(&fixtures::open_account(id, owner, EUR), &[]).await.unwrap();
    }
    for (number, status) in [(1_u8, 2_u8), (2, 1)] {
        let insert = "INSERT INTO users (id, role, status, created_at) VALUES (?, 4, ?, UTC_TIMESTAMP(6))";
        sqlx::query(insert).bind(vec![number; 16]).bind(status).execute(env.pool()).await.unwrap();
    }
    // One active admin: nobody could agree.
    let large = fixtures::deposit(account, 100_001, EUR);
    assert_eq!(run(&large, &[]).await.unwrap().outcome, Outcome::Applied);
    sqlx::query("UPDATE users SET status = 2").execute(env.pool()).await.unwrap();
    let refused = run(&large, &[]).await.unwrap_err();
    assert!(matches!(refused, Error::SecondPerson), "{refused}");
    // What was moved alone today counts, by whatever shell: 1,000.01, then 3 × 1,000.
    let small = fixtures::deposit(account, 100_000, EUR);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(run(&small, &[]).await.unwrap().id.to_string());
    }
    assert!(matches!(run(&small, &[]).await.unwrap_err(), Error::SecondPerson));
    // A repetition is no further movement.
    assert_eq!(run(&small, &["--id", &ids[0]]).await.unwrap().outcome, Outcome::Applied);
    let limits = domain::command::SetLimits {
        account,
        overdraft_minor: 1,
        payment_max_minor: None,
        daily_max_minor: None,
    };
    let refused = run(&domain::command::BankCommand::SetLimits(limits), &[]).await.unwrap_err();
    assert!(matches!(refused, Error::SecondPerson));
    let freeze = domain::command::BankCommand::FreezeAccount { account };
    assert_eq!(run(&freeze, &[]).await.unwrap().outcome, Outcome::Applied);
    drop(processor);
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_refused_before_it_is_sent() {
    let env = Env::new("no-command").await;
    let account = fixtures::account_id();
    let negative = format!(r#"{{"set_limits":{{"account":"{account}","overdraft_minor":-1}}}}"#);
    let close = format!(r#"{{"close_account":{{"account":"{account}"}}}}"#);
    let id = PaymentId::from_uuid(uuid::Uuid::now_v7());
    let of_itself = format!(r#"{{"reversal":{{"payment":"{id}"}}}}"#);
    let id = id.uuid().to_string();
    for (reason, command, words) in [
        ("why", "{}", "not one of the bank"),
        ("why", r#"{"payment":{}}"#, "unknown variant"),
        ("why", negative.as_str(), "a limit is negative"),
        ("why", of_itself.as_str(), "the root does not fit"),
        ("", close.as_str(), "--reason has 1 to 500"),
    ] {
        let options = ["--reason", reason, "--id", &id];
        let refused = operate::run(&config(&env, &options, command)).await.unwrap_err();
        assert!(matches!(refused, Error::Option(_)), "{command}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    env.close().await;
}
