//! API keys: issued by two, shown once, used for a while beside the old one, which is then revoked safely.

use domain::ids::{KeyId, PartnerId};
use domain::seal::Place;
use serde_json::{Value, json};
use testkit::fixtures::{self, PartnerRow};

use crate::colleagues::{Staff, actions, agree, bytes, neutral, text, why};
use crate::harness::{Answer, Bank, Somebody};

async fn issue(by: &Somebody, partner: PartnerId, key: &str, scopes: &[&str]) -> Answer {
    let body = json!({"scopes": scopes, "reason": "the tills"});
    by.client.ask(&format!("/v1/partners/{partner}/keys"), key, body).await
}

/// The id of the key that was asked for.
fn key_of(asked: &Answer) -> KeyId {
    text(&asked.json()["action"]["partner"]["issue_key"], "key").parse().unwrap()
}

async fn keys(by: &Somebody, partner: PartnerId) -> Vec<Value> {
    let listed = by.client.get(&format!("/v1/partners/{partner}/keys")).await.expect(200).json();
    listed["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_issued_by_two_and_shown_once_to_who_asked() {
    let bank = Bank::new("admin-keys").await;
    let staff = Staff::of(&bank).await;
    let Staff { ada, bea, otto, audrey } = &staff;
    let partner = fixtures::insert_partner(bank.env.pool(), PartnerRow::default()).await;
    issue(otto, partner, "k", &["payments"]).await.expect_problem(403, "role_missing");
    let asked = issue(ada, partner, "k", &["refunds", "payments", "payments"]).await.expect(202);
    let id = key_of(&asked);
    assert_eq!(asked.json()["action"]["partner"]["issue_key"]["scopes"], json!(["payments", "refunds"]));
    assert!(keys(audrey, partner).await.is_empty(), "asking makes nothing");
    let secret = format!("/v1/partners/{partner}/keys/{id}/secret");
    ada.client.post(&secret, why("hand over")).await.expect_problem(404, "not_found");
    agree(ada, &asked).await.expect_problem(403, "second_person_needed");
    // Agreed to twice at once, by two sessions of one: one key.
    let (one, two) = tokio::join!(agree(bea, &asked), agree(bea, &asked));
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!((bank.count("api_keys").await, actions(&bank, "api_key.issue").await), (1, 1));
    let listed = keys(audrey, partner).await;
    insta::assert_json_snapshot!("key", neutral(listed[0].clone(), &["id", "created_at"]));

    for other in [bea, otto, audrey] {
        let refused = other.client.post(&secret, why("hand over")).await;
        assert!([403, 409].contains(&refused.status) && !refused.body.contains("secret\":"), "{refused:?}");
    }
    // Asked for twice at once: shown once.
    let (one, two) =
        tokio::join!(ada.client.post(&secret, why("hand over")), ada.client.post(&secret, why("hand over")));
    let mut answers = [one, two];
    answers.sort_by_key(|answer| answer.status);
    assert_eq!([answers[0].status, answers[1].status], [200, 409]);
    let shown = answers[0].json();
    assert_eq!(text(&shown, "id"), id.to_string());
    ada.client.post(&secret, why("hand over")).await.expect_problem(409, "conflict");
    assert_eq!(actions(&bank, "api_key.show_secret").await, 1);
    assert_eq!(keys(audrey, partner).await[0]["secret_waits"], false);
    // It is the very secret that ingest opens, and stands nowhere else.
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT secret_sealed FROM api_keys").fetch_one(bank.env.pool()).await.unwrap();
    let uuid = id.uuid();
    let place = Place { table: "api_keys", column: "secret_sealed", row: uuid.as_bytes() };
    let opened = bank.keys.partners.keys.open(&sealed, &place).unwrap();
    use base64::Engine as _;
    assert_eq!(text(&shown, "secret"), base64::engine::general_purpose::STANDARD.encode(&opened[..]));
    let told: i64 = bank.count(&format!("audit_log WHERE detail LIKE '%{}%'", text(&shown, "secret"))).await;
    assert_eq!(told, 0);
    // A secret that nobody fetched for a day is nobody's any more.
    let asked = issue(ada, partner, "late", &["payments"]).await.expect(202);
    agree(bea, &asked).await.expect(200);
    bank.sql("UPDATE api_keys SET created_at = created_at - INTERVAL 25 HOUR").await;
    let late = format!("/v1/partners/{partner}/keys/{}/secret", key_of(&asked));
    ada.client.post(&late, why("hand over")).await.expect_problem(409, "conflict");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_without_anybody_noticing() {
    let bank = Bank::new("admin-key-rotation").await;
    let staff = Staff::of(&bank).await;
    let Staff { ada, bea, audrey, .. } = &staff;
    let pool = bank.env.pool();
    let partner = fixtures::insert_partner(pool, PartnerRow::default()).await;
    let (old, _) = fixtures::insert_api_key(pool, &bank.keys.partners.keys, partner, 3).await;
    let used = async |key: KeyId, hours_ago: u32| {
        sqlx::query(
            "INSERT INTO api_key_uses (key_id, last_used_at) VALUES (?, UTC_TIMESTAMP(6) - INTERVAL ? HOUR)
            ON DUPLICATE KEY UPDATE last_used_at = VALUES(last_used_at)",
        )
        .bind(bytes(key.uuid()))
        .bind(hours_ago)
        .execute(pool)
        .await
        .unwrap();
    };
    let verdict = async |key: KeyId| {
        let keys = keys(audrey, partner).await;
        let key = keys.iter().find(|it| it["id"] == key.to_string()).unwrap().clone();
        (text(&key, "verdict"), key["safe_to_revoke"].as_bool().unwrap())
    };
    bank.sql("UPDATE api_keys SET created_at = created_at - INTERVAL 40 DAY").await;
    used(old, 1).await;
    assert_eq!(verdict(old).await, ("in_use".to_owned(), false));
    used(old, 48).await;
    assert_eq!(verdict(old).await, ("no_successor".to_owned(), false));
    let asked = issue(ada, partner, "new", &["payments", "refunds"]).await.expect(202);
    agree(bea, &asked).await.expect(200);
    let new = key_of(&asked);
    assert_eq!(verdict(old).await, ("successor_unused".to_owned(), false));
    used(new, 1).await;
    assert_eq!(verdict(old).await, ("safe".to_owned(), true));
    assert_eq!(verdict(new).await, ("in_use".to_owned(), false));

    // An end in a while, moved, and then at once; it never comes back.
    let path = format!("/v1/partners/{partner}/keys/{old}/revocation");
    let revoke = async |at: Value| ada.client.post(&path, json!({"at": at, "reason": "rotated"})).await;
    revoke(json!("2999-01-01T00:00:00Z")).await.expect_problem(400, "invalid_field");
    revoke(json!("soon")).await.expect_problem(400, "invalid_field");
    let soon: String = sqlx::query_scalar(
        "SELECT CAST(DATE_FORMAT(UTC_TIMESTAMP() + INTERVAL 2 DAY, '%Y-%m-%dT%H:%i:%sZ') AS CHAR)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let ends = revoke(json!(soon)).await.expect(200).json();
    assert_eq!(
        (ends["live"].as_bool(), text(&ends, "revoked_at")),
        (Some(true), soon.replace('Z', ".000000Z"))
    );
    audrey.client.post(&path, why("rotated")).await.expect_problem(403, "role_missing");
    let ended = revoke(Value::Null).await.expect(200).json();
    assert_eq!((ended["live"].as_bool(), text(&ended, "verdict")), (Some(false), "revoked".to_owned()));
    let again = revoke(json!(soon)).await.expect(200).json();
    assert_eq!(again["revoked_at"], ended["revoked_at"], "an end that has come stays");
    revoke(json!("1969-12-31T23:59:59Z")).await.expect_problem(400, "invalid_field");
    assert_eq!(actions(&bank, "api_key.revoke").await, 2);
    // Of another partner there is no such key.
    let other = fixtures::insert_partner(pool, PartnerRow::default()).await;
    let foreign = format!("/v1/partners/{other}/keys/{new}/revocation");
    ada.client.post(&foreign, why("rotated")).await.expect_problem(404, "not_found");
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_keys_are_bounded_also_while_keys_are_revoked_and_issued_at_once() {
    let bank = Bank::new("admin-key-bound").await;
    let staff = Staff::of(&bank).await;
    let Staff { ada, bea, .. } = &staff;
    let pool = bank.env.pool();
    let partner = fixtures::insert_partner(pool, PartnerRow::default()).await;
    let mut first = None;
    for _ in 0..9 {
        let (id, _) = fixtures::insert_api_key(pool, &bank.keys.partners.keys, partner, 1).await;
        first.get_or_insert(id);
    }
    let asked = [
        issue(ada, partner, "1", &["payments"]).await.expect(202),
        issue(ada, partner, "2", &["payments"]).await.expect(202),
    ];
    let live = "api_keys WHERE revoked_at IS NULL OR revoked_at > UTC_TIMESTAMP(6)";
    let (one, two) = tokio::join!(agree(bea, &asked[0]), agree(bea, &asked[1]));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!((statuses, bank.count(live).await), ([200, 409], 10));
    issue(ada, partner, "3", &["payments"]).await.expect_problem(409, "conflict");
    // One is revoked while the one that was refused is agreed to again: it fits or not, and never is one too many.
    let path = format!("/v1/partners/{partner}/keys/{}/revocation", first.unwrap());
    let asked = if one.status == 409 { &asked[0] } else { &asked[1] };
    let (revoked, agreed) = tokio::join!(ada.client.post(&path, why("rotated")), agree(bea, asked));
    revoked.expect(200);
    let expected = if agreed.status == 200 { 10 } else { 9 };
    assert_eq!(bank.count(live).await, expected, "{agreed:?}");
    bank.close().await;
}
