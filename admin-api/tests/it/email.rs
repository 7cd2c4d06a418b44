//! The change of an e-mail address.

use serde_json::json;

use crate::harness::{Bank, PASSWORD, uuid_of};

fn link_token(mail: &str) -> String {
    let link = mail.split("https://bank.example/confirm-email?token=").nth(1).expect("a link");
    link.split_whitespace().next().unwrap().to_owned()
}

async fn confirm(bank: &Bank, token: &str) -> crate::harness::Answer {
    bank.client().post("/v1/auth/email-confirmations", json!({ "token": token })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_new_mailbox_changes_the_address_and_the_old_one_is_told() {
    let bank = Bank::new("admin-email").await;
    let anna = bank.customer("anna@example.com").await;
    let ask = async |email: &str| anna.client.post("/v1/me/email", json!({ "email": email })).await;
    ask("anna.bell@example.org").await.expect(202);
    let first = bank.mail_to("anna.bell@example.org").await;
    assert!(first.contains("Hello,\r\n") && !first.contains("Anna Bell"), "no name for a stranger: {first}");
    // A newer link makes it worthless.
    ask("Anna.Bell@example.org").await.expect(202);
    let mail = bank.mail_to("Anna.Bell@example.org").await;
    confirm(&bank, &link_token(&first)).await.expect_problem(400, "link_invalid");
    assert_eq!(anna.client.get("/v1/me").await.json()["email"], "anna@example.com", "nothing changed yet");
    // It sets no password, and a link that does changes no address.
    let body = json!({"token": link_token(&mail), "password": "eight loud herons"});
    bank.client().post("/v1/auth/passwords", body).await.expect_problem(400, "link_invalid");
    confirm(&bank, &link_token(&mail)).await.expect(204);
    confirm(&bank, &link_token(&mail)).await.expect_problem(400, "link_invalid");
    assert_eq!(anna.client.get("/v1/me").await.json()["email"], "Anna.Bell@example.org");
    let told = bank.mail_to("anna@example.com").await;
    assert!(told.contains("Your e-mail address was changed") && !told.contains("example.org"), "{told}");
    let client = bank.client();
    client.log_in("anna@example.com", PASSWORD, None).await.expect_problem(401, "credentials_invalid");
    client.log_in("anna.bell@EXAMPLE.org", PASSWORD, None).await.expect(200);
    let actions =
        bank.count("audit_log WHERE action IN ('user.ask_email_change', 'user.change_email')").await;
    assert_eq!(actions, 3);
    // The old address is free.
    bank.customer("anna@example.com").await;
    bank.outbox_is_empty().await;
    assert_eq!((bank.mails_left(), bank.count("link_tokens").await), (0, 0));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_answered_like_any_other_and_its_owner_told() {
    let bank = Bank::new("admin-email-taken").await;
    let (anna, bob) = (bank.customer("anna@example.com").await, bank.customer("bob@example.com").await);
    let ask = async |email: &str| anna.client.post("/v1/me/email", json!({ "email": email })).await;
    let (taken, free) = (ask("bob@example.com").await.expect(202), ask("free@example.com").await.expect(202));
    assert_eq!(taken.body, free.body);
    let mail = bank.mail_to("bob@example.com").await;
    assert!(
        mail.contains("Somebody wanted to use your e-mail address") && !mail.contains("token="),
        "{mail}"
    );
    // Free when the link was made, taken when it is opened.
    let token = link_token(&bank.mail_to("free@example.com").await);
    bank.customer("free@example.com").await;
    confirm(&bank, &token).await.expect_problem(409, "conflict");
    assert_eq!(anna.client.get("/v1/me").await.json()["email"], "anna@example.com");
    // Whoever only registered an address does not keep it from its owner.
    ask("mine@example.com").await.expect(202);
    let token = link_token(&bank.mail_to("mine@example.com").await);
    let body = json!({"email": "mine@example.com", "name": "Mallory"});
    bank.client().post("/v1/auth/registrations", body).await.expect(202);
    bank.mail_to("mine@example.com").await;
    confirm(&bank, &token).await.expect(204);
    assert_eq!(anna.client.get("/v1/me").await.json()["email"], "mine@example.com");
    assert_eq!(bob.client.get("/v1/me").await.json()["email"], "bob@example.com");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_a_fresh_proof_a_good_address_and_a_live_link() {
    let bank = Bank::new("admin-email-bad").await;
    let anna = bank.customer("anna@example.com").await;
    for email in ["", "x", "a@b", "a@b.co\r\nBcc: x@y.z", "\"a\"@b.co", &format!("{}@b.co", "a".repeat(300))]
    {
        let refused = anna.client.post("/v1/me/email", json!({ "email": email })).await;
        refused.expect_problem(400, "invalid_field");
    }
    for token in ["", "x", &"a".repeat(10_000), "4Tn0XhR0pVf0wYb1m2Jd1c3q8rXk9u7s6o5n4v3w2x1"] {
        confirm(&bank, token).await.expect_problem(400, "link_invalid");
    }
    let ask = async || anna.client.post("/v1/me/email", json!({"email": "new@example.com"})).await;
    ask().await.expect(202);
    let token = link_token(&bank.mail_to("new@example.com").await);
    bank.sql("UPDATE link_tokens SET expires_at = UTC_TIMESTAMP(6)").await;
    confirm(&bank, &token).await.expect_problem(400, "link_invalid");
    // Two at once: one wins.
    ask().await.expect(202);
    let token = link_token(&bank.mail_to("new@example.com").await);
    let (one, other) = tokio::join!(confirm(&bank, &token), confirm(&bank, &token));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 400]);
    // Another password makes the link worthless.
    let other = json!({"email": "newer@example.com"});
    anna.client.post("/v1/me/email", other).await.expect(202);
    let token = link_token(&bank.mail_to("newer@example.com").await);
    let body = json!({"current_password": PASSWORD, "new_password": "eight loud herons"});
    anna.client.post("/v1/me/password", body).await.expect(204);
    confirm(&bank, &token).await.expect_problem(400, "link_invalid");
    sqlx::query("UPDATE sessions SET proven_at = proven_at - INTERVAL 6 MINUTE WHERE user_id = ?")
        .bind(uuid_of(&anna.id))
        .execute(bank.env.pool())
        .await
        .unwrap();
    // What this process remembers is two seconds old at most.
    tokio::time::sleep(admin_api::sessions::AGE_MAX).await;
    ask().await.expect_problem(403, "proof_too_old");
    bank.close().await;
}
