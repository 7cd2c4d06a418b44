//! The benchmark's sections about webhooks, tiny: everything that they count does arrive.

use loadtest::bench::{self, Config, Section};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sections_about_webhooks_measure_what_they_say() {
    let _turn = crate::turn().await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("bench.json");
    let config = Config {
        only: vec![Section::Webhooks, Section::Backlog],
        store_payments: None,
        statement_entries: None,
        backlog: Some(1_000),
        quick: true,
        out: out.clone(),
    };
    bench::run(&config).await.unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    let figures = figures["results"].as_array().unwrap();
    for name in [
        "webhooks delivered to 1 endpoint",
        "webhooks delivered to 10 endpoints",
        "webhooks delivered to 1000 endpoints",
        "retries due drained from a backlog of 1000",
    ] {
        let figure = figures.iter().find(|figure| figure["name"] == name);
        assert!(figure.is_some_and(|it| it["value"].as_f64().unwrap() > 0.0), "{name}: {figures:?}");
    }
}
