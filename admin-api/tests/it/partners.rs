//! Partners: registered by one, activated and suspended by two; applications; return URLs and settlement accounts.

use domain::ids::{AccountId, ApplicationId, EndpointId, EventId, PartnerId};
use domain::seal::Place;
use serde_json::{Value, json};
use testkit::fixtures::{self, PartnerRow};
use uuid::Uuid;

use crate::colleagues::{Staff, actions, agree, bytes, neutral, text, why};
use crate::harness::{Bank, Somebody};

fn cafe() -> Value {
    json!({
        "name": "Café Mozart", "requests_per_second": 20,
        "contact": {"email": "it@cafe-mozart.example", "name": "Wolfgang Amadé", "website": "https://cafe-mozart.example"},
        "reason": "contract of 3 May"
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_is_registered_by_one_and_activated_and_suspended_by_two() {
    let bank = Bank::new("admin-partners").await;
    let staff = Staff::of(&bank).await;
    let Staff { ada, bea, otto, audrey } = &staff;
    let made = otto.client.ask("/v1/partners", "cafe", cafe()).await.expect(201);
    assert_eq!(made.header("etag"), Some("\"1\""));
    let partner = made.json();
    let path = format!("/v1/partners/{}", text(&partner, "id"));
    assert_eq!(made.header("location"), Some(path.as_str()));
    insta::assert_json_snapshot!("partner", neutral(partner.clone(), &["id", "created_at"]));
    // The same key is the same partner, and never another one.
    let again = otto.client.ask("/v1/partners", "cafe", cafe()).await.expect(201).json();
    assert_eq!(again, partner);
    let mut other = cafe();
    other["contact"]["email"] = json!("else@cafe-mozart.example");
    otto.client.ask("/v1/partners", "cafe", other).await.expect_problem(409, "idempotency_conflict");
    assert_eq!((bank.count("partners").await, actions(&bank, "partner.register").await), (1, 1));
    otto.client.post("/v1/partners", cafe()).await.expect_problem(400, "idempotency_key_missing");

    // Sealed in the database, masked on the page, shown for a reason that is written down.
    assert!(!dump(&bank).await.contains("Wolfgang"));
    let contact =
        audrey.client.post(&format!("{path}/contact"), why("their webhooks fail")).await.expect(200);
    insta::assert_json_snapshot!("contact", contact.json());
    let written = "audit_log WHERE action = 'partner.read_contact' AND detail LIKE '%their webhooks fail%'";
    assert_eq!(bank.count(written).await, 1);
    assert!(!dump(&bank).await.contains("Wolfgang"));

    let patch = async |by: &Somebody, tag: Option<&str>, body: Value| {
        let headers: Vec<_> = tag.map(|tag| ("if-match", tag)).into_iter().collect();
        by.client.request("PATCH", &path, &headers, &body).await
    };
    let change = json!({"name": "Café Haydn", "requests_per_second": 30, "reason": "was sold"});
    patch(otto, Some("\"1\""), change.clone()).await.expect_problem(403, "role_missing");
    patch(ada, None, change.clone()).await.expect_problem(428, "precondition_required");
    patch(ada, Some("1"), change.clone()).await.expect_problem(412, "precondition_failed");
    patch(ada, Some("\"2\""), change.clone()).await.expect_problem(412, "precondition_failed");
    // Two at once: one of them has read what is no more.
    let (one, two) =
        tokio::join!(patch(ada, Some("\"1\""), change.clone()), patch(bea, Some("\"1\""), change.clone()));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    let changed = audrey.client.get(&path).await.expect(200);
    assert_eq!(
        (changed.header("etag"), changed.json()["name"].as_str()),
        (Some("\"2\""), Some("Café Haydn"))
    );

    // Activated by two admins, none of whom is an operator, nor both the same.
    let activation = format!("{path}/activation");
    otto.client.ask(&activation, "a", why("signed")).await.expect_problem(403, "role_missing");
    let asked = ada.client.ask(&activation, "a", why("signed")).await.expect(202);
    insta::assert_json_snapshot!(
        "activation_asked",
        neutral(
            asked.json(),
            &["id", "digest", "requester", "requested_at", "expires_at", "partner", "summary"]
        )
    );
    assert_eq!(ada.client.ask(&activation, "a", why("signed")).await.expect(202).json(), asked.json());
    agree(ada, &asked).await.expect_problem(403, "second_person_needed");
    agree(otto, &asked).await.expect_problem(403, "role_missing");
    agree(audrey, &asked).await.expect_problem(403, "role_missing");
    assert_eq!(audrey.client.get(&path).await.json()["status"], "pending");
    agree(bea, &asked).await.expect(200);
    assert_eq!(audrey.client.get(&path).await.json()["status"], "active");
    ada.client.ask(&activation, "b", why("signed")).await.expect_problem(409, "conflict");
    // Asked for again with the same key, it is what was decided.
    assert_eq!(
        ada.client.ask(&activation, "a", why("signed")).await.expect(200).json()["status"],
        "approved"
    );

    // Two suspensions approved at once are one.
    let suspension = format!("{path}/suspension");
    let first = ada.client.ask(&suspension, "s", why("complaints")).await.expect(202);
    let second = bea.client.ask(&suspension, "s", why("complaints")).await.expect(202);
    let (one, two) = tokio::join!(agree(bea, &first), agree(ada, &second));
    // Whoever locks in the other order is told to try again, and then what has happened.
    let settled = [(one, bea, &first), (two, ada, &second)];
    let mut statuses = Vec::new();
    for (mut answer, by, asked) in settled {
        while answer.status == 503 {
            answer = agree(by, asked).await;
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(audrey.client.get(&path).await.json()["status"], "suspended");
    assert_eq!((actions(&bank, "partner.activate").await, actions(&bank, "partner.suspend").await), (1, 1));
    bank.close().await;
}

/// All that this part stores, as text.
async fn dump(bank: &Bank) -> String {
    use sqlx::{Column as _, Row as _};
    let mut all = String::new();
    for table in ["partners", "partner_applications", "approvals", "audit_log", "api_keys"] {
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

/// A contact, sealed as ingest and the service do.
fn contact(bank: &Bank, table: &str, id: Uuid, name: &str) -> Vec<u8> {
    let contact =
        json!({"name": name, "contact_email": "wolf@opera.example", "contact_name": "Wolfgang Amadé"});
    let place = Place { table, column: "contact_sealed", row: id.as_bytes() };
    let mut nonce = [0; 12];
    getrandom::fill(&mut nonce).unwrap();
    bank.keys.partners.keys.seal(contact.to_string().as_bytes(), &place, nonce)
}

/// Somebody applied, as ingest writes it.
async fn application(bank: &Bank, name: &str) -> (ApplicationId, PartnerId) {
    let row = PartnerRow { name: name.to_owned(), livemode: false, ..PartnerRow::default() };
    let partner = fixtures::insert_partner(bank.env.pool(), row).await;
    let id = ApplicationId::from_uuid(Uuid::now_v7());
    sqlx::query(
        "INSERT INTO partner_applications (id, partner_id, status, contact_sealed, created_at)
        VALUES (?, ?, 1, ?, UTC_TIMESTAMP(6))",
    )
    .bind(bytes(id.uuid()))
    .bind(bytes(partner.uuid()))
    .bind(contact(bank, "partner_applications", id.uuid(), name))
    .execute(bank.env.pool())
    .await
    .unwrap();
    (id, partner)
}

/// An account of a partner with 1204.50 EUR, to which its payments are credited.
async fn settlement_account(bank: &Bank, partner: PartnerId) -> AccountId {
    let account = AccountId::from_uuid(Uuid::now_v7());
    for text in [
        "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor,
        overdraft_minor, spent_day, spent_minor, version, head, entered_at)
        VALUES (?, 2, ?, 'EUR', 1, 120450, 0, 0, 0, 0, 1, REPEAT('0', 32), UTC_TIMESTAMP(6))",
        "INSERT INTO settlement_accounts (account_id, partner_id, currency) VALUES (?, ?, 'EUR')",
    ] {
        sqlx::query(text)
            .bind(bytes(account.uuid()))
            .bind(bytes(partner.uuid()))
            .execute(bank.env.pool())
            .await
            .unwrap();
    }
    account
}

/// A partner with one of everything, as ids.
pub(crate) struct Things {
    pub(crate) partner: String,
    pub(crate) application: String,
    pub(crate) account: String,
    pub(crate) key: String,
    pub(crate) endpoint: String,
    pub(crate) event: String,
}

impl Things {
    pub(crate) async fn of(bank: &Bank) -> Self {
        let pool = bank.env.pool();
        let partner = fixtures::insert_partner(pool, PartnerRow::default()).await;
        sqlx::query("UPDATE partners SET contact_sealed = ? WHERE id = ?")
            .bind(contact(bank, "partners", partner.uuid(), "Opera"))
            .bind(bytes(partner.uuid()))
            .execute(pool)
            .await
            .unwrap();
        let (key, _) = fixtures::insert_api_key(pool, &bank.keys.partners.keys, partner, 1).await;
        let (application, _) = application(bank, "Opera").await;
        let account = settlement_account(bank, partner).await;
        let kek = fixtures::kek();
        let url = "https://opera.example/webhooks?token=hidden";
        let (endpoint, _) = fixtures::insert_endpoint(pool, &kek.keys, partner, url, None).await;
        let event = delivery(bank, partner, endpoint, 1).await;
        Self {
            partner: partner.to_string(),
            application: application.to_string(),
            account: account.to_string(),
            key: key.to_string(),
            endpoint: endpoint.to_string(),
            event: event.to_string(),
        }
    }

    /// A path with what belongs to the partner filled in.
    pub(crate) fn fill(&self, path: &str) -> String {
        let path = path.replace("{key}", &self.key).replace("{endpoint}", &self.endpoint);
        path.replace("{event}", &self.event)
    }
}

/// The partner's event of this sequence, whose delivery to the endpoint was given up after one attempt; the later the
/// higher its sequence.
pub(crate) async fn delivery(
    bank: &Bank,
    partner: PartnerId,
    endpoint: EndpointId,
    sequence: u64,
) -> EventId {
    let event = domain::ids::event_id(partner, 1, sequence);
    let pool = bank.env.pool();
    sqlx::query("INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) VALUES (?, ?, 1, 2, '2026-01-31 12:00:00', '{}')")
        .bind(bytes(partner.uuid()))
        .bind(sequence)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, created_at, finished_at)
        VALUES (?, ?, ?, 3, 1, '2026-01-31 12:00:00' + INTERVAL ? SECOND, '2026-02-03 12:00:00')",
    )
    .bind(bytes(endpoint.uuid()))
    .bind(bytes(event.uuid()))
    .bind(bytes(partner.uuid()))
    .bind(sequence / 2)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO attempts (endpoint_id, event_id, attempt, started_at, duration_us, status_code, error_class, excerpt)
        VALUES (?, ?, 1, '2026-01-31 12:00:00', 2140, 503, 'status', CONCAT('down ', 0xff))",
    )
    .bind(bytes(endpoint.uuid()))
    .bind(bytes(event.uuid()))
    .execute(pool)
    .await
    .unwrap();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_application_makes_a_new_live_partner() {
    let bank = Bank::new("admin-applications").await;
    let staff = Staff::of(&bank).await;
    let Staff { ada, bea, otto, audrey } = &staff;
    let (opera, test_partner) = application(&bank, "Opera").await;
    let (declined, _) = application(&bank, "Cinema").await;
    let path = format!("/v1/partner-applications/{opera}");
    let hidden = ["id", "test_partner", "live_partner", "created_at", "decided_at", "decided_by"];
    let listed = audrey.client.get("/v1/partner-applications?status=pending").await.expect(200).json();
    insta::assert_json_snapshot!("applications", neutral(listed, &hidden));
    let contact = otto.client.post(&format!("{path}/contact"), why("to send the contract")).await.expect(200);
    assert_eq!(contact.json()["contact_name"], "Wolfgang Amadé");
    assert_eq!(actions(&bank, "partner.read_contact").await, 1);

    let decline = format!("/v1/partner-applications/{declined}/decline");
    otto.client.post(&decline, why("no answer")).await.expect_problem(403, "role_missing");
    for _ in 0..2 {
        assert_eq!(
            ada.client.post(&decline, why("no answer")).await.expect(200).json()["status"],
            "declined"
        );
    }
    assert_eq!(actions(&bank, "application.decline").await, 1);
    let approval = async |by: &Somebody, id: ApplicationId, key: &str| {
        by.client.ask(&format!("/v1/partner-applications/{id}/approval"), key, why("contract signed")).await
    };
    approval(ada, declined, "late").await.expect_problem(409, "conflict");

    // Both ask, and each agrees to what the other asked for: one partner.
    let (first, second) =
        (approval(ada, opera, "a").await.expect(202), approval(bea, opera, "a").await.expect(202));
    agree(ada, &first).await.expect_problem(403, "second_person_needed");
    let (one, two) = tokio::join!(agree(bea, &first), agree(ada, &second));
    let mut statuses = Vec::new();
    for (mut answer, by, asked) in [(one, bea, &first), (two, ada, &second)] {
        while answer.status == 503 {
            answer = agree(by, asked).await;
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    ada.client.post(&format!("{path}/decline"), why("too late")).await.expect_problem(409, "conflict");
    let decided = audrey.client.get(&path).await.expect(200).json();
    insta::assert_json_snapshot!("application_approved", neutral(decided.clone(), &hidden));
    let live = text(&decided, "live_partner");
    assert_ne!(live, test_partner.to_string());
    let live = audrey.client.get(&format!("/v1/partners/{live}")).await.expect(200).json();
    insta::assert_json_snapshot!("partner_of_application", neutral(live, &["id", "created_at"]));
    let test = audrey.client.get(&format!("/v1/partners/{test_partner}")).await.expect(200).json();
    assert_eq!(
        (&test["livemode"], &test["version"]),
        (&json!(false), &json!(1)),
        "the test row is never flipped"
    );
    assert_eq!(bank.count("partners WHERE livemode = 1").await, 1);
    assert!(!dump(&bank).await.contains("Wolfgang"));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_cut_filtered_and_never_scan() {
    const MANY: u32 = 4_000;
    let bank = Bank::new("admin-ptr-lists").await;
    let audrey = bank.staff("audrey@example.com", 3).await;
    let digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
        UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    // The few that are looked for are the oldest: whoever goes by the order of the list finds them last.
    let fill = format!(
        "INSERT INTO partners (id, name, status, livemode, requests_per_second, created_at)
        SELECT UNHEX(LPAD(HEX(n + 1), 32, '0')), IF(n < 3, CONCAT('Zöld_', n), CONCAT('Shop ', n)), IF(n < 3, 3, 1),
            IF(n < 3, 1, 0), 1, UTC_TIMESTAMP(6)
        FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n FROM {digits} a, {digits} b, {digits} c, {digits} e) numbers
        WHERE n < {MANY}"
    );
    bank.sql(&fill).await;
    bank.sql("ANALYZE TABLE partners").await;
    let names = async |query: &str| {
        let list = audrey.client.get(&format!("/v1/partners?{query}")).await.expect(200).json();
        let data = list["data"].as_array().unwrap();
        data.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let few = ["Zöld_2", "Zöld_1", "Zöld_0"];
    let before = rows_examined(&bank).await;
    for query in [
        "status=pending",
        "livemode=true",
        "status=pending&livemode=true",
        "name=z%C3%B6LD",
        "name=Z%C3%B6ld_&status=pending",
    ] {
        assert_eq!(names(query).await, few, "{query}");
    }
    for nothing in
        ["name=%25", "name=Zxld", "name=Z%C3%B6ld%25", "name=%5C", "status=suspended", "name=x'%20OR%20'1"]
    {
        assert_eq!(names(nothing).await, Vec::<String>::new(), "{nothing}");
    }
    assert_eq!(names("limit=2").await.len(), 2);
    let examined = rows_examined(&bank).await - before;
    assert!(examined < i64::from(MANY), "{examined} rows for a dozen short lists");
    // Every one once, also while others arrive.
    let mut seen = Vec::new();
    let mut target = "/v1/partners?status=pending&limit=1".to_owned();
    loop {
        let page = audrey.client.get(&target).await.expect(200).json();
        seen.push(text(&page["data"][0], "name"));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/partners?status=pending&limit=1&cursor={next}");
        let row = PartnerRow { name: "new".to_owned(), ..PartnerRow::default() };
        fixtures::insert_partner(bank.env.pool(), row).await;
    }
    assert_eq!(seen, few);
    bank.close().await;
}

/// Rows that the service's MySQL user has had examined, as the server counts them.
async fn rows_examined(bank: &Bank) -> i64 {
    let url = bank.env.service_url("admin-api");
    let user = url.split("//").nth(1).unwrap().split(':').next().unwrap().to_owned();
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(SUM_ROWS_EXAMINED), 0) AS SIGNED)
        FROM performance_schema.events_statements_summary_by_account_by_event_name WHERE USER = ?",
    )
    .bind(user)
    .fetch_one(bank.env.pool())
    .await
    .expect("the performance schema is on")
}

#[tokio::test(flavor = "multi_thread")]
async fn return_urls_and_settlement_accounts() {
    let bank = Bank::new("admin-ptr-settings").await;
    let staff = Staff::of(&bank).await;
    let Staff { ada, otto, audrey, .. } = &staff;
    let partner = fixtures::insert_partner(bank.env.pool(), PartnerRow::default()).await;
    let other = fixtures::insert_partner(bank.env.pool(), PartnerRow::default()).await;
    let urls = format!("/v1/partners/{partner}/return-urls");
    let url = |url: &str| json!({"url": url, "reason": "their new shop"});
    audrey.client.post(&urls, url("https://shop.example/")).await.expect_problem(403, "role_missing");
    for _ in 0..2 {
        otto.client.post(&urls, url("https://Shop.example/return")).await.expect(201);
    }
    let added = otto.client.post(&urls, url("https://a.example")).await.expect(201).json();
    assert_eq!(added, json!({"data": ["https://a.example/", "https://shop.example/return"]}));
    assert_eq!(audrey.client.get(&urls).await.expect(200).json(), added);
    assert_eq!(actions(&bank, "return_url.add").await, 2);
    let removals = format!("{urls}/removals");
    otto.client.post(&removals, url("https://b.example/")).await.expect_problem(404, "not_found");
    let left = otto.client.post(&removals, url("https://a.example/")).await.expect(200).json();
    assert_eq!(left, json!({"data": ["https://shop.example/return"]}));
    // As many as ingest looks at, whatever comes at once.
    bank.sql(&format!(
        "INSERT INTO return_urls (partner_id, url) SELECT 0x{}, CONCAT('https://x.example/', n) FROM
        (SELECT ROW_NUMBER() OVER () n FROM information_schema.columns LIMIT 98) numbers",
        partner.uuid().simple()
    ))
    .await;
    let (one, two) = tokio::join!(
        otto.client.post(&urls, url("https://c.example/")),
        ada.client.post(&urls, url("https://d.example/"))
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);

    let accounts = [settlement_account(&bank, partner).await, settlement_account(&bank, other).await];
    let settlement = format!("/v1/partners/{partner}/settlement-accounts");
    let listed = audrey.client.get(&settlement).await.expect(200).json();
    insta::assert_json_snapshot!("settlement_accounts", neutral(listed, &["account"]));
    let set = |account: &AccountId| json!({"account": account, "reason": "second legal person"});
    otto.client.ask(&settlement, "s", set(&accounts[1])).await.expect_problem(400, "invalid_field");
    let asked = otto.client.ask(&settlement, "s", set(&accounts[0])).await.expect(202).json();
    assert_eq!(asked["kind"], "set_settlement_account");
    assert_eq!(asked["action"]["bank"]["set_settlement_account"]["account"], json!(accounts[0]));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_seen_sent_again_and_endpoints_enabled() {
    let bank = Bank::new("admin-ptr-webhooks").await;
    let (otto, audrey) = (bank.staff("otto@example.com", 2).await, bank.staff("audrey@example.com", 3).await);
    let pool = bank.env.pool();
    let partner = fixtures::insert_partner(pool, PartnerRow::default()).await;
    let other = fixtures::insert_partner(pool, PartnerRow::default()).await;
    let kek = fixtures::kek();
    let url = "https://shop.example/webhooks?token=hidden";
    let (endpoint, _) =
        fixtures::insert_endpoint(pool, &kek.keys, partner, url, Some("payment.posted")).await;
    let mut events = Vec::new();
    for sequence in 1..=7 {
        events.push(delivery(&bank, partner, endpoint, sequence).await);
    }
    bank.sql("UPDATE deliveries SET status = 2 WHERE created_at > '2026-01-31 12:00:02'").await;
    let base = format!("/v1/partners/{partner}/endpoints");
    let listed = audrey.client.get(&base).await.expect(200).json();
    insta::assert_json_snapshot!("endpoints", neutral(listed, &["id", "created_at"]));
    // Newest first over all statuses, cut anywhere, each once; several are of the same moment.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{base}/{endpoint}/deliveries?limit=2{cursor}");
        let page = audrey.client.get(&path).await.expect(200).json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|it| it["sequence"].as_u64().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let dead =
        audrey.client.get(&format!("{base}/{endpoint}/deliveries?status=dead")).await.expect(200).json();
    assert_eq!(dead["data"].as_array().unwrap().len(), 5, "{dead}");
    let one = format!("{base}/{endpoint}/deliveries/{}", events[0]);
    let read = audrey.client.get(&one).await.expect(200).json();
    insta::assert_json_snapshot!("delivery", neutral(read, &["event"]));
    for foreign in [
        format!("/v1/partners/{other}/endpoints/{endpoint}/deliveries"),
        format!("/v1/partners/{other}/endpoints/{endpoint}/deliveries/{}", events[0]),
        format!("{base}/ep_00000000000000000000000001/deliveries"),
        format!("{base}/{endpoint}/deliveries/evt_00000000000000000000000001"),
    ] {
        audrey.client.get(&foreign).await.expect_problem(404, "not_found");
    }
    let path = format!("{base}/{endpoint}/deliveries");
    audrey.client.get(&format!("{path}?status=lost")).await.expect_problem(400, "malformed_request");
    audrey.client.get(&format!("{path}?cursor=AAAA")).await.expect_problem(400, "invalid_cursor");

    let resend = async |event: EventId| {
        let path = format!("{base}/{endpoint}/deliveries/{event}/resend");
        otto.client.post(&path, why("was down")).await
    };
    audrey.client.post(&format!("{one}/resend"), why("was down")).await.expect_problem(403, "role_missing");
    // Asked for twice at once, it is sent once.
    let (first, second) = tokio::join!(resend(events[0]), resend(events[0]));
    assert_eq!(first.expect(202).json(), second.expect(202).json());
    let written = (bank.count("replays").await, actions(&bank, "delivery.resend").await);
    assert_eq!(written, (1, 1));
    for event in &events[1..5] {
        resend(*event).await.expect(202);
    }
    resend(events[5]).await.expect_problem(409, "conflict");
    let lost = domain::ids::event_id(partner, 1, 4_711);
    resend(lost).await.expect_problem(404, "not_found");

    sqlx::query(
        "INSERT INTO endpoint_states (endpoint_id, failing_since, disabled_at, disabled_reason, missed_after)
        VALUES (?, '2026-01-26 12:00:00', '2026-01-31 12:00:00', 'failing', 3)",
    )
    .bind(bytes(endpoint.uuid()))
    .execute(pool)
    .await
    .unwrap();
    resend(events[0]).await.expect_problem(409, "conflict");
    let enabling = format!("{base}/{endpoint}/enabling");
    audrey.client.post(&enabling, why("is back")).await.expect_problem(403, "role_missing");
    let version = async || -> u32 {
        sqlx::query_scalar("SELECT version FROM endpoints").fetch_one(bank.env.pool()).await.unwrap()
    };
    let before = version().await;
    for _ in 0..2 {
        let enabled = otto.client.post(&enabling, why("is back")).await.expect(200).json();
        assert_eq!((&enabled["enabled"], &enabled["missed_after"]), (&json!(true), &json!(3)));
    }
    assert_eq!((version().await, actions(&bank, "endpoint.enable").await), (before + 1, 1));
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_what_to_change() {
    let bank = Bank::new("admin-ptr-input").await;
    let ada = bank.staff("ada@example.com", 4).await;
    let partner = fixtures::insert_partner(bank.env.pool(), PartnerRow::default()).await;
    let own = format!("/v1/partners/{partner}");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = cafe();
        change(&mut body);
        body
    };
    let mut number = 0;
    for (method, path, body, status, pointer) in [
        ("POST", "/v1/partners", with(&|it| it["name"] = json!(" ")), 400, "/name"),
        ("POST", "/v1/partners", with(&|it| it["name"] = json!("\u{202e}evil")), 400, "/name"),
        ("POST", "/v1/partners", with(&|it| it["name"] = json!("x".repeat(101))), 400, "/name"),
        (
            "POST",
            "/v1/partners",
            with(&|it| it["requests_per_second"] = json!(0)),
            400,
            "/requests_per_second",
        ),
        (
            "POST",
            "/v1/partners",
            with(&|it| it["requests_per_second"] = json!(1e9)),
            400,
            "/requests_per_second",
        ),
        (
            "POST",
            "/v1/partners",
            with(&|it| it["requests_per_second"] = json!(-1)),
            400,
            "/requests_per_second",
        ),
        (
            "POST",
            "/v1/partners",
            with(&|it| it["contact"]["email"] = json!("a b@c.de")),
            400,
            "/contact/email",
        ),
        (
            "POST",
            "/v1/partners",
            with(&|it| it["contact"]["website"] = json!("javascript:1")),
            400,
            "/contact/website",
        ),
        ("POST", "/v1/partners", with(&|it| it["contact"]["phone"] = json!("1")), 400, "/contact/phone"),
        ("POST", "/v1/partners", with(&|it| it["livemode"] = json!(false)), 400, "/livemode"),
        ("POST", "/v1/partners", with(&|it| it["reason"] = json!("no")), 400, "/reason"),
        ("PATCH", "", json!({"status": "active", "reason": "for fun"}), 400, "/status"),
        ("PATCH", "", json!({"name": "\0", "reason": "for fun"}), 400, "/name"),
        ("POST", "/keys", json!({"scopes": [], "reason": "for fun"}), 400, "/scopes"),
        ("POST", "/keys", json!({"scopes": ["payments", "everything"], "reason": "for fun"}), 400, "/scopes"),
        ("POST", "/keys", json!({"scopes": "payments", "reason": "for fun"}), 400, "/scopes"),
        ("POST", "/activation", json!({"reason": ""}), 400, "/reason"),
        ("POST", "/return-urls", json!({"url": "http://x.example/", "reason": "for fun"}), 400, "/url"),
        (
            "POST",
            "/return-urls",
            json!({"url": "https://169.254.169.254/", "reason": "for fun"}),
            400,
            "/url",
        ),
        ("POST", "/settlement-accounts", json!({"account": "usr_x", "reason": "for fun"}), 400, "/account"),
    ] {
        let path = if path.starts_with("/v1") { path.to_owned() } else { format!("{own}{path}") };
        number += 1;
        let headers = [("idempotency-key", format!("k{number}")), ("if-match", "*".to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = ada.client.request(method, &path, &headers, &body).await;
        let faults = answer.json()["errors"].clone();
        assert_eq!(
            (answer.status, &faults[0]["pointer"]),
            (status, &json!(pointer)),
            "{method} {path} {body} {faults}"
        );
    }
    for (path, status, code) in [
        ("/v1/partners?status=nobody", 400, "malformed_request"),
        ("/v1/partners?livemode=maybe", 400, "malformed_request"),
        ("/v1/partners?sort=name", 400, "malformed_request"),
        ("/v1/partners?limit=0", 400, "malformed_request"),
        ("/v1/partners?limit=201", 400, "malformed_request"),
        ("/v1/partners?cursor=x", 400, "invalid_cursor"),
        ("/v1/partners?cursor=' OR 1=1 --".split(' ').next().unwrap(), 400, "invalid_cursor"),
        ("/v1/partners/ptr_00000000000000000000000001", 404, "not_found"),
        ("/v1/partners/acct_00000000000000000000000001", 404, "not_found"),
        ("/v1/partners/1/keys", 404, "not_found"),
        ("/v1/partners/ptr_00000000000000000000000001/keys", 404, "not_found"),
        ("/v1/partners/ptr_00000000000000000000000001/endpoints", 404, "not_found"),
        ("/v1/partners/ptr_00000000000000000000000001/return-urls", 404, "not_found"),
        ("/v1/partners/ptr_00000000000000000000000001/settlement-accounts", 404, "not_found"),
        ("/v1/partner-applications?status=new", 400, "malformed_request"),
        ("/v1/partner-applications/app_00000000000000000000000001", 404, "not_found"),
    ] {
        ada.client.get(path).await.expect_problem(status, code);
    }
    for path in ["activation", "suspension", "keys", "settlement-accounts"] {
        let path = format!("/v1/partners/ptr_00000000000000000000000001/{path}");
        let body = match path.rsplit('/').next() {
            Some("keys") => json!({"scopes": ["payments"], "reason": "for fun"}),
            Some("settlement-accounts") => {
                json!({"account": "acct_00000000000000000000000001", "reason": "for fun"})
            }
            _ => why("for fun"),
        };
        ada.client.ask(&path, &path, body).await.expect_problem(404, "not_found");
    }
    assert_eq!((bank.count("partners").await, bank.count("approvals").await), (1, 0), "nothing was done");
    bank.close().await;
}
