//! Four eyes: what needs two people is done by two, once, or not at all.

use domain::ids::AccountId;
use domain::money::Currency;
use serde_json::{Value, json};
use testkit::{fixtures, wait_until};

use crate::bank::{Desk, open, redact};
use crate::harness::{Answer, Bank, Client, LONG, Somebody, start_again, uuid_of};
use crate::seed::start_processor;

/// Asks for a deposit that needs two; gives the request.
async fn asked(desk: &Desk, key: &str) -> Value {
    desk.deposit(&desk.otto, key, "1500.00").await.expect(202).json()
}

fn path(approval: &Value, what: &str) -> String {
    format!("/v1/approvals/{}/{what}", approval["id"].as_str().unwrap())
}

async fn approve(client: &Client, approval: &Value) -> Answer {
    let body = json!({"digest": approval["digest"], "reason": "receipt checked"});
    client.post(&path(approval, "approve"), body).await
}

async fn set(bank: &Bank, somebody: &Somebody, what: &str) {
    sqlx::query(&format!("UPDATE users SET {what} WHERE id = ?"))
        .bind(uuid_of(&somebody.id))
        .execute(bank.env.pool())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_asks_for_and_another_agrees_to_is_done_once() {
    let desk = Desk::new("four-eyes").await;
    let auditor = desk.bank.staff("audrey@example.com", 3).await;
    let admin = desk.bank.staff("ada@example.com", 4).await;
    let approval = asked(&desk, "big").await;
    assert_eq!(asked(&desk, "big").await, approval, "the same request again is the same one");
    desk.deposit(&desk.otto, "big", "1600.00").await.expect_problem(409, "idempotency_conflict");
    // Below the threshold, but the key stands for something else.
    desk.deposit(&desk.otto, "big", "1.00").await.expect_problem(409, "idempotency_conflict");
    let command = format!("/v1/commands/{}", approval["command"]["id"].as_str().unwrap());
    let status = async || desk.olga.client.get(&command).await.expect(200).json()["status"].clone();
    assert_eq!(status().await, "waiting_for_approval");
    desk.anna.client.get(&command).await.expect_problem(404, "not_found");
    let waiting = desk.olga.client.get("/v1/approvals?status=waiting").await.expect(200).json();
    assert_eq!((&waiting["data"][0], &waiting["counts"]["waiting"]), (&approval, &json!(1)));
    assert_eq!(desk.balance().await, 0);

    let own = approve(&desk.otto.client, &approval).await;
    own.expect_problem(403, "second_person_needed");
    approve(&auditor.client, &approval).await.expect_problem(403, "role_missing");
    approve(&desk.anna.client, &approval).await.expect_problem(403, "role_missing");
    assert_eq!(desk.balance().await, 0);
    let agreed = approve(&desk.olga.client, &approval).await.expect(200).json();
    insta::assert_json_snapshot!("agreed", redact(agreed.clone()));
    assert_eq!(approve(&desk.olga.client, &approval).await.expect(200).json(), agreed, "repeated");
    approve(&admin.client, &approval).await.expect_problem(409, "conflict");
    approve(&desk.otto.client, &approval).await.expect_problem(403, "second_person_needed");
    assert_eq!(desk.balance().await, 150_000);
    assert_eq!(status().await, "applied");
    // Whoever asked learns of it by asking again.
    let done = desk.deposit(&desk.otto, "big", "1500.00").await.expect(201).json();
    assert_eq!(done["id"], agreed["command"]["id"]);
    assert_eq!(desk.balance().await, 150_000);
    let of = |action: &str| format!("audit_log WHERE action = 'approval.{action}'");
    assert_eq!(desk.bank.count(&of("request")).await, 1);
    assert_eq!(desk.bank.count(&(of("approve") + " AND outcome = 1")).await, 1);
    assert_eq!(desk.bank.count(&(of("approve") + " AND outcome = 2")).await, 2);
    // What a second person agreed to does not count towards what one does alone.
    desk.deposit(&desk.otto, "alone", "1000.00").await.expect(201);
    let counts = auditor.client.get("/v1/approvals").await.expect(200).json()["counts"].clone();
    assert_eq!(counts, json!({"waiting": 0, "approved": 1, "rejected": 0, "cancelled": 0, "expired": 0}));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_always_take_two_and_an_approved_command_may_still_be_rejected() {
    let desk = Desk::new("four-eyes-limits").await;
    let limits = format!("/v1/accounts/{}/limits", desk.account);
    let body = json!({"overdraft": "50.00", "daily_cap": "0.00", "reason": "salary account"});
    let approval = desk.otto.client.ask(&limits, "l", body.clone()).await.expect(202).json();
    let agreed = approve(&desk.olga.client, &approval).await.expect(200).json();
    assert_eq!(agreed["command"]["status"], "applied");
    assert_eq!(desk.bank.count("accounts WHERE overdraft_minor = 5000 AND daily_max_minor = 0").await, 1);
    desk.otto.client.ask(&limits, "l", body).await.expect(200);
    let taken = desk.otto.client.ask("/v1/withdrawals", "w", desk.deposit_of("50.00")).await;
    taken.expect(201);
    // What is overdrawn must stay covered: both agree, and the ledger does not.
    let body = json!({"overdraft": "0.00", "reason": "account is closed soon"});
    let approval = desk.otto.client.ask(&limits, "less", body).await.expect(202).json();
    let agreed = approve(&desk.olga.client, &approval).await.expect(200).json();
    assert_eq!(agreed["status"], "approved");
    assert_eq!(
        (&agreed["command"]["status"], &agreed["command"]["reason"]),
        (&json!("rejected"), &json!("insufficient_funds"))
    );
    for bad in ["-1.00", "1", "", "x"] {
        let body = json!({"overdraft": bad, "per_payment_max": bad, "reason": "salary account"});
        let refused = desk.otto.client.ask(&limits, "bad", body).await.expect_problem(400, "invalid_field");
        assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 2);
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_is_credited_on_the_account_that_two_agreed_to() {
    let desk = Desk::new("four-eyes-settle").await;
    let partner = fixtures::insert_partner(desk.bank.env.pool(), fixtures::PartnerRow::default()).await;
    let owner = partner.to_string();
    let first = open(&desk.otto.client, "p1", &owner, Currency::EUR).await;
    let second = open(&desk.otto.client, "p2", &owner, Currency::EUR).await;
    let path = format!("/v1/partners/{partner}/settlement-accounts");
    let credited =
        async || desk.otto.client.get(&path).await.expect(200).json()["data"][0]["account"].clone();
    let body = json!({"account": second, "reason": "second legal person"});
    let approval = desk.otto.client.ask(&path, "s", body).await.expect(202).json();
    assert_eq!(credited().await, json!(first), "asking changes nothing");
    let agreed = approve(&desk.olga.client, &approval).await.expect(200).json();
    assert_eq!(agreed["command"]["status"], "applied");
    assert_eq!(credited().await, json!(second));
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_must_not_agree_cannot() {
    let desk = Desk::new("four-eyes-who").await;
    let bank = &desk.bank;
    let (otto, olga) = (&desk.otto, &desk.olga);
    let done = async || bank.count("payments").await;

    // The owner of the account.
    let approval = asked(&desk, "owner").await;
    let own = |user: &Somebody| {
        let (user, account) = (uuid_of(&user.id), desk.account.parse::<AccountId>().unwrap());
        sqlx::query("UPDATE accounts SET owner_id = ? WHERE id = ?")
            .bind(user)
            .bind(account.uuid().as_bytes().to_vec())
            .execute(bank.env.pool())
    };
    own(olga).await.unwrap();
    approve(&olga.client, &approval).await.expect_problem(403, "second_person_needed");
    own(&desk.anna).await.unwrap();

    // A role that was lost meanwhile, while the session is still remembered with it.
    for lost in ["role = 3", "status = 3"] {
        tokio::time::sleep(admin_api::sessions::AGE_MAX).await;
        olga.client.get("/v1/approvals").await.expect(200);
        set(bank, olga, lost).await;
        approve(&olga.client, &approval).await.expect_problem(403, "role_missing");
        set(bank, olga, "role = 2, status = 2").await;
    }
    // Whoever asked lost it.
    set(bank, otto, "status = 3").await;
    approve(&olga.client, &approval).await.expect_problem(409, "conflict");
    set(bank, otto, "status = 2").await;

    // Something else than was shown.
    let mut other = approval.clone();
    for digest in ["", "00", &"0".repeat(64)] {
        other["digest"] = json!(digest);
        approve(&olga.client, &other).await.expect_problem(409, "approval_altered");
    }
    // Altered in the database: the action alone, and the action with its hash, which the approver has not seen.
    bank.sql("UPDATE approvals SET action = REPLACE(action, '150000', '950000')").await;
    approve(&olga.client, &approval).await.expect_problem(409, "approval_altered");
    bank.sql("UPDATE approvals SET action_hash = UNHEX(SHA2(action, 256))").await;
    approve(&olga.client, &approval).await.expect_problem(409, "approval_altered");
    let read = olga.client.get(path(&approval, "").trim_end_matches('/')).await.expect(200).json();
    assert!(read["summary"].as_str().unwrap().contains("9500.00"), "it is shown as it stands");
    bank.sql("UPDATE approvals SET action = 'nonsense'").await;
    approve(&olga.client, &approval).await.expect_problem(409, "approval_altered");
    let refused = "audit_log WHERE action = 'approval.approve' AND outcome = 2";
    assert_eq!(bank.count(refused).await, 1 + 3 + 3);

    // Too late.
    let late = asked(&desk, "late").await;
    bank.sql("UPDATE approvals SET requested_at = requested_at - INTERVAL 86400 SECOND").await;
    approve(&olga.client, &late).await.expect_problem(409, "conflict");
    let why = json!({"reason": "too late"});
    olga.client.post(&path(&late, "reject"), why.clone()).await.expect_problem(409, "conflict");
    let expired = olga.client.get("/v1/approvals?status=expired").await.expect(200).json();
    assert_eq!((expired["data"].as_array().unwrap().len(), &expired["counts"]["expired"]), (2, &json!(2)));
    assert_eq!(expired["data"][0]["command"]["status"], "not_approved");
    assert_eq!(desk.deposit(otto, "late", "1500.00").await.expect(200).json()["status"], "expired");

    // Said no to, and taken back.
    let (no, back) = (asked(&desk, "no").await, asked(&desk, "back").await);
    otto.client.post(&path(&no, "reject"), why.clone()).await.expect_problem(409, "conflict");
    olga.client.post(&path(&no, "cancel"), why.clone()).await.expect_problem(409, "conflict");
    let rejected = olga.client.post(&path(&no, "reject"), why.clone()).await.expect(200).json();
    insta::assert_json_snapshot!("not_agreed", redact(rejected));
    olga.client.post(&path(&no, "reject"), why.clone()).await.expect(200);
    approve(&olga.client, &no).await.expect_problem(409, "conflict");
    otto.client.post(&path(&back, "cancel"), why.clone()).await.expect(200);
    approve(&olga.client, &back).await.expect_problem(409, "conflict");
    olga.client.post(&path(&back, "reject"), why).await.expect_problem(409, "conflict");
    olga.client
        .post(&path(&back, "reject"), json!({"reason": "no"}))
        .await
        .expect_problem(400, "invalid_field");
    assert_eq!(done().await, 0);
    assert_eq!(bank.count("commands WHERE approved = 1").await, 0);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_agree_at_once_are_one() {
    let desk = Desk::new("four-eyes-at-once").await;
    let admin = desk.bank.staff("ada@example.com", 4).await;
    for round in 0..5 {
        let approval = asked(&desk, &format!("round-{round}")).await;
        let reject = json!({"reason": "not this one"});
        let (one, other, no) =
            tokio::join!(approve(&desk.olga.client, &approval), approve(&admin.client, &approval), async {
                // Every other round somebody says no at the same moment.
                if round % 2 == 0 {
                    None
                } else {
                    Some(admin.client.post(&path(&approval, "reject"), reject).await)
                }
            });
        let won = [Some(&one), Some(&other), no.as_ref()]
            .into_iter()
            .flatten()
            .filter(|it| it.status == 200)
            .count();
        assert_eq!(won, 1, "{one:?} {other:?} {no:?}");
    }
    let approved = desk.bank.count("approvals WHERE status = 2").await;
    assert_eq!(desk.bank.count("payments").await, approved);
    assert_eq!(desk.balance().await, 150_000 * approved);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_agreeing_and_publishing_loses_nothing_and_doubles_nothing() {
    let desk = Desk::new("four-eyes-crash").await;
    let approval = asked(&desk, "crash").await;
    // A replica that can write and not publish is one that is killed between the two.
    let cut_off = desk.bank.another_not_ready(&[("--kafka-brokers", "127.0.0.1:1".to_owned())]).await;
    let Desk { bank, processor, olga, account, .. } = desk;
    let Bank { env, keys, mails, service, .. } = bank;
    service.stop().await;
    let away = Client { server: cut_off.address, ..olga.client.clone() };
    let agreed = approve(&away, &approval).await.expect(200).json();
    assert_eq!((&agreed["status"], &agreed["command"]["status"]), (&json!("approved"), &json!("pending")));
    let count = async |table: &str| -> i64 {
        sqlx::query_scalar(&format!("SELECT COUNT(*) FROM {table}")).fetch_one(env.pool()).await.unwrap()
    };
    assert_eq!(
        (count("commands WHERE approved = 1 AND due_at IS NOT NULL").await, count("payments").await),
        (1, 0)
    );
    cut_off.stop().await;
    drop(processor);

    // A dispatcher starts later, and publishes twice before anybody decides.
    let service = start_again(&env, &keys, mails.path()).await;
    for attempts in 1..=2 {
        let published = format!("commands WHERE approved = 1 AND attempts >= {attempts}");
        wait_until("the dispatcher to publish", LONG, async || count(&published).await == 1).await;
        sqlx::query("UPDATE commands SET due_at = UTC_TIMESTAMP(6) WHERE approved = 1")
            .execute(env.pool())
            .await
            .unwrap();
    }
    let processor = start_processor(&env);
    wait_until("it to be carried out", LONG, async || count("payments WHERE status = 2").await == 1).await;
    let again = Client { server: service.address, ..olga.client.clone() };
    assert_eq!(approve(&again, &approval).await.expect(200).json()["command"]["status"], "applied");
    let decided = async || count("commands WHERE approved = 1 AND due_at IS NOT NULL").await == 0;
    sqlx::query("UPDATE commands SET due_at = UTC_TIMESTAMP(6) WHERE due_at IS NOT NULL")
        .execute(env.pool())
        .await
        .unwrap();
    wait_until("nobody to look at it any more", LONG, decided).await;
    assert_eq!(count("payments").await, 1);
    let account = account.parse::<AccountId>().unwrap().uuid().as_bytes().to_vec();
    let balance: i64 = sqlx::query_scalar("SELECT balance_minor FROM accounts WHERE id = ?")
        .bind(account)
        .fetch_one(env.pool())
        .await
        .unwrap();
    assert_eq!(balance, 150_000);
    let report = verifier::verify(env.pool(), None).await.unwrap();
    assert!(report.is_whole(), "{:#?}", report.findings);
    drop(processor);
    service.stop().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_listed_page_by_page_while_new_ones_come() {
    let desk = Desk::new("four-eyes-pages").await;
    for n in 0..5 {
        asked(&desk, &format!("page-{n}")).await;
    }
    // Some at the same moment, so that the id decides.
    desk.bank
        .sql("UPDATE approvals SET requested_at = '2026-01-01' + INTERVAL 0 SECOND ORDER BY id LIMIT 3")
        .await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page in 0..3 {
        let answer = desk.olga.client.get(&format!("/v1/approvals?limit=2{cursor}")).await.expect(200).json();
        seen.extend(
            answer["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()),
        );
        if page == 0 {
            asked(&desk, "new").await;
        }
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => assert_eq!(page, 2),
        }
    }
    assert_eq!(seen.len(), 5);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5, "each once");
    desk.close().await;
}
