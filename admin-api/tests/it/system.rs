//! Reconciliation and the parts of the bank.

use serde_json::json;
use testkit::wait_until;

use crate::books::Books;
use crate::harness::{Bank, LONG};
use domain::topic::{PARTNER_COMMANDS, Source};

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_the_bank_say_how_they_are() {
    let bank = Bank::new("admin-system").await;
    let nobody = testkit::free_address();
    let services = format!(
        "admin-api=http://{}/health/ready,processor=http://{nobody}/health/ready",
        bank.service.private
    );
    let other = bank.another(&[("--services", services)]).await;
    let client = bank.staff("otto@example.com", 2).await.client;
    let client = crate::harness::Client { server: other.address, ..client };
    // Seven records are there, five are applied.
    for _ in 0..7 {
        bank.env.produce_all(PARTNER_COMMANDS, Some(3), &[(vec![1], vec![2])]).await;
    }
    Books { pool: bank.env.pool() }.applied(Source::Partner, 3, 5).await;
    let system = wait_until("kafka says where topics end", LONG, async || {
        let system = client.get("/v1/system").await.expect(200).json();
        (system["lag"] == 2).then_some(system)
    })
    .await;
    let partitions = system["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 12);
    let third = json!({"topic": "payments.commands.v1", "partition": 3, "applied": 5, "announced": 5, "end": 7, "lag": 2});
    assert!(partitions.contains(&third), "{system}");
    let services: Vec<_> = system["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["status"].as_str().unwrap()))
        .collect();
    let expected = [
        ("ingest", "unknown"),
        ("processor", "unreachable"),
        ("notifier", "unknown"),
        ("admin-api", "ready"),
    ];
    assert_eq!(services, expected);
    assert_eq!(system["services"][3]["components"]["mysql"], "up");
    assert_eq!(system["staleness"]["kafka_answers"], true);
    assert!(system["versions"]["schema"].as_str().unwrap().starts_with("00"));
    other.stop().await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdicts_on_the_ledger_are_shown_with_their_history() {
    let bank = Bank::new("admin-verdicts").await;
    let client = bank.staff("aud@example.com", 3).await.client;
    // The reconciler of this very service makes rounds of both kinds.
    let answer = wait_until("both rounds", LONG, async || {
        let answer = client.get("/v1/reconciliation").await.expect(200).json();
        (answer["new"].is_object() && answer["full"].is_object()).then_some(answer)
    })
    .await;
    assert_eq!((&answer["new"]["verdict"], &answer["full"]["verdict"]), (&json!("whole"), &json!("whole")));
    assert_eq!(answer["new"]["report"]["findings"], json!([]));
    assert_eq!(answer["checkpoint"], json!(null), "none are taken here");
    // Three of some hours ago, and a page of two at a time.
    for (number, hours) in [(1, 3), (2, 2), (3, 1)] {
        let sql = format!(
            "INSERT INTO reconciliations VALUES (0x000{number}0000000000000000000000000000, 2, \
             UTC_TIMESTAMP() - INTERVAL {hours} HOUR, UTC_TIMESTAMP() - INTERVAL {hours} HOUR, 2, \
             '{{\"findings\":[{{\"invariant\":\"I1\"}}]}}')"
        );
        bank.sql(&sql).await;
    }
    let (mut cursor, mut listed) = (String::new(), Vec::new());
    loop {
        let page = client.get(&format!("/v1/reconciliation?limit=2{cursor}")).await.expect(200).json();
        let rounds = page["data"].as_array().unwrap();
        assert!(rounds.len() <= 2);
        listed.extend(rounds.iter().map(|it| it["finished_at"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    // The service's own rounds of the two kinds may end in the same millisecond, in either order.
    assert!(listed.len() >= 5, "{listed:?}");
    let (own, of_hours_ago) = listed.split_at(listed.len() - 3);
    assert!(own.iter().all(|it| *it > of_hours_ago[0]), "{listed:?}");
    assert!(of_hours_ago.is_sorted_by(|newer, older| newer > older), "{listed:?}");
    // A checkpoint is everybody's as soon as it is published.
    for number in [1, 2] {
        bank.sql(&format!(
            "INSERT INTO checkpoints (number, taken_at, leaves, root, previous, audit_head, signature, positions) VALUES \
             ({number}, '2026-11-01 12:00:00', 2, REPEAT('r', 32), REPEAT('p', 32), REPEAT('a', 32), REPEAT('s', 64), '[]')"
        ))
        .await;
    }
    let nobody = bank.client();
    nobody.get("/v1/checkpoints/latest").await.expect_problem(404, "not_found");
    bank.sql("INSERT INTO checkpoint_publications VALUES (1, UTC_TIMESTAMP(6))").await;
    let latest = nobody.get("/v1/checkpoints/latest").await.expect(200).json();
    assert_eq!((&latest["number"], &latest["root"]), (&json!(1), &json!("72".repeat(32))));
    let checkpoint: domain::checkpoint::Checkpoint = serde_json::from_value(latest.clone()).unwrap();
    assert_eq!(checkpoint.statement.leaves, 2);
    assert_eq!(nobody.get("/v1/checkpoints/1").await.expect(200).json(), latest);
    for unknown in ["2", "0", "-1", "x", "99999999999999999999"] {
        nobody.get(&format!("/v1/checkpoints/{unknown}")).await.expect_problem(404, "not_found");
    }
    client.get("/v1/reconciliation?cursor=x").await.expect_problem(400, "invalid_cursor");
    client.get("/v1/reconciliation?limit=0").await.expect_problem(400, "malformed_request");
    bank.close().await;
}
