//! The benchmark's sections with sizes, tiny: what they measure is a whole ledger whose commands were all accepted.

use loadtest::bench::{self, Config, Section};

use crate::turn;

#[tokio::test(flavor = "multi_thread")]
async fn sections_measure_what_they_say() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("bench.json");
    let config = Config {
        only: vec![Section::Movements, Section::Store, Section::Batches, Section::Statements],
        store_payments: Some(3_000),
        statement_entries: Some(3_000),
        backlog: None,
        quick: true,
        out: out.clone(),
    };
    bench::run(&config).await.unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    let figures = figures["results"].as_array().unwrap();
    for figure in figures {
        assert!(figure["value"].as_f64().unwrap() > 0.0, "{figure}");
    }
    for name in ["every kind / plain payments", "batches of 500 / single payments"] {
        assert!(figures.iter().any(|figure| figure["name"] == name), "{name} is missing: {figures:?}");
    }
}
