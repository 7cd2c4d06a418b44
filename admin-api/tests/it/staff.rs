//! The second factor, step-up, and the first admins.

use admin_api::create_admin::{self, CreateError};
use serde_json::{Value, json};

use crate::harness::{Bank, PASSWORD, code_at, enrol, link_token};

#[tokio::test(flavor = "multi_thread")]
async fn staff_without_a_second_factor_can_only_set_one_up() {
    let bank = Bank::new("admin-enrol").await;
    let mut otto = bank.staff_without_second_factor("otto@example.com", 2).await;
    otto.client.get("/v1/me").await.expect(200);
    otto.client.get("/v1/users").await.expect_problem(403, "second_factor_missing");
    let patch = json!({"name": "Otto"});
    otto.client.send("PATCH", "/v1/me", Some(&patch)).await.expect_problem(403, "second_factor_missing");
    otto.client
        .post("/v1/auth/step-up", json!({"code": "123456"}))
        .await
        .expect_problem(403, "second_factor_missing");
    let confirm = "/v1/me/second-factor/confirmation";
    otto.client.post(confirm, json!({"code": "123456"})).await.expect_problem(409, "conflict");
    let begun = otto.client.post("/v1/me/second-factor", Value::Null).await.expect(200).json();
    assert!(
        begun["otpauth_url"]
            .as_str()
            .unwrap()
            .starts_with("otpauth://totp/Wired%20City:otto%40example.com?secret=")
    );
    let hour = code_at(begun["secret"].as_str().unwrap(), 3_600);
    otto.client.post(confirm, json!({ "code": hour })).await.expect_problem(401, "credentials_invalid");
    otto.client.get("/v1/users").await.expect_problem(403, "second_factor_missing");
    // A session from before does not become whole with it.
    let other = otto.client.log_in(&otto.email, PASSWORD, None).await.expect(200).json();
    let other = otto.client.with_token(other["access_token"].as_str().unwrap());
    enrol(&mut otto).await;
    assert_eq!(otto.recovery_codes.len(), 10);
    otto.client.get("/v1/users").await.expect(200);
    other.get("/v1/me").await.expect_problem(401, "token_invalid");
    otto.client.post("/v1/me/second-factor", Value::Null).await.expect_problem(409, "conflict");
    assert!(bank.mail_to("otto@example.com").await.contains("second factor"));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_counts_once_and_recovery_codes_stand_in() {
    let bank = Bank::new("admin-codes").await;
    let otto = bank.staff("otto@example.com", 2).await;
    let log_in = async |code: Option<&str>| bank.client().log_in("otto@example.com", PASSWORD, code).await;
    log_in(None).await.expect_problem(401, "code_missing");
    // The code that confirmed it was taken; the next one counts once, also when it comes twice at the same moment.
    log_in(Some(&code_at(&otto.secret, 0))).await.expect_problem(401, "credentials_invalid");
    bank.forget_steps().await;
    let code = code_at(&otto.secret, 0);
    let (one, two) = tokio::join!(log_in(Some(&code)), log_in(Some(&code)));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    let recovery = otto.recovery_codes[3].to_uppercase().replace('-', " ");
    let tokens = log_in(Some(&recovery)).await.expect(200).json();
    log_in(Some(&recovery)).await.expect_problem(401, "credentials_invalid");
    // Five wrong codes, and the right one has to wait; nobody but who knows the password gets here.
    for _ in 0..2 {
        log_in(Some("000000")).await.expect_problem(401, "credentials_invalid");
    }
    bank.forget_steps().await;
    let throttled = log_in(Some(&code_at(&otto.secret, 0))).await.expect_problem(429, "too_many_attempts");
    assert!(throttled.header("retry-after").is_some());
    let session = otto.client.with_token(tokens["access_token"].as_str().unwrap());
    session.get("/v1/users").await.expect(200);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_lasts_five_minutes() {
    let bank = Bank::new("admin-step-up").await;
    let (otto, anna) = (bank.staff("otto@example.com", 2).await, bank.customer("anna@example.com").await);
    let renew = async || otto.client.post("/v1/me/recovery-codes", Value::Null).await;
    let export = async || anna.client.post("/v1/me/exports", Value::Null).await;
    renew().await.expect(200);
    export().await.expect(200);
    let age = async |seconds: u32| {
        let text = format!("UPDATE sessions SET proven_at = UTC_TIMESTAMP(6) - INTERVAL {seconds} SECOND");
        bank.sql(&text).await;
        // What this process remembers is two seconds old at most.
        tokio::time::sleep(admin_api::sessions::AGE_MAX).await;
    };
    age(290).await;
    renew().await.expect(200);
    age(301).await;
    renew().await.expect_problem(403, "proof_too_old");
    export().await.expect_problem(403, "proof_too_old");
    let step_up =
        async |client: &crate::harness::Client, body: Value| client.post("/v1/auth/step-up", body).await;
    // Neither proves with the other's proof.
    step_up(&otto.client, json!({"password": PASSWORD})).await.expect_problem(401, "code_missing");
    step_up(&anna.client, json!({"code": "123456"})).await.expect_problem(401, "credentials_invalid");
    step_up(&otto.client, json!({"code": "000000"})).await.expect_problem(401, "credentials_invalid");
    renew().await.expect_problem(403, "proof_too_old");
    bank.forget_steps().await;
    step_up(&otto.client, json!({"code": code_at(&otto.secret, 0)})).await.expect(204);
    step_up(&anna.client, json!({"password": PASSWORD})).await.expect(204);
    renew().await.expect(200);
    export().await.expect(200);
    // Another authenticator: everything ends, and the next log-in can only set one up.
    otto.client.send("DELETE", "/v1/me/second-factor", None).await.expect(204);
    otto.client.get("/v1/me").await.expect_problem(401, "token_invalid");
    let tokens = otto.client.log_in(&otto.email, PASSWORD, None).await.expect(200).json();
    assert_eq!(tokens["second_factor_missing"], true);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_two_admins_are_made_on_the_server_and_no_more() {
    let bank = Bank::new("admin-first").await;
    let client = bank.client();
    let mut links = Vec::new();
    for email in ["ada@example.com", "bea@example.com", "eve@example.com"] {
        links.push(create_admin::run(&bank.admin_config(email)).await.unwrap());
    }
    // Once more for the first one: the old link is worthless.
    let old = std::mem::replace(
        &mut links[0],
        create_admin::run(&bank.admin_config("ada@example.com")).await.unwrap(),
    );
    let set = |link: &str| json!({"token": link_token(link), "password": PASSWORD});
    client.post("/v1/auth/passwords", set(&old)).await.expect_problem(400, "link_invalid");
    for link in &links[..2] {
        client.post("/v1/auth/passwords", set(link)).await.expect(204);
    }
    // Three were invited, two count: whoever comes late is no admin.
    client.post("/v1/auth/passwords", set(&links[2])).await.expect_problem(409, "conflict");
    let refused = create_admin::run(&bank.admin_config("eve@example.com")).await.unwrap_err();
    assert!(matches!(refused, CreateError::Enough), "{refused}");
    assert_eq!(bank.count("users WHERE role = 4 AND status = 2").await, 2);
    let tokens = client.log_in("ada@example.com", PASSWORD, None).await.expect(200).json();
    assert_eq!(tokens["second_factor_missing"], true);
    // With one of them gone it works again, but never for somebody who is here already.
    bank.sql("UPDATE users SET status = 3 WHERE role = 4 AND status = 2 LIMIT 1").await;
    bank.customer("carl@example.com").await;
    let taken = create_admin::run(&bank.admin_config("carl@example.com")).await.unwrap_err();
    assert!(matches!(taken, CreateError::Taken), "{taken}");
    client.post("/v1/auth/passwords", set(&links[2])).await.expect(204);
    assert_eq!(bank.count("audit_log WHERE action = 'user.invite_admin' AND actor_id IS NULL").await, 4);
    bank.close().await;
}
