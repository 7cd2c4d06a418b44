//! Staff are invited, get other roles, are disabled and enabled, and customers erased: always by two, never by
//! themselves.

use std::time::Instant;

use domain::account::AccountStatus;
use serde_json::{Value, json};
use testkit::wait_until;

use crate::colleagues::{actions, agree, neutral, text, why};
use crate::harness::{Answer, Bank, LONG, PASSWORD, REVOKED_WITHIN, Somebody, code_at, link_token, uuid_of};

async fn invite(by: &Somebody, key: &str, email: &str, role: &str) -> Answer {
    let body = json!({"email": email, "name": "Otto Ohm", "role": role, "reason": "joins the night shift"});
    by.client.ask("/v1/users/invitations", key, body).await
}

async fn change(by: &Somebody, whom: &str, what: &str, key: &str) -> Answer {
    by.client.ask(&format!("/v1/users/{whom}/{what}"), key, why("left the bank")).await
}

async fn role(by: &Somebody, whom: &str, role: &str, key: &str) -> Answer {
    let body = json!({"role": role, "reason": "other work"});
    by.client.ask(&format!("/v1/users/{whom}/role"), key, body).await
}

/// Follows the link in the mail and logs in.
async fn join(bank: &Bank, email: &str) -> Value {
    let token = link_token(&bank.mail_to(email).await);
    let client = bank.client();
    client.post("/v1/auth/passwords", json!({"token": token, "password": PASSWORD})).await.expect(204);
    let tokens = client.log_in(email, PASSWORD, None).await.expect(200).json();
    client.with_token(&text(&tokens, "access_token")).get("/v1/me").await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_by_two_joins_by_the_mailed_link() {
    let bank = Bank::new("admin-invite").await;
    let ada = bank.staff("ada@example.com", 4).await;
    // Nobody else could approve the second admin.
    let made = invite(&ada, "bea", "bea@example.com", "admin").await.expect(201).json();
    insta::assert_json_snapshot!("invited", neutral(made, &["id", "created_at"]));
    assert_eq!(join(&bank, "bea@example.com").await["role"], "admin");
    let bea = bank.staff("bea2@example.com", 4).await;

    let asked = invite(&ada, "otto", "otto@example.com", "operator").await.expect(202);
    assert!(!asked.body.contains("otto@") && !asked.body.contains("Ohm"), "{}", asked.body);
    agree(&ada, &asked).await.expect_problem(403, "second_person_needed");
    bank.outbox_is_empty().await;
    assert_eq!(bank.count("link_tokens").await, 0, "no link exists before somebody approved");
    agree(&bea, &asked).await.expect(200);
    // Asked for anew as something more, and not approved: the link that is out leads where two wanted it to.
    invite(&ada, "otto-admin", "OTTO@example.com", "admin").await.expect(202);
    assert_eq!(join(&bank, "otto@example.com").await["role"], "operator");
    invite(&ada, "otto-again", "otto@example.com", "operator").await.expect_problem(409, "conflict");
    assert_eq!(actions(&bank, "user.invite_staff").await, 2);

    // Approved, it replaces the first one.
    let first = invite(&ada, "una", "una@example.com", "operator").await.expect(202);
    agree(&bea, &first).await.expect(200);
    let old = link_token(&bank.mail_to("una@example.com").await);
    let second = invite(&bea, "una", "una@example.com", "auditor").await.expect(202);
    agree(&ada, &second).await.expect(200);
    let body = json!({"token": old, "password": PASSWORD});
    bank.client().post("/v1/auth/passwords", body).await.expect_problem(400, "link_invalid");
    assert_eq!(join(&bank, "una@example.com").await["role"], "auditor");

    // Somebody registered with the address of who is to come, and does not own the mailbox.
    let body = json!({"email": "vic@example.com", "name": "Mallory"});
    bank.client().post("/v1/auth/registrations", body).await.expect(202);
    bank.mail_to("vic@example.com").await;
    let asked = invite(&ada, "vic", "vic@example.com", "operator").await.expect(202);
    agree(&bea, &asked).await.expect(200);
    assert_eq!(join(&bank, "vic@example.com").await["role"], "operator");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_role_counts_in_running_sessions_within_five_seconds() {
    let bank = Bank::new("admin-role").await;
    let (ada, bea) = (bank.staff("ada@example.com", 4).await, bank.staff("bea@example.com", 4).await);
    let (cleo, otto) = (bank.staff("cleo@example.com", 4).await, bank.staff("otto@example.com", 2).await);
    let anna = bank.customer("anna@example.com").await;
    role(&otto, &anna.id, "admin", "r").await.expect_problem(403, "role_missing");
    role(&ada, &ada.id, "operator", "r").await.expect_problem(409, "conflict");
    role(&ada, &anna.id, "operator", "r").await.expect_problem(409, "conflict");
    role(&ada, &otto.id, "operator", "r").await.expect_problem(409, "conflict");
    for unknown in ["customer", "root", "", "Admin"] {
        role(&ada, &otto.id, unknown, "r").await.expect_problem(400, "invalid_field");
    }
    // Whom it is about does not approve it, however little there is to gain.
    let asked = role(&ada, &bea.id, "auditor", "bea").await.expect(202);
    agree(&bea, &asked).await.expect_problem(403, "second_person_needed");
    agree(&ada, &asked).await.expect_problem(403, "second_person_needed");
    let may_decline = async || {
        let path = "/v1/partner-applications/app_00000000000000000000000001/decline";
        // From another address each time, so that no rate is met.
        let client = bank.client().with_token(bea.client.token.as_deref().unwrap());
        client.post(path, why("no answer")).await.status != 403
    };
    assert!(may_decline().await);
    agree(&cleo, &asked).await.expect(200);
    let started = Instant::now();
    wait_until("the role counts", LONG, async || !may_decline().await).await;
    assert!(started.elapsed() < REVOKED_WITHIN, "{:?}", started.elapsed());
    bea.client.get("/v1/users").await.expect(200);
    let row = bank
        .count("audit_log WHERE action = 'user.change_role' AND detail LIKE '%\"role\":\"auditor\"%'")
        .await;
    assert_eq!(row, 1);
    // Who asked has lost the role meanwhile.
    let asked = role(&cleo, &otto.id, "auditor", "otto").await.expect(202);
    let lost = role(&ada, &cleo.id, "operator", "cleo").await.expect(202);
    sqlx::query("UPDATE users SET role = 4 WHERE id = ?")
        .bind(uuid_of(&bea.id))
        .execute(bank.env.pool())
        .await
        .unwrap();
    wait_until("bea is an admin again", LONG, async || may_decline().await).await;
    agree(&bea, &lost).await.expect(200);
    agree(&ada, &asked).await.expect_problem(409, "conflict");
    assert_eq!(bank.count("users WHERE role = 2 AND status = 2").await, 2, "otto is what he was");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_disabled_is_out_within_five_seconds_and_comes_back_as_before() {
    let bank = Bank::new("admin-disable").await;
    let (ada, bea) = (bank.staff("ada@example.com", 4).await, bank.staff("bea@example.com", 4).await);
    let otto = bank.staff("otto@example.com", 2).await;
    change(&ada, &ada.id, "disabling", "d").await.expect_problem(409, "conflict");
    change(&ada, &otto.id, "enabling", "d").await.expect_problem(409, "conflict");
    change(&otto, &bea.id, "disabling", "d").await.expect_problem(403, "role_missing");
    let asked = change(&ada, &otto.id, "disabling", "d").await.expect(202);
    otto.client.get("/v1/users").await.expect(200);
    agree(&bea, &asked).await.expect(200);
    let started = Instant::now();
    let is_out = async || otto.client.get("/v1/me").await.status == 401;
    wait_until("the session has ended", LONG, is_out).await;
    assert!(started.elapsed() < REVOKED_WITHIN, "{:?}", started.elapsed());
    let refresh = json!({"refresh_token": otto.refresh_token});
    bank.client().post("/v1/auth/refresh", refresh).await.expect_problem(401, "refresh_invalid");
    let log_in = async || {
        bank.forget_steps().await;
        bank.client().log_in("otto@example.com", PASSWORD, Some(&code_at(&otto.secret, 0))).await
    };
    log_in().await.expect_problem(401, "credentials_invalid");
    // A mail does not let in either.
    bank.client().post("/v1/auth/password-resets", json!({"email": "otto@example.com"})).await.expect(202);
    bank.outbox_is_empty().await;
    assert_eq!(bank.count("link_tokens").await, 0);
    assert_eq!(ada.client.get(&format!("/v1/users/{}", otto.id)).await.json()["status"], "disabled");

    let asked = change(&bea, &otto.id, "enabling", "e").await.expect(202);
    agree(&ada, &asked).await.expect(200);
    log_in().await.expect(200);
    otto.client.get("/v1/me").await.expect_problem(401, "token_invalid");
    assert_eq!((actions(&bank, "user.disable").await, actions(&bank, "user.enable").await), (1, 1));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_who_disable_each_other_at_once_leave_one() {
    let bank = Bank::new("admin-last").await;
    let (ada, bea) = (bank.staff("ada@example.com", 4).await, bank.staff("bea@example.com", 4).await);
    let cleo = bank.staff("cleo@example.com", 4).await;
    let (first, second, third) = (
        change(&ada, &bea.id, "disabling", "1").await.expect(202),
        change(&bea, &cleo.id, "disabling", "1").await.expect(202),
        change(&cleo, &ada.id, "disabling", "1").await.expect(202),
    );
    // Nobody vetoes what is about himself.
    let veto = format!("/v1/approvals/{}/reject", first.json()["id"].as_str().unwrap());
    let refused = bea.client.post(&veto, json!({"reason": "I would rather stay"})).await;
    refused.expect_problem(403, "second_person_needed");
    let until_settled = async |by: &Somebody, asked: &Answer| {
        loop {
            let answer = agree(by, asked).await;
            if answer.status != 503 {
                return answer.status;
            }
        }
    };
    let (one, two, three) =
        tokio::join!(until_settled(&cleo, &first), until_settled(&ada, &second), until_settled(&bea, &third));
    let done = [one, two, three].iter().filter(|status| **status == 200).count();
    let active = bank.count("users WHERE role = 4 AND status = 2").await;
    assert_eq!(active, 3 - i64::try_from(done).unwrap());
    assert!(done >= 1 && active >= 1, "{one} {two} {three}");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_erased_once_all_accounts_are_closed() {
    let bank = Bank::new("admin-erase").await;
    let (ada, bea) = (bank.staff("ada@example.com", 4).await, bank.staff("bea@example.com", 4).await);
    let (otto, anna) = (bank.staff("otto@example.com", 2).await, bank.customer("anna@example.com").await);
    change(&ada, &otto.id, "erasure", "o").await.expect_problem(409, "conflict");
    sqlx::query(
        "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor,
        overdraft_minor, spent_day, spent_minor, version, head, entered_at)
        VALUES (REPEAT('a', 16), 1, ?, 'EUR', 1, 0, 0, 0, 0, 0, 0, REPEAT('\\0', 32), UTC_TIMESTAMP(6))",
    )
    .bind(uuid_of(&anna.id))
    .execute(bank.env.pool())
    .await
    .unwrap();
    let set = async |status: AccountStatus| {
        bank.sql(&format!("UPDATE accounts SET status = {}", status.code())).await;
    };
    change(&ada, &anna.id, "erasure", "a").await.expect_problem(409, "conflict");
    set(AccountStatus::Closed).await;
    let asked = change(&ada, &anna.id, "erasure", "b").await.expect(202);
    // Things stand otherwise when it is approved.
    set(AccountStatus::Active).await;
    agree(&bea, &asked).await.expect_problem(409, "conflict");
    anna.client.get("/v1/me").await.expect(200);
    set(AccountStatus::Closed).await;
    agree(&bea, &asked).await.expect(200);
    let left = ada.client.get(&format!("/v1/users/{}", anna.id)).await.expect(200).json();
    assert_eq!(
        (&left["status"], &left["email"], &left["name"]),
        (&json!("erased"), &Value::Null, &Value::Null)
    );
    wait_until("the session has ended", LONG, async || anna.client.get("/v1/me").await.status == 401).await;
    bank.client().log_in("anna@example.com", PASSWORD, None).await.expect_problem(401, "credentials_invalid");
    for what in ["erasure", "disabling", "enabling"] {
        change(&ada, &anna.id, what, what).await.expect_problem(409, "conflict");
    }
    assert_eq!(
        bank.count(&format!("audit_log WHERE action = 'user.erase' AND target = '{}'", anna.id)).await,
        1
    );
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_what_to_change() {
    let bank = Bank::new("admin-staff-input").await;
    let (ada, _bea) = (bank.staff("ada@example.com", 4).await, bank.staff("bea@example.com", 4).await);
    let good = json!({"email": "x@example.com", "name": "X", "role": "operator", "reason": "joins the bank"});
    for (name, value, pointer) in [
        ("email", json!("x"), "/email"),
        ("email", json!("x@example.com\r\nBcc: y@example.com"), "/email"),
        ("name", json!("\u{202e}"), "/name"),
        ("name", json!(5), "/name"),
        ("role", json!("customer"), "/role"),
        ("role", json!("emperor"), "/role"),
        ("reason", json!("hm"), "/reason"),
        ("password", json!("seven quiet herons"), "/password"),
    ] {
        let mut body = good.clone();
        body[name] = value;
        let answer = ada.client.ask("/v1/users/invitations", "k", body.clone()).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (400, &json!(pointer)), "{body}");
    }
    ada.client.post("/v1/users/invitations", good).await.expect_problem(400, "idempotency_key_missing");
    invite(&ada, "k", "bea@example.com", "operator").await.expect_problem(409, "conflict");
    for what in ["disabling", "enabling", "erasure"] {
        for id in ["usr_00000000000000000000000001", "ptr_00000000000000000000000001", "1"] {
            change(&ada, id, what, "k").await.expect_problem(404, "not_found");
        }
    }
    assert_eq!((bank.count("users").await, bank.count("approvals").await), (2, 0), "nothing was done");
    bank.close().await;
}
