//! Lists of payments: filters, cursors, bounds, and the indexes that serve them.

use std::collections::HashSet;

use domain::ids::{MandateId, PartnerId};
use domain::payment::{PaymentKind, PaymentStatus};
use http::Method;
use ingest::store::payment_list::{Filters, explain};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Bench, MANDATE};
use crate::ledger::{Row, at};

/// All ids of a list, following its cursors, and how many pages that took.
async fn walk(bench: &Bench, query: &str) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = bench.get(&format!("/v1/payments?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        ids.extend(
            page["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (ids, pages),
        }
    }
}

fn mandate(number: u128) -> MandateId {
    MandateId::from_uuid(Uuid::from_u128(number))
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_pages_show_each_payment_once_newest_first() {
    let bench = Bench::new("lists").await;
    let pool = bench.env.pool();
    let (other, other_key) = bench.other_partner(0xff).await;
    let mut rows = Vec::new();
    for number in 0..90_u64 {
        let row = Row {
            // A few share an instant, as records of one batch do.
            accepted_at: at(number / 4),
            partition: (number % 3) as u16,
            mandate: (number % 5 == 0).then(|| mandate(7)),
            reference: (number % 3 == 0).then(|| format!("order {}", number % 2)),
            kind: if number % 6 == 1 { PaymentKind::Refund } else { PaymentKind::Payment },
            status: if number % 10 == 3 { PaymentStatus::Rejected } else { PaymentStatus::Posted },
            captured: 0,
            ..Row::posted(bench.partner, number)
        };
        row.insert(pool).await;
        rows.push(row);
    }
    for number in 0..20 {
        let reference = Some("order 0".to_owned());
        let row = Row { mandate: Some(mandate(7)), reference, ..Row::posted(other, 1_000 + number) };
        row.insert(pool).await;
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.accepted_at, row.source, row.partition, row.offset)));
    let expected = |fits: &dyn Fn(&Row) -> bool| -> Vec<String> {
        rows.iter().filter(|row| fits(row)).map(|row| row.id.to_string()).collect()
    };
    let mandate_query = format!("mandate={}", mandate(7));
    let order = |row: &Row, text: &str| row.reference.as_deref() == Some(text);
    let cases: Vec<(String, Vec<String>)> = vec![
        ("limit=200".into(), expected(&|_| true)),
        ("limit=7".into(), expected(&|_| true)),
        ("limit=7&kind=refund".into(), expected(&|row| row.kind == PaymentKind::Refund)),
        ("limit=7&status=rejected".into(), expected(&|row| row.status == PaymentStatus::Rejected)),
        ("status=posted,rejected&kind=payment,refund".into(), expected(&|_| true)),
        (format!("limit=4&{mandate_query}"), expected(&|row| row.mandate.is_some())),
        ("limit=4&reference=order+1".into(), expected(&|row| order(row, "order 1"))),
        (
            format!("limit=2&{mandate_query}&reference=order%200&status=posted"),
            expected(&|row| {
                row.mandate.is_some() && order(row, "order 0") && row.status == PaymentStatus::Posted
            }),
        ),
        (
            format!("limit=9&created_from={}&created_to={}", at(5), at(9)),
            expected(&|row| (at(5)..at(9)).contains(&row.accepted_at)),
        ),
        (format!("created_from={}", at(9_000)), Vec::new()),
        (format!("mandate={MANDATE}"), Vec::new()),
        ("reference=nothing".into(), Vec::new()),
    ];
    for (query, expected) in cases {
        let (ids, pages) = walk(&bench, &query).await;
        assert_eq!(ids, expected, "{query}");
        assert!(pages <= expected.len() / 2 + 1, "{query}: {pages} pages");
    }
    let foreign = bench.request(Method::GET, "/v1/payments?limit=200").with_key(&other_key);
    assert_eq!(foreign.send(bench.address).await.json()["data"].as_array().unwrap().len(), 20);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_neither_skips_nor_doubles_while_rows_arrive_and_change() {
    let bench = Bench::new("stable").await;
    let pool = bench.env.pool();
    let mut there = HashSet::new();
    for number in 0..60 {
        let row = Row { accepted_at: at(number / 20), ..Row::posted(bench.partner, number) };
        row.insert(pool).await;
        there.insert(row.id.to_string());
    }
    let mut seen = Vec::new();
    let (mut cursor, mut offset) = (String::new(), 1_000);
    loop {
        let page = bench.get(&format!("/v1/payments?limit=7{cursor}")).await.json();
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        // Newer ones arrive, and the status of all changes.
        Row { accepted_at: at(offset), ..Row::posted(bench.partner, offset) }.insert(pool).await;
        offset += 1;
        let status = if offset % 2 == 0 { 5 } else { 2 };
        sqlx::query("UPDATE payments SET status = ?").bind(status).execute(pool).await.unwrap();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), there.len(), "none twice");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), there, "none missed");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_a_bounded_number_of_rows() {
    let bench = Bench::new("bounded").await;
    let pool = bench.env.pool();
    let first = Row { status: PaymentStatus::Rejected, captured: 0, ..Row::posted(bench.partner, 0) };
    first.insert(pool).await;
    // Many that do not fit the filter.
    let text = "INSERT INTO payments (source, kafka_partition, kafka_offset, id, root_id, kind, status, version,
        partner_id, currency, amount_minor, captured_minor, refunded_minor, fingerprint, livemode, actor_id,
        request_id, accepted_at, decided_at)
        SELECT source, 1, ?, ?, root_id, kind, 2, version, partner_id, currency, amount_minor, amount_minor, 0,
        fingerprint, livemode, actor_id, request_id, accepted_at + INTERVAL ? SECOND, decided_at
        FROM payments WHERE kafka_partition = 0";
    for number in 0..2_500_u64 {
        let id = Uuid::from_u128(number.into());
        let query = sqlx::query(text).bind(number).bind(id.as_bytes().as_slice()).bind(number + 1);
        query.execute(pool).await.unwrap();
    }
    let page = bench.get("/v1/payments?status=rejected").await.json();
    assert_eq!(page["data"], Value::Array(Vec::new()), "the first page ended early");
    assert!(page["next"].is_string());
    let (ids, pages) = walk(&bench, "status=rejected").await;
    assert_eq!((ids, pages), (vec![first.id.to_string()], 2));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_list_is_a_range_of_its_index() {
    let bench = Bench::new("explain").await;
    let pool = bench.env.pool();
    for number in 0..50 {
        let row = Row {
            mandate: Some(mandate(u128::from(number) % 3)),
            reference: Some(format!("order {}", number % 4)),
            ..Row::posted(bench.partner, number)
        };
        row.insert(pool).await;
    }
    let reference = || Some("order 1".to_owned());
    let kinds = vec![PaymentKind::Payment];
    let cases = [
        ("payments_of_partner", Filters::default()),
        (
            "payments_of_partner",
            Filters { kinds, statuses: vec![PaymentStatus::Posted], ..Filters::default() },
        ),
        ("payments_of_partner", Filters { created_from: Some(at(3)), ..Filters::default() }),
        ("payments_of_mandate", Filters { mandate: Some(mandate(1)), ..Filters::default() }),
        ("payments_of_reference", Filters { reference: reference(), ..Filters::default() }),
        (
            "payments_of_mandate",
            Filters { mandate: Some(mandate(1)), reference: reference(), ..Filters::default() },
        ),
    ];
    let partner: PartnerId = bench.partner;
    for (index, filters) in cases {
        let rows = explain(pool, partner, &filters, None).await.unwrap();
        let [[key, kind, extra]] = rows.as_slice() else { panic!("one table: {rows:?}") };
        assert_eq!(key, index, "{filters:?}");
        assert!(["ref", "range"].contains(&kind.as_str()), "{filters:?}: {kind}");
        assert!(!extra.contains("filesort") && !extra.contains("temporary"), "{filters:?}: {extra}");
        if index == "payments_of_partner" {
            assert!(extra.contains("Using index"), "no row is read for its kind or status: {extra}");
        }
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_queries_are_named() {
    let bench = Bench::new("bad-lists").await;
    let cases = [
        ("limit=0", "invalid_field", "?limit"),
        ("limit=201", "invalid_field", "?limit"),
        ("status=pending", "invalid_field", "?status"),
        ("status=lost", "invalid_field", "?status"),
        ("kind=payments", "invalid_field", "?kind"),
        ("mandate=acct_00000000000000000000000001", "invalid_field", "?mandate"),
        ("created_from=yesterday", "invalid_field", "?created_from"),
        ("created=1", "unknown_field", "?created"),
        ("limit=5&limit=6", "unknown_field", "?limit"),
    ];
    for (query, code, pointer) in cases {
        let answer = bench.get(&format!("/v1/payments?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{query}");
    }
    for number in 0..3 {
        Row::posted(bench.partner, number).insert(bench.env.pool()).await;
    }
    let next = bench.get("/v1/payments?limit=2").await.json()["next"].as_str().unwrap().to_owned();
    let (_, other) = bench.other_partner(0xff).await;
    for query in ["cursor=x".to_owned(), format!("kind=refund&cursor={next}"), format!("cursor={next}A")] {
        assert_eq!(bench.get(&format!("/v1/payments?{query}")).await.code(), "invalid_cursor", "{query}");
    }
    let stolen = bench.request(Method::GET, &format!("/v1/payments?cursor={next}")).with_key(&other);
    assert_eq!(stolen.send(bench.address).await.code(), "invalid_cursor");
    bench.close().await;
}
