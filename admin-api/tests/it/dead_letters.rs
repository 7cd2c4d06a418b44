//! Commands that could not be applied, as staff see and end them.

use domain::ids::AccountId;
use domain::topic::BANK_COMMANDS;
use serde_json::json;
use testkit::wait_until;

use crate::bank::Desk;
use crate::harness::LONG;

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_applied_is_read_given_up_and_applied_again() {
    let desk = Desk::new("admin-dead-letters").await;
    let (otto, bank) = (&desk.otto.client, &desk.bank);
    let why = || json!({"reason": "no command of ours"});
    let account: AccountId = desk.account.parse().unwrap();
    let canary = r#"{"schema":1,"name":"Anna Bell","reason":"for anna@example.com"}"#;
    bank.env.produce(BANK_COMMANDS, b"no id", b"anna@example.com").await;
    bank.env.produce(BANK_COMMANDS, account.uuid().as_bytes(), canary.as_bytes()).await;
    wait_until("both to be set aside", LONG, async || bank.count("dead_letters").await == 2).await;

    // A command behind one is under review, and so it is for whoever repeats the request.
    for _ in 0..2 {
        let waits = desk.deposit(&desk.otto, "behind", "5.00").await.expect(202).json();
        assert_eq!(waits["status"], "under_review");
    }
    let listed = otto.get("/v1/dead-letters?status=open").await.expect(200);
    for planted in ["Anna", "anna", "example.com"] {
        assert!(!listed.body.contains(planted), "{}", listed.body);
    }
    let listed = listed.json()["data"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    let of = |reason: &str, keyed: bool| {
        let fits = |it: &&serde_json::Value| it["reason"] == reason && it["root"].is_string() == keyed;
        listed.iter().find(fits).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (keyless, garbage) = (of("undecodable", false), of("undecodable", true));
    let behind = of("behind_dead_letter", true);
    let read = otto.get(&format!("/v1/dead-letters/{behind}")).await.expect(200).json();
    assert_eq!(read["record"]["command"]["deposit"]["amount_minor"], 500);
    assert_eq!(read["record"]["reason"], "•••");
    let first = otto.get("/v1/dead-letters?limit=1").await.expect(200).json();
    let rest = otto.get(&format!("/v1/dead-letters?cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!(rest.expect(200).json()["data"].as_array().unwrap().len(), 2);

    let end = |id: &str, what: &str| format!("/v1/dead-letters/{id}/{what}");
    otto.ask(&end(&keyless, "redrive"), "k1", why()).await.expect_problem(409, "conflict");
    otto.ask(&end("bank-0-999", "reject"), "k2", why()).await.expect_problem(404, "not_found");
    otto.ask(&end("bank", "reject"), "k2", why()).await.expect_problem(404, "not_found");
    let failed =
        otto.ask(&end(&garbage, "redrive"), "k3", why()).await.expect_problem(422, "command_rejected");
    assert_eq!(failed.json()["reason"], "processing_failed");
    otto.ask(&end(&keyless, "reject"), "k4", why()).await.expect(200);
    otto.ask(&end(&garbage, "reject"), "k5", why()).await.expect(200);
    otto.ask(&end(&garbage, "reject"), "k5", why()).await.expect(200);
    let twice = otto.ask(&end(&garbage, "reject"), "k6", why()).await.expect_problem(422, "command_rejected");
    assert_eq!(twice.json()["reason"], "dead_letter_unknown");
    assert_eq!(desk.balance().await, 0);
    let redriven = otto.ask(&end(&behind, "redrive"), "k7", why()).await.expect(200).json();
    let ended = otto.get(&format!("/v1/dead-letters/{behind}")).await.expect(200).json();
    assert_eq!((&ended["status"], &ended["ended_by"]), (&json!("redriven"), &redriven["id"]));
    desk.deposit(&desk.otto, "behind", "5.00").await.expect(201);
    assert_eq!(desk.balance().await, 500);
    assert!(
        otto.get("/v1/dead-letters?status=open").await.expect(200).json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    desk.close().await;
}
