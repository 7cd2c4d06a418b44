//! Staff look for payments and follow their lives. Rows are put where the processor would have left them; a trace of
//! what the real programs do is told by the whole-system tests.

use std::collections::BTreeSet;

use admin_api::store::payment_list::{self, Filters, Of};
use domain::ids::{EndpointId, MandateId, PartnerId, event_id, payment_id};
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::topic::Source;
use runtime::sql::Sql;
use serde_json::Value;
use testkit::fixtures;
use uuid::Uuid;

use crate::books::{Books, Row};
use crate::harness::{Bank, Client};

async fn ids(client: &Client, query: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/payments?{query}{cursor}")).await.expect(200).json();
        found.extend(page["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn newest_first(rows: &[Row], fits: impl Fn(&Row) -> bool) -> Vec<String> {
    let mut rows: Vec<_> = rows.iter().filter(|row| fits(row)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.accepted_at, row.source, row.partition, row.offset)));
    rows.iter().map(|row| row.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_found_by_what_staff_know_of_them() {
    let bank = Bank::new("admin-payments").await;
    let pool = bank.env.pool();
    let client = bank.staff("otto@example.com", 2).await.client;
    let books = Books { pool };
    let mut partners = Vec::new();
    for _ in 0..2 {
        partners.push(fixtures::insert_partner(pool, fixtures::PartnerRow::default()).await);
    }
    let mandate = MandateId::from_uuid(Uuid::now_v7());
    let mut sql = Sql::new();
    sql.text("INSERT INTO mandates (id, partner_id, kind, status, version, currency, spent_day, spent_minor, granted_at) ");
    sql.text("VALUES (")
        .uuid(mandate.uuid())
        .text(",")
        .uuid(partners[0].uuid())
        .text(", 2, 1, 1, 'EUR', 0, 0, '2026-01-01')");
    books.run(&sql).await;
    let ((_, anna), shop) = (books.customer().await, books.cash().await);
    let mut rows = Vec::new();
    for index in 0..60_u64 {
        let mut row =
            Row::new(index / 3 * 2, &format!("2026-11-0{}T12:00:{:02}Z", 1 + index / 10, index % 10));
        (row.source, row.partition) =
            if index % 3 == 0 { (Source::Bank, 1) } else { (Source::Partner, (index % 3) as u16) };
        row.partner = (row.source == Source::Partner).then(|| partners[index as usize % 2]);
        row.mandate = row.partner.filter(|partner| *partner == partners[0]).map(|_| mandate);
        row.reference = Some(format!("order-{}", index % 4));
        row.kind = if row.source == Source::Bank { PaymentKind::Deposit } else { PaymentKind::Payment };
        if index % 5 == 0 {
            (row.status, row.reason) = (PaymentStatus::Rejected, Some(Reason::InsufficientFunds));
        } else {
            (row.debit, row.credit, row.moved) = (Some(anna), Some(shop), true);
        }
        if let Some(partner) = row.partner {
            row.idempotency_key = Some(format!("key {index}"));
            row.id = payment_id(partner, &format!("key {index}"));
            row.root = row.id;
        }
        books.insert(&row).await;
        rows.push(row);
    }
    let (one, two) = (partners[0], partners[1]);
    let rejected = |row: &Row| row.status == PaymentStatus::Rejected;
    let of = |partner: PartnerId| move |row: &Row| row.partner == Some(partner);
    for limit in [7, 60] {
        let list = async |query: &str| ids(&client, &format!("limit={limit}&{query}")).await;
        assert_eq!(list("").await, newest_first(&rows, |_| true));
        assert_eq!(list("status=rejected").await, newest_first(&rows, rejected));
        assert_eq!(
            list("kind=deposit,refund").await,
            newest_first(&rows, |row| row.kind == PaymentKind::Deposit)
        );
        let window = "from=2026-11-02T12:00:03Z&to=2026-11-05T12:00:07Z";
        let within = |row: &Row| {
            let at = row.accepted_at.to_string();
            ("2026-11-02T12:00:03".."2026-11-05T12:00:07").contains(&at.as_str())
        };
        assert_eq!(list(window).await, newest_first(&rows, within));
        assert_eq!(
            list(&format!("{window}&partner={one}")).await,
            newest_first(&rows, |it| of(one)(it) && within(it))
        );
        assert_eq!(
            list(&format!("partner={two}&status=rejected")).await,
            newest_first(&rows, |it| of(two)(it) && rejected(it))
        );
        assert_eq!(list(&format!("mandate={mandate}")).await, newest_first(&rows, of(one)));
        let reference = |row: &Row| row.reference.as_deref() == Some("order-2");
        let query = format!("partner={two}&reference=order-2");
        assert_eq!(list(&query).await, newest_first(&rows, |it| of(two)(it) && reference(it)));
        let query = format!("mandate={mandate}&reference=order-2");
        assert_eq!(list(&query).await, newest_first(&rows, |it| of(one)(it) && reference(it)));
        let moved: BTreeSet<_> = newest_first(&rows, |row| row.moved).into_iter().collect();
        let listed = list(&format!("account={anna}")).await;
        assert_eq!(listed.len(), moved.len());
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), moved);
        let query = format!("account={shop}&partner={one}&kind=payment&{window}");
        let listed: BTreeSet<_> = list(&query).await.into_iter().collect();
        let expected = newest_first(&rows, |it| it.moved && of(one)(it) && within(it));
        assert_eq!(listed, expected.into_iter().collect());
    }
    assert_eq!(
        ids(&client, &format!("partner={one}&idempotency_key=key%202")).await,
        [rows[2].id.to_string()]
    );
    assert_eq!(ids(&client, &format!("partner={two}&idempotency_key=key%202")).await, Vec::<String>::new());
    assert_eq!(ids(&client, &format!("id={}", rows[7].id)).await, [rows[7].id.to_string()]);
    let mut shown = client.get(&format!("/v1/payments/{}", rows[1].id)).await.expect(200).json();
    for (field, word) in [
        ("id", "pay"),
        ("root", "pay"),
        ("partner", "ptr"),
        ("debit_account", "acct"),
        ("credit_account", "acct"),
    ] {
        assert!(shown[field].as_str().unwrap().starts_with(word), "{shown}");
        shown[field] = format!("[{word}]").into();
    }
    shown["request_id"] = "[request]".into();
    insta::assert_json_snapshot!("payment", shown);
    // Another list's cursor, and what no index serves.
    let page = client.get("/v1/payments?limit=5").await.expect(200).json();
    let cursor = page["next"].as_str().unwrap();
    for query in [
        format!("partner={one}&cursor={cursor}"),
        format!("account={anna}&cursor={cursor}"),
        "cursor=%27".into(),
    ] {
        client.get(&format!("/v1/payments?{query}")).await.expect_problem(400, "invalid_cursor");
    }
    for query in [
        "reference=order-1",
        "idempotency_key=a",
        "status=pending",
        "status=lost",
        "kind=",
        "limit=201",
        "partner=usr_00000000000000000000000001",
        "from=9999-12-31T23:59:59Z",
        "id=pay_00000000000000000000000001&kind=payment",
        "color=red",
        "status=posted&status=posted",
        "reference=%27%20OR%201=1",
    ] {
        client.get(&format!("/v1/payments?{query}")).await.expect_problem(400, "malformed_request");
    }
    // However they are asked for, no list reads a table from end to end.
    let filters = Filters {
        statuses: vec![PaymentStatus::Posted],
        from: Some(rows[3].accepted_at),
        ..Filters::default()
    };
    let of_partner = |mandate, reference| Of::Partner { partner: one, mandate, reference };
    for (of, keys) in [
        (of_partner(None, None), vec!["payments_of_partner"]),
        (of_partner(Some(mandate), None), vec!["payments_of_mandate"]),
        (of_partner(None, Some("order-1".to_owned())), vec!["payments_of_reference"]),
        (of_partner(Some(mandate), Some("order-1".to_owned())), vec!["payments_of_mandate"]),
        (Of::Account { account: anna, partner: None }, vec!["PRIMARY", "payments_id"]),
        (Of::Bank, vec!["PRIMARY"; 12]),
    ] {
        let explained = payment_list::explain(pool, &of, &filters).await.unwrap();
        let used: Vec<_> =
            explained.iter().map(|row| row[0].as_str()).filter(|key| !key.is_empty()).collect();
        assert_eq!(used, keys, "{explained:?}");
        for row in explained.iter().filter(|row| !row[0].is_empty()) {
            assert!(
                ["ref", "range", "eq_ref"].contains(&row[1].as_str()) && !row[2].contains("filesort"),
                "{explained:?}"
            );
        }
    }
    bank.close().await;
}

/// What `/v1/trace` finds: as what, and which payments.
async fn found(client: &Client, query: &str) -> (String, Vec<String>) {
    let answer = client.get(&format!("/v1/trace?{query}")).await.expect(200).json();
    let payments: Vec<_> = answer["payments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(answer["trace"].is_object(), payments.len() == 1, "{answer}");
    (answer["found_by"].as_str().unwrap().to_owned(), payments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_found_by_anything_and_its_life_is_told() {
    let bank = Bank::new("admin-trace").await;
    let pool = bank.env.pool();
    let client = bank.staff("otto@example.com", 2).await.client;
    let books = Books { pool };
    let partner = fixtures::insert_partner(pool, fixtures::PartnerRow::default()).await;
    let other = fixtures::insert_partner(pool, fixtures::PartnerRow::default()).await;
    let ((_, anna), shop) = (books.customer().await, books.cash().await);
    // Many commands before and behind, so that a request has to be looked for.
    for offset in 0..200_u64 {
        let seconds = 10 + offset / 4;
        let row = Row {
            partition: 2,
            ..Row::new(offset * 3, &format!("2026-11-01T11:5{}:{:02}Z", seconds / 60, seconds % 60))
        };
        books.insert(&row).await;
    }
    let request_id = {
        // A UUIDv7 of 2026-11-01T12:00:00.500Z.
        let millis = "2026-11-01T12:00:00.5Z".parse::<domain::time::Timestamp>().unwrap().micros() / 1_000;
        Uuid::from_u128((millis as u128) << 80 | 0x7 << 76 | 0x1234 << 64 | 0b10 << 62 | 0x63)
    };
    let payment = Row {
        partition: 2,
        id: payment_id(partner, "till 7"),
        root: payment_id(partner, "till 7"),
        partner: Some(partner),
        idempotency_key: Some("till 7".to_owned()),
        reference: Some("order-4711".to_owned()),
        request_id,
        two_phases: true,
        event_sequence: Some(1),
        debit: Some(anna),
        credit: Some(shop),
        ..Row::new(600, "2026-11-01T12:00:00.503Z")
    };
    books.insert(&payment).await;
    let capture = Row {
        kind: PaymentKind::Capture,
        root: payment.id,
        partner: Some(partner),
        debit: Some(anna),
        credit: Some(shop),
        moved: true,
        event_sequence: Some(2),
        partition: 2,
        ..Row::new(603, "2026-11-01T12:01:00Z")
    };
    books.insert(&capture).await;
    let twin = Row {
        partner: Some(other),
        reference: payment.reference.clone(),
        ..Row::new(1, "2026-11-01T13:00:00Z")
    };
    books.insert(&twin).await;
    let endpoint = EndpointId::from_uuid(Uuid::now_v7());
    let (authorized, captured) = (event_id(partner, 1, 1), event_id(partner, 1, 2));
    let mut sql = Sql::new();
    sql.text("INSERT INTO endpoints (id, partner_id, url, api_version, created_at) VALUES (")
        .uuid(endpoint.uuid());
    sql.text(",").uuid(partner.uuid()).text(", 'https://shop.example/hooks', '2026-11-01', '2026-01-01')");
    books.run(&sql).await;
    for (sequence, kind, id, at) in
        [(1, 7, &payment.id, payment.decided_at), (2, 11, &capture.id, capture.decided_at)]
    {
        let mut sql = Sql::new();
        sql.text("INSERT INTO events (partner_id, sequence, epoch, type, occurred_at, data) VALUES (")
            .uuid(partner.uuid());
        sql.text(",").int(sequence).text(", 1,").int(kind).text(",").datetime(at.civil()).text(",");
        sql.string(&format!(r#"{{"payment":{{"id":"{id}"}}}}"#)).text(")");
        books.run(&sql).await;
    }
    for partner in [partner, other] {
        let mut sql = Sql::new();
        sql.text("INSERT INTO partner_sequences VALUES (").uuid(partner.uuid()).text(", 2, 1)");
        books.run(&sql).await;
    }
    let mut sql = Sql::new();
    sql.text("INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, next_attempt_at, created_at) VALUES (");
    sql.uuid(endpoint.uuid()).text(",").uuid(captured.uuid()).text(",").uuid(partner.uuid());
    sql.text(", 1, 2, '2026-11-01 12:10:00', '2026-11-01 12:01:00.010')");
    books.run(&sql).await;
    for (attempt, at) in [(1, "2026-11-01 12:01:00.010"), (2, "2026-11-01 12:01:05")] {
        let mut sql = Sql::new();
        sql.text("INSERT INTO attempts (endpoint_id, event_id, attempt, started_at, duration_us, status_code, error_class, excerpt) VALUES (");
        sql.uuid(endpoint.uuid()).text(",").uuid(captured.uuid()).text(",").int(attempt).text(",").string(at);
        sql.text(", 12400, 500, 'status', 0x6F68FF)");
        books.run(&sql).await;
    }
    let id = payment.id.to_string();
    let by = |word: &str, id: &str| (word.to_owned(), vec![id.to_owned()]);
    assert_eq!(found(&client, &format!("id={id}")).await, by("payment", &id));
    assert_eq!(found(&client, &format!("id={authorized}")).await, by("event", &id));
    assert_eq!(found(&client, &format!("id={captured}")).await, by("event", &capture.id.to_string()));
    assert_eq!(found(&client, &format!("id={endpoint}/{authorized}")).await, by("delivery", &id));
    assert_eq!(found(&client, &format!("id={request_id}")).await, by("request", &id));
    assert_eq!(found(&client, "id=payments.commands.v1/2/600").await, by("position", &id));
    assert_eq!(found(&client, "id=%20till%207").await, by("idempotency_key", &id));
    assert_eq!(found(&client, &format!("id={anna}&version=1")).await, by("entry", &capture.id.to_string()));
    assert_eq!(found(&client, &format!("id={anna}")).await, by("account", &capture.id.to_string()));
    assert_eq!(found(&client, &format!("id=order-4711&partner={partner}")).await, by("reference", &id));
    assert_eq!(
        found(&client, "id=order-4711").await,
        ("reference".to_owned(), vec![twin.id.to_string(), id.clone()])
    );
    let nothing = |word: &str| (word.to_owned(), Vec::<String>::new());
    assert_eq!(found(&client, &format!("id=till%207&partner={other}")).await, nothing("reference"));
    assert_eq!(found(&client, &format!("id={}", event_id(other, 1, 1))).await, nothing("event"));
    assert_eq!(
        found(&client, &format!("id={}", event_id(partner, 2, 1))).await,
        nothing("event"),
        "another epoch"
    );
    assert_eq!(found(&client, "id=pay_00000000000000000000000001").await, nothing("payment"));
    for unknown in ["mdt", "chg", "acct", "ptr", "usr", "key", "evt"] {
        assert_eq!(
            found(&client, &format!("id={unknown}_00000000000000000000000001")).await.1,
            Vec::<String>::new()
        );
    }
    for odd in [
        "id=%27%20OR%201=1--",
        "id=%00",
        "id=%F0%9F%92%B6",
        &format!("id={}", Uuid::now_v7()),
        "id=partner/9/9",
    ] {
        assert_eq!(found(&client, odd).await.1, Vec::<String>::new(), "{odd}");
    }
    let (empty, long) = ("id=%20".to_owned(), format!("id={}", "x".repeat(256)));
    for wrong in ["", &empty, &long, "id=a&partner=x", "id=a&version=-1"] {
        client.get(&format!("/v1/trace?{wrong}")).await.expect_problem(400, "malformed_request");
    }

    // The capture's trace is that of its payment.
    let trace = client.get(&format!("/v1/payments/{id}/trace")).await.expect(200).json();
    let of_capture = client.get(&format!("/v1/payments/{}/trace", capture.id)).await.expect(200).json();
    assert_eq!(trace, of_capture);
    let text = serde_json::to_string(&trace).unwrap();
    let names = [
        (id.as_str(), "[payment]"),
        (&capture.id.to_string(), "[capture]"),
        (&partner.to_string(), "[partner]"),
        (&anna.to_string(), "[anna]"),
        (&shop.to_string(), "[shop]"),
        (&endpoint.to_string(), "[endpoint]"),
        (&authorized.to_string(), "[authorized]"),
        (&captured.to_string(), "[captured]"),
        (&capture.request_id.to_string(), "[request of the capture]"),
    ];
    let text = names.iter().fold(text, |text, (name, word)| text.replace(name, word));
    let mut trace: Value = serde_json::from_str(&text).unwrap();
    // The id of the capture's request was drawn when this test ran.
    for field in ["received_at", "after_ms"] {
        trace["follow_ups"][0]["request"][field] = "[now]".into();
    }
    for total in ["/total_ms", "/follow_ups/0/total_ms"] {
        *trace.pointer_mut(total).unwrap() = "[until now]".into();
    }
    insta::assert_json_snapshot!("trace", trace);

    // Under review: a trace without a decision.
    let envelope = fixtures::payment(
        partner,
        domain::ids::KeyId::from_uuid(Uuid::from_u128(7)),
        "till 8",
        MandateId::from_uuid(Uuid::from_u128(8)),
        100,
        domain::money::Currency::EUR,
    );
    books.dead_letter(Source::Partner, 5, 0, envelope.id.uuid()).await;
    sqlx::query("UPDATE dead_letters SET record_value = ?")
        .bind(envelope.encode())
        .execute(pool)
        .await
        .unwrap();
    let trace = client.get(&format!("/v1/payments/{}/trace", envelope.id)).await.expect(200).json();
    assert_eq!(trace["payment"]["decision"], Value::Null);
    assert_eq!(trace["payment"]["payment"]["status"], "pending");
    assert_eq!(trace["payment"]["payment"]["amount"], "1.00");
    assert_eq!(trace["dead_letters"][0]["status"], "open");
    assert_eq!(found(&client, "id=till%208").await.1, Vec::<String>::new(), "not decided yet");
    assert_eq!(found(&client, &format!("id={}", envelope.id)).await, by("payment", &envelope.id.to_string()));
    bank.close().await;
}
