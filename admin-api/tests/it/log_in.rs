//! Registering, logging in and out, and what becomes of sessions.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::wait_until;

use crate::harness::{Bank, LONG, PASSWORD, REVOKED_WITHIN, link_token};

/// A JSON with what differs from run to run replaced.
fn redacted(mut json: Value, names: &[&str]) -> Value {
    for name in names {
        assert!(json[*name].is_string(), "{name} is missing in {json}");
        json[*name] = json!(format!("[{name}]"));
    }
    json
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_registers_by_mail_logs_in_and_out() {
    let bank = Bank::new("admin-customer").await;
    let (client, email) = (bank.client(), "Anna.Bell@Example.com");
    client.post("/v1/auth/registrations", json!({"email": email, "name": " Anna Bell "})).await.expect(202);
    client.log_in(email, PASSWORD, None).await.expect_problem(401, "credentials_invalid");
    let mail = bank.mail_to(email).await;
    assert!(
        mail.contains("Subject: Complete your registration") && mail.contains("Hello Anna Bell"),
        "{mail}"
    );
    let token = link_token(&mail);
    let body = |token: &str, password: &str| json!({"token": token, "password": password});
    let weak = client.post("/v1/auth/passwords", body(&token, "password1234")).await;
    assert_eq!(weak.expect_problem(400, "invalid_field").json()["errors"][0]["code"], "too_common");
    client.post("/v1/auth/passwords", body("another", PASSWORD)).await.expect_problem(400, "link_invalid");
    client.post("/v1/auth/passwords", body(&token, PASSWORD)).await.expect(204);
    client.post("/v1/auth/passwords", body(&token, PASSWORD)).await.expect_problem(400, "link_invalid");

    let tokens = client.log_in("anna.bell@example.com", PASSWORD, None).await.expect(200);
    assert_eq!(tokens.header("cache-control"), Some("no-store"));
    let tokens = tokens.json();
    let names = ["access_token", "refresh_token", "session_expires_at"];
    insta::assert_json_snapshot!("tokens", redacted(tokens.clone(), &names));
    let me = client.with_token(tokens["access_token"].as_str().unwrap());
    insta::assert_json_snapshot!(
        "me",
        redacted(me.get("/v1/me").await.expect(200).json(), &["id", "created_at"])
    );

    let change = json!({"name": "Αννα", "phone": "+43 1 234", "address": "Ring 1\r\n1010 Wien"});
    let changed = me.send("PATCH", "/v1/me", Some(&change)).await.expect(200).json();
    assert_eq!((&changed["name"], &changed["address"]), (&json!("Αννα"), &json!("Ring 1\n1010 Wien")));
    let changed = me.send("PATCH", "/v1/me", Some(&json!({"phone": ""}))).await.expect(200).json();
    assert_eq!((&changed["name"], &changed["phone"]), (&json!("Αννα"), &Value::Null));
    assert_eq!(me.get("/v1/me").await.json(), changed);

    me.post("/v1/auth/logout", Value::Null).await.expect(204);
    me.get("/v1/me").await.expect_problem(401, "token_invalid");
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    client.post("/v1/auth/refresh", refresh).await.expect_problem(401, "refresh_invalid");
    assert_eq!(
        bank.count("audit_log WHERE outcome = 1 AND address IS NOT NULL").await,
        // register, set password, log in, two changes, log out
        6
    );
    assert_eq!(bank.count("audit_log WHERE outcome = 2").await, 1, "the log-in without a password");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_and_unknown_addresses_look_alike() {
    let bank = Bank::new("admin-alike").await;
    let known = bank.customer("known@example.com").await;
    bank.outbox_is_empty().await;
    let mut answers = BTreeSet::new();
    for (path, wrong) in [
        ("/v1/auth/registrations", None),
        ("/v1/auth/password-resets", None),
        ("/v1/auth/login", Some("no such herons")),
    ] {
        for email in ["known@example.com", "unknown@example.com"] {
            let mut body = json!({ "email": email });
            match wrong {
                Some(password) => body["password"] = json!(password),
                None if path.ends_with("registrations") => body["name"] = json!("Anna"),
                None => {}
            }
            let rows = bank.count("audit_log").await;
            let answer = bank.client().post(path, body).await;
            let head: Vec<_> = answer
                .head
                .lines()
                .filter(|line| !line.starts_with("x-request-id") && !line.starts_with("date"))
                .map(ToOwned::to_owned)
                .collect();
            let mut body = answer.json();
            if let Some(body) = body.as_object_mut() {
                body.retain(|name, _| !["instance", "request_id"].contains(&name.as_str()));
            }
            answers.insert((path, head, body.to_string()));
            assert_eq!(bank.count("audit_log").await, rows + 1, "{path} {email}");
        }
    }
    assert_eq!(answers.len(), 3, "{answers:#?}");
    // The mailbox alone tells.
    assert!(bank.mail_to("known@example.com").await.contains("registered already"));
    assert!(bank.mail_to("known@example.com").await.contains("Set a new password"));
    bank.mail_to("unknown@example.com").await;
    bank.outbox_is_empty().await;
    assert_eq!(bank.mails_left(), 0);
    // More registrations than an address gets mails for are answered alike, and send nothing.
    for _ in 0..6 {
        let body = json!({"email": "known@example.com", "name": "Anna"});
        bank.client().post("/v1/auth/registrations", body).await.expect(202);
    }
    bank.outbox_is_empty().await;
    assert!(bank.mails_left() <= 2, "{}", bank.mails_left());
    drop(known);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_sessions_and_links_count_once_and_for_a_while() {
    let bank = Bank::new("admin-reset").await;
    let anna = bank.customer("anna@example.com").await;
    let client = bank.client();
    let ask = json!({"email": "anna@example.com"});
    client.post("/v1/auth/password-resets", ask.clone()).await.expect(202);
    let first = link_token(&bank.mail_to("anna@example.com").await);
    client.post("/v1/auth/password-resets", ask).await.expect(202);
    let second = link_token(&bank.mail_to("anna@example.com").await);
    let set = |token: &str| json!({"token": token, "password": "eight loud herons"});
    client.post("/v1/auth/passwords", set(&first)).await.expect_problem(400, "link_invalid");
    bank.sql("UPDATE link_tokens SET expires_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND").await;
    client.post("/v1/auth/passwords", set(&second)).await.expect_problem(400, "link_invalid");
    bank.sql("UPDATE link_tokens SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE").await;
    // Ten at once: one counts.
    let tries = (0..10).map(|_| client.post("/v1/auth/passwords", set(&second)));
    let tries = futures_util::future::join_all(tries).await;
    assert_eq!(tries.iter().filter(|it| it.status == 204).count(), 1);
    assert!(bank.mail_to("anna@example.com").await.contains("Your password was changed"));
    anna.client.get("/v1/me").await.expect_problem(401, "token_invalid");
    client.log_in("anna@example.com", PASSWORD, None).await.expect_problem(401, "credentials_invalid");
    client.log_in("anna@example.com", "eight loud herons", None).await.expect(200);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_the_password_ends_the_other_sessions() {
    let bank = Bank::new("admin-change").await;
    let anna = bank.customer("anna@example.com").await;
    let other = anna.client.log_in(&anna.email, PASSWORD, None).await.expect(200).json();
    let other = anna.client.with_token(other["access_token"].as_str().unwrap());
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let path = "/v1/me/password";
    anna.client
        .post(path, change("wrong herons", "eight loud herons"))
        .await
        .expect_problem(401, "credentials_invalid");
    anna.client.post(path, change(PASSWORD, &anna.email)).await.expect_problem(400, "invalid_field");
    anna.client.post(path, change(PASSWORD, "eight loud herons")).await.expect(204);
    anna.client.get("/v1/me").await.expect(200);
    other.get("/v1/me").await.expect_problem(401, "token_invalid");
    bank.mail_to(&anna.email).await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_counts_once_and_twice_ends_the_session() {
    let bank = Bank::new("admin-refresh").await;
    let anna = bank.customer("anna@example.com").await;
    let refresh =
        async |token: &str| bank.client().post("/v1/auth/refresh", json!({ "refresh_token": token })).await;
    let second = refresh(&anna.refresh_token).await.expect(200).json();
    let second_refresh = second["refresh_token"].as_str().unwrap();
    anna.client.with_token(second["access_token"].as_str().unwrap()).get("/v1/me").await.expect(200);
    // Somebody replays the first: the whole family dies, the newest token with it.
    refresh(&anna.refresh_token).await.expect_problem(401, "refresh_invalid");
    refresh(second_refresh).await.expect_problem(401, "refresh_invalid");
    anna.client.get("/v1/me").await.expect_problem(401, "token_invalid");
    assert!(bank.mail_to(&anna.email).await.contains("We ended one of your sessions"));
    assert_eq!(bank.count("audit_log WHERE action = 'user.reuse_refresh_token' AND outcome = 2").await, 1);
    for wrong in ["", "x", &"A".repeat(10_000), &anna.refresh_token[1..]] {
        refresh(wrong).await.expect_problem(401, "refresh_invalid");
    }

    // Two at once are a reuse, too: at most one gets tokens, and they do not last.
    let again = anna.client.log_in(&anna.email, PASSWORD, None).await.expect(200).json();
    let token = again["refresh_token"].as_str().unwrap();
    let (one, two) = tokio::join!(refresh(token), refresh(token));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    let winner = if one.status == 200 { one } else { two };
    refresh(winner.json()["refresh_token"].as_str().unwrap()).await.expect_problem(401, "refresh_invalid");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_and_another_role_count_on_every_replica_within_seconds() {
    let bank = Bank::new("admin-revoke").await;
    let other = bank.another(&[]).await;
    let anna = bank.customer("anna@example.com").await;
    let mut there = anna.client.clone();
    there.server = other.address;
    there.get("/v1/me").await.expect(200);
    there.get("/v1/users").await.expect_problem(403, "role_missing");
    bank.sql("UPDATE users SET role = 3").await;
    wait_until("the role to count", REVOKED_WITHIN, async || {
        there.get("/v1/users").await.code() == "second_factor_missing"
    })
    .await;
    bank.sql("UPDATE users SET role = 1").await;

    anna.client.post("/v1/auth/logout-everywhere", Value::Null).await.expect(204);
    anna.client.get("/v1/me").await.expect_problem(401, "token_invalid");
    wait_until("the revocation to count", REVOKED_WITHIN, async || there.get("/v1/me").await.status == 401)
        .await;

    let again = anna.client.log_in(&anna.email, PASSWORD, None).await.expect(200).json();
    let again = there.with_token(again["access_token"].as_str().unwrap());
    again.get("/v1/me").await.expect(200);
    bank.sql("UPDATE users SET status = 3").await;
    wait_until("the user to be shut out", REVOKED_WITHIN, async || again.get("/v1/me").await.status == 401)
        .await;
    anna.client.log_in(&anna.email, PASSWORD, None).await.expect_problem(401, "credentials_invalid");
    other.stop().await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_many_sessions_ends() {
    let bank = Bank::new("admin-sessions").await;
    let anna = bank.customer("anna@example.com").await;
    for _ in 0..20 {
        anna.client.log_in(&anna.email, PASSWORD, None).await.expect(200);
    }
    assert_eq!(bank.count("sessions WHERE revoked_at IS NULL").await, 20);
    wait_until("the first session to end", REVOKED_WITHIN, async || {
        anna.client.get("/v1/me").await.status == 401
    })
    .await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_sent_after_a_crash_and_after_the_way_out_is_back() {
    let bank = Bank::new("admin-mails").await;
    let anna = bank.customer("anna@example.com").await;
    bank.outbox_is_empty().await;
    // The folder cannot be written: a file stands in its way.
    let blocked = bank.mails.path().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    let other = bank.another(&[("--mail-folder", blocked.to_str().unwrap().to_owned())]).await;
    let Bank { service, .. } = &bank;
    let address = service.address;
    let ask = json!({ "email": anna.email });
    // Both replicas look for mails, so the first one has to be gone.
    let Bank { env, keys, mails, service, .. } = bank;
    service.stop().await;
    let mut client = anna.client.clone();
    assert_ne!(address, other.address);
    client.server = other.address;
    client.post("/v1/auth/password-resets", ask).await.expect(202);
    let attempts = async || -> Option<u8> {
        sqlx::query_scalar("SELECT attempts FROM mails WHERE attempts > 0")
            .fetch_optional(env.pool())
            .await
            .unwrap()
    };
    wait_until("the mail to be tried in vain", LONG, attempts).await;
    // As if killed: what was committed is in the outbox, and the next process sends it.
    other.stop().await;
    std::fs::remove_file(&blocked).unwrap();
    sqlx::query("UPDATE mails SET due_at = UTC_TIMESTAMP(6)").execute(env.pool()).await.unwrap();
    let service = crate::harness::start_again(&env, &keys, mails.path()).await;
    wait_until("the mail", LONG, async || {
        let mut mails = std::fs::read_dir(mails.path()).unwrap();
        mails.any(|it| it.unwrap().path().extension().is_some_and(|it| it == "eml"))
    })
    .await;
    service.stop().await;
    env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_registrations_of_one_address_at_once_are_one_user() {
    let bank = Bank::new("admin-ten").await;
    let clients: Vec<_> = (0..10).map(|_| bank.client()).collect();
    let body = json!({"email": "anna@example.com", "name": "Anna"});
    let tries = clients.iter().map(|client| client.post("/v1/auth/registrations", body.clone()));
    for answer in futures_util::future::join_all(tries).await {
        answer.expect(202);
    }
    assert_eq!(bank.count("users").await, 1);
    bank.outbox_is_empty().await;
    assert!(bank.mails_left() >= 1);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_asked_for_is_done_although_it_went_away() {
    let bank = Bank::new("admin-abort").await;
    let anna = bank.customer("anna@example.com").await;
    // The change waits for this lock, so the client is surely gone before it can be made.
    let mut lock = bank.env.pool().begin().await.unwrap();
    sqlx::query("SELECT id FROM users FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    let connection = anna.client.begin("PATCH", "/v1/me", &json!({"name": "Anna at last"})).await;
    let waits = "performance_schema.data_locks WHERE OBJECT_SCHEMA = DATABASE() AND LOCK_STATUS = 'WAITING'";
    wait_until("the change to wait for the lock", LONG, async || bank.count(waits).await == 1).await;
    drop(connection);
    // Whether the service has noticed cannot be asked; it has at once, or this proves less.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    lock.rollback().await.unwrap();
    let done = "audit_log WHERE action = 'user.change_profile'";
    wait_until("the change to be made", LONG, async || bank.count(done).await == 1).await;
    assert_eq!(anna.client.get("/v1/me").await.expect(200).json()["name"], "Anna at last");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mysql_it_answers_soon_and_nobody_is_let_in() {
    let bank = Bank::new("admin-no-mysql").await;
    let anna = bank.customer("anna@example.com").await;
    let nothing = format!("mysql://u:p@{}/x", testkit::free_address());
    let lonely = bank.another_not_ready(&[("--mysql-url", nothing)]).await;
    let mut client = bank.client();
    client.server = lonely.address;
    client.get("/v1/health").await.expect(200);
    let started = std::time::Instant::now();
    let answer = client.log_in(&anna.email, PASSWORD, None).await.expect_problem(503, "unavailable");
    assert!(answer.header("retry-after").is_some() && !answer.body.contains("127.0.0.1"), "{answer:?}");
    client
        .with_token(anna.client.token.as_deref().unwrap())
        .get("/v1/me")
        .await
        .expect_problem(503, "unavailable");
    assert!(started.elapsed() < std::time::Duration::from_secs(15));
    lonely.stop().await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_in_other_forms_are_none() {
    let bank = Bank::new("admin-tokens").await;
    let anna = bank.customer("anna@example.com").await;
    let token = anna.client.token.clone().unwrap();
    let (head, signature) = token.rsplit_once('.').unwrap();
    for wrong in [
        String::new(),
        "x".to_owned(),
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{}", signature.chars().rev().collect::<String>()),
        format!("{token}\r\nauthorization: Bearer {token}"),
        "x".repeat(8_000),
        anna.refresh_token.clone(),
    ] {
        let answer = bank.client().with_token(&wrong).get("/v1/me").await;
        answer.expect_problem(401, "token_invalid");
    }
    bank.client().with_token(&format!(" {token} ")).get("/v1/me").await.expect(200);
    // Another bank's token, signed by the same machine for another issuer.
    let other = bank.another(&[("--public-url", "https://other.example".to_owned())]).await;
    let mut client = anna.client.clone();
    client.server = other.address;
    client.get("/v1/me").await.expect_problem(401, "token_invalid");
    other.stop().await;
    bank.close().await;
}
