//! Personal data: sealed, masked, shown for a reason, exported, erased; and the audit of all of it.

use std::sync::{Mutex, OnceLock};

use serde_json::{Value, json};
use sqlx::{Column as _, Row as _};
use testkit::{fixtures, wait_until};

use crate::harness::{Bank, LONG, uuid_of};

/// Everything that the database holds, as text: bytes as they are, and in hexadecimal.
async fn dump(bank: &Bank) -> String {
    let tables =
        ["users", "sessions", "refresh_tokens", "link_tokens", "recovery_codes", "mails", "audit_log"];
    let mut all = String::new();
    for table in tables {
        let rows = sqlx::query(&format!("SELECT * FROM {table}")).fetch_all(bank.env.pool()).await.unwrap();
        for row in rows {
            for column in row.columns() {
                let bytes: Option<Vec<u8>> = row.try_get_unchecked(column.ordinal()).unwrap_or_default();
                all += &String::from_utf8_lossy(&bytes.unwrap_or_default());
                all.push('\n');
            }
        }
    }
    all
}

/// What all tests of this binary log from the first call on, at a level that somebody could set.
fn logs() -> &'static Mutex<Vec<u8>> {
    static LOGS: OnceLock<&'static Mutex<Vec<u8>>> = OnceLock::new();
    LOGS.get_or_init(|| {
        let logs: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
        let writer = move || Logs(logs);
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(writer)
            .with_ansi(false)
            .init();
        logs
    })
}

struct Logs(&'static Mutex<Vec<u8>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_or_secret_stands_in_database_logs_or_metrics() {
    let logs = logs();
    let bank = Bank::new("admin-canary").await;
    let anna = bank.customer("canary.address@example.com").await;
    let change = json!({"name": "Canaryname", "phone": "+43 555 0199 777", "address": "Canarystreet 1"});
    anna.client.send("PATCH", "/v1/me", Some(&change)).await.expect(200);
    anna.client.post("/v1/auth/password-resets", json!({"email": anna.email})).await.expect(202);
    let link = crate::harness::link_token(&bank.mail_to(&anna.email).await);
    let otto = bank.staff("otto@example.com", 2).await;
    let body = json!({"reason": "looking for canaries"});
    otto.client.post(&format!("/v1/users/{}/personal-data", anna.id), body).await.expect(200);
    let dump = dump(&bank).await;
    assert!(
        dump.contains("user.change_profile") && dump.contains("$argon2id$"),
        "the dump holds what it should"
    );
    let secrets = [
        "canary.address",
        "Canaryname",
        "0199 777",
        "Canarystreet",
        crate::harness::PASSWORD,
        &anna.refresh_token,
        anna.client.token.as_deref().unwrap(),
        &link,
        &otto.secret,
        &otto.recovery_codes[0],
        &otto.recovery_codes[0].replace('-', ""),
    ];
    for secret in secrets {
        assert!(!dump.contains(secret), "{secret} stands in the database");
    }
    // Things that go wrong are told, too, without what they are about.
    let wrong = json!({"email": "canary.address", "name": "Canaryname\u{0}", "phone": "0199 777"});
    anna.client.post("/v1/auth/registrations", wrong).await.expect_problem(400, "invalid_field");
    anna.client.log_in("canary.address@example.com", "Canarystreet!", None).await.expect(401);
    bank.sql("ALTER TABLE users MODIFY COLUMN name_sealed VARBINARY(60) NULL").await;
    let long = json!({"name": "Canaryname ".repeat(9)});
    anna.client.send("PATCH", "/v1/me", Some(&long)).await.expect_problem(500, "internal_error");
    let logs = String::from_utf8_lossy(&logs.lock().unwrap()).into_owned();
    assert!(logs.contains("a request failed on our side"), "the logs hold what they should");
    for secret in secrets {
        assert!(!logs.contains(secret), "{secret} stands in the logs");
    }
    let private = crate::harness::Client { server: bank.service.private, from: String::new(), token: None };
    let metrics = private.get("/metrics").await.body;
    for secret in secrets {
        assert!(!metrics.contains(secret), "{secret} stands in the metrics");
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_see_masks_and_the_rest_for_a_reason() {
    let bank = Bank::new("admin-masks").await;
    let anna = bank.customer("anna@example.com").await;
    anna.client.send("PATCH", "/v1/me", Some(&json!({"phone": "+43 1 234 56 78"}))).await.expect(200);
    let auditor = bank.staff("otto@example.com", 3).await;
    let path = format!("/v1/users/{}", anna.id);
    let mut user = auditor.client.get(&path).await.expect(200).json();
    assert_eq!(user["id"], anna.id.as_str());
    for name in ["id", "created_at"] {
        user[name] = json!(format!("[{name}]"));
    }
    insta::assert_json_snapshot!("user", user);
    let personal = format!("{path}/personal-data");
    for reason in ["", "why", &"x".repeat(301)] {
        auditor
            .client
            .post(&personal, json!({ "reason": reason }))
            .await
            .expect_problem(400, "invalid_field");
    }
    assert_eq!(bank.count("audit_log WHERE action = 'user.read_personal_data'").await, 0);
    let body = json!({"reason": "called about a lost card"});
    let shown = auditor.client.post(&personal, body).await.expect(200).json();
    assert_eq!((&shown["email"], &shown["phone"]), (&json!("anna@example.com"), &json!("+43 1 234 56 78")));
    let (actor, target, detail): (Vec<u8>, Vec<u8>, Vec<u8>) = {
        let row = sqlx::query(
            "SELECT actor_id, target, detail FROM audit_log WHERE action = 'user.read_personal_data'",
        )
        .fetch_one(bank.env.pool())
        .await
        .unwrap();
        (
            row.try_get_unchecked(0).unwrap(),
            row.try_get_unchecked(1).unwrap(),
            row.try_get_unchecked(2).unwrap(),
        )
    };
    assert_eq!((actor, target), (uuid_of(&auditor.id), anna.id.clone().into_bytes()));
    assert_eq!(detail, br#"{"reason":"called about a lost card"}"#);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_searched_and_paged() {
    let bank = Bank::new("admin-search").await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(bank.customer(&format!("c{number}@example.com")).await.id);
    }
    let admin = bank.staff("ada@example.com", 4).await;
    let get = async |query: &str| admin.client.get(&format!("/v1/users?{query}")).await;
    let found = get("email=C3%40example.com").await.expect(200).json();
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    assert_eq!(found["data"][0]["id"], ids[3].as_str());
    assert_eq!(get("email=c9%40example.com").await.expect(200).json(), json!({"data": [], "next": null}));
    let (mut seen, mut query) = (Vec::new(), "role=customer&limit=2".to_owned());
    for _ in 0..3 {
        let page = get(&query).await.expect(200).json();
        let data = page["data"].as_array().unwrap().clone();
        seen.extend(data.iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => query = format!("role=customer&limit=2&cursor={next}"),
            None => break,
        }
        // A newcomer shifts no page.
        bank.customer(&format!("late{}@example.com", seen.len())).await;
    }
    ids.reverse();
    assert_eq!(seen, ids);
    for (query, code) in [
        ("limit=0", "malformed_request"),
        ("limit=201", "malformed_request"),
        ("limit=-1", "malformed_request"),
        ("limit=x", "malformed_request"),
        ("role=root", "malformed_request"),
        ("role=4%20OR%201=1", "malformed_request"),
        ("name=anna", "malformed_request"),
        ("email=x", "malformed_request"),
        ("limit=1&limit=2", "malformed_request"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=%27%20OR%201=1--", "invalid_cursor"),
        ("cursor=", "invalid_cursor"),
    ] {
        let refused = get(query).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{query}");
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_takes_the_data_along_and_is_erased() {
    let bank = Bank::new("admin-erase").await;
    let anna = bank.customer("anna@example.com").await;
    let staff = bank.staff("ada@example.com", 4).await;
    let export = anna.client.post("/v1/me/exports", Value::Null).await.expect(200).json();
    assert_eq!(export["profile"]["email"], "anna@example.com");
    assert_eq!(export["actions"][0]["action"], "user.log_in");
    assert_eq!(export["sessions"].as_array().unwrap().len(), 1);

    let account = "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor, \
         overdraft_minor, spent_day, spent_minor, version, head, entered_at) \
         VALUES (UNHEX('00000000000000000000000000000001'), 1, ?, 'EUR', 1, 0, 0, 0, 0, 0, 0, UNHEX(REPEAT('00', 32)), UTC_TIMESTAMP(6))";
    sqlx::query(account).bind(uuid_of(&anna.id)).execute(bank.env.pool()).await.unwrap();
    anna.client.send("DELETE", "/v1/me", None).await.expect_problem(409, "conflict");
    bank.sql("UPDATE accounts SET status = 3").await;
    anna.client.send("DELETE", "/v1/me", None).await.expect(204);

    anna.client.get("/v1/me").await.expect_problem(401, "token_invalid");
    let log_in = anna.client.log_in(&anna.email, crate::harness::PASSWORD, None).await;
    log_in.expect_problem(401, "credentials_invalid");
    let user = staff.client.get(&format!("/v1/users/{}", anna.id)).await.expect(200).json();
    assert_eq!(
        (&user["status"], &user["email"], &user["name"]),
        (&json!("erased"), &Value::Null, &Value::Null)
    );
    let body = json!({"reason": "looking for the erased"});
    let personal = format!("/v1/users/{}/personal-data", anna.id);
    staff.client.post(&personal, body).await.expect_problem(404, "not_found");
    let kept = "users WHERE status = 4 AND data_key_sealed IS NULL AND email_index IS NULL AND email_sealed IS NULL \
         AND name_sealed IS NULL AND phone_sealed IS NULL AND address_sealed IS NULL AND password_hash IS NULL";
    assert_eq!(bank.count(kept).await, 1);
    // The address is free for somebody new.
    bank.customer("anna@example.com").await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_keys_move_to_a_new_key_while_the_service_runs() {
    let bank = Bank::new("admin-rotate").await;
    let anna = bank.customer("anna@example.com").await;
    let (new, old) = (fixtures::kek(), bank.keys.kek.path().to_str().unwrap().to_owned());
    let file = new.path().to_str().unwrap().to_owned();
    let outdated = async || {
        let sealed: Vec<Vec<u8>> = sqlx::query("SELECT data_key_sealed FROM users")
            .fetch_all(bank.env.pool())
            .await
            .unwrap()
            .iter()
            .map(|row| row.try_get_unchecked(0).unwrap())
            .collect();
        sealed.iter().filter(|sealed| new.keys.is_outdated(sealed)).count()
    };
    assert_eq!(outdated().await, 1);
    let both = [("--personal-data-kek-file", file.clone()), ("--personal-data-older-kek-files", old)];
    let replica = bank.another(&both).await;
    let mut client = anna.client.clone();
    client.server = replica.address;
    client.get("/v1/me").await.expect(200);
    wait_until("all data keys to be sealed anew", LONG, async || outdated().await == 0).await;
    replica.stop().await;
    let replica = bank.another(&[("--personal-data-kek-file", file)]).await;
    client.server = replica.address;
    assert_eq!(client.get("/v1/me").await.expect(200).json()["email"], "anna@example.com");
    // Who has the old key alone can read nothing any more, and says nothing of why.
    let blind = anna.client.get("/v1/me").await.expect_problem(500, "internal_error");
    assert!(!blind.body.contains("key"), "{}", blind.body);
    replica.stop().await;
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_audited_is_not_done() {
    let bank = Bank::new("admin-audit").await;
    let anna = bank.customer("anna@example.com").await;
    bank.sql("RENAME TABLE audit_log TO audit_log_away").await;
    let change = json!({"name": "Nobody saw it"});
    anna.client.send("PATCH", "/v1/me", Some(&change)).await.expect_problem(500, "internal_error");
    anna.client.post("/v1/auth/logout", Value::Null).await.expect_problem(500, "internal_error");
    bank.sql("RENAME TABLE audit_log_away TO audit_log").await;
    assert_eq!(anna.client.get("/v1/me").await.expect(200).json()["name"], "Anna Bell");
    // The service's own user cannot alter what is written.
    let pool = bank.env.service_mysql("admin-api").pool("test", 1).unwrap();
    for text in ["UPDATE audit_log SET outcome = 2", "DELETE FROM audit_log"] {
        let refused = sqlx::query(text).execute(&pool).await.unwrap_err().to_string();
        assert!(refused.contains("denied"), "{refused}");
    }
    pool.close().await;
    bank.close().await;
}
