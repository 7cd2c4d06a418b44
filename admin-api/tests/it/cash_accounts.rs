//! `admin-api open-cash-accounts` on real MySQL and Kafka, with the processor as a process of its own.

use admin_api::cash_accounts::{self, Config};
use clap::Parser;
use domain::money::Currency;
use testkit::Env;

use crate::seed::start_processor;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_has_one_in_each_currency_however_often_they_are_opened() {
    let env = Env::new("cash").await;
    let processor = start_processor(&env);
    let (url, kafka) = (env.service_url("admin-api"), &env.kafka);
    let config = Cli::parse_from([
        "open-cash-accounts",
        "--mysql-url",
        &url,
        "--kafka-brokers",
        &kafka.kafka_brokers,
        "--topic-prefix",
        &kafka.topic_prefix,
    ])
    .config;
    for _ in 0..2 {
        cash_accounts::run(&config).await.unwrap();
        let opened: Vec<i64> =
            sqlx::query_scalar("SELECT COUNT(*) FROM accounts WHERE owner_kind = 3 GROUP BY currency")
                .fetch_all(env.pool())
                .await
                .unwrap();
        assert_eq!(opened, vec![1; Currency::ALL.len()]);
    }
    drop(processor);
    env.close().await;
}
