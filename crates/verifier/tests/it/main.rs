//! The verifier on real MySQL: a whole ledger is found whole, also while it is written; every kind of alteration in
//! every table is found, and the first bad row named.

mod audit;
mod checkpoints;
mod ledger;

use std::path::Path;

use domain::ids::{PaymentId, bank_account_id, derived_uuid, payment_id};
use domain::money::Currency;
use ledger::{Ledger, hex};
use testkit::Env;
use verifier::{Invariant, Report};

async fn verify(env: &Env, state: Option<&Path>) -> Report {
    let pool = env.service_mysql("verifier").pool("verify", 2).unwrap();
    let report = verifier::verify(&pool, state).await.unwrap();
    pool.close().await;
    report
}

#[tokio::test]
async fn a_ledger_with_every_kind_is_whole() {
    let env = Env::new("verifier-kinds").await;
    let mut ledger = Ledger::write(env.pool()).await;
    ledger.write_every_kind().await;
    let whole = verify(&env, None).await;
    assert!(whole.is_whole(), "{:#?}", whole.findings);
    env.close().await;
}

#[tokio::test]
async fn every_alteration_is_found_and_its_row_named() {
    let env = Env::new("verifier").await;
    let ledger = Ledger::write(env.pool()).await;
    // Whoever alters rows by hand can take the checks away first.
    for (table, check) in [
        ("accounts", "accounts_available"),
        ("accounts", "accounts_held"),
        ("payments", "payments_refunded"),
        ("payments", "payments_amount"),
        ("entries", "entries_amount"),
    ] {
        ledger.execute(&format!("ALTER TABLE {table} DROP CHECK {check}")).await;
    }
    ledger.keep().await;
    let whole = verify(&env, None).await;
    assert!(whole.is_whole(), "{:#?}", whole.findings);
    assert_eq!(whole.rows["entries"], 10);
    assert_eq!(whole.rows["payments"], 7);
    assert_eq!(whole.rows["events"], 8);
    // There are no endpoints here; deliveries have a test of their own.
    for invariant in Invariant::ALL.into_iter().filter(|it| *it != Invariant::I10) {
        assert!(whole.checks.contains_key(&invariant), "{invariant:?} is not checked");
    }

    use Invariant::{I1, I2, I3, I4, I6, I7, I8, I9, I11};
    let (customer, settlement) = (hex(ledger.customer.uuid()), hex(ledger.settlement.uuid()));
    let (partner, bank) = (hex(ledger.partner.uuid()), hex(bank_account_id(Currency::EUR).uuid()));
    let (standing, single) = (hex(ledger.standing.uuid()), hex(ledger.single.uuid()));
    let paid = hex(payment_id(ledger.partner, "b").uuid());
    let rejected = hex(payment_id(ledger.partner, "r").uuid());
    let first = hex(payment_id(ledger.partner, "a").uuid());
    let entry = format!("account_id = {customer} AND version = 3");
    let entry_key = format!("{} version 3", ledger.customer);
    let payment_key = payment_id(ledger.partner, "b").to_string();
    let customer_key = ledger.customer.to_string();
    // What is done, which invariant it breaks, and where that is seen.
    let cases: Vec<(String, Invariant, &str, String)> = vec![
        // entries
        (format!("UPDATE entries SET amount_minor = 999 WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("UPDATE entries SET balance_minor = balance_minor + 1 WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("UPDATE entries SET direction = 2 WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("UPDATE entries SET direction = 9 WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("UPDATE entries SET payment_id = {first} WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("UPDATE entries SET entered_at = entered_at + INTERVAL 1 SECOND WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("UPDATE entries SET hash = REPEAT('x', 32) WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("DELETE FROM entries WHERE {entry}"), I11, "entries", entry_key.clone()),
        (format!("DELETE FROM entries WHERE account_id = {customer} AND version = 5"), I11, "accounts", customer_key.clone()),
        (format!("UPDATE entries SET version = 99 WHERE {entry}"), I11, "accounts", customer_key.clone()),
        (
            format!("INSERT INTO entries SELECT account_id, 6, payment_id, direction, amount_minor, balance_minor, entered_at, hash FROM entries WHERE {entry}"),
            I11, "accounts", customer_key.clone(),
        ),
        (
            format!("INSERT INTO entries SELECT {standing}, version, payment_id, direction, amount_minor, balance_minor, entered_at, hash FROM entries WHERE {entry}"),
            I2, "entries", String::new(),
        ),
        // Two entries change places.
        (
            format!("UPDATE entries SET version = 100 WHERE {entry}; UPDATE entries SET version = 3 WHERE account_id = {customer} AND version = 4; UPDATE entries SET version = 4 WHERE account_id = {customer} AND version = 100"),
            I11, "entries", entry_key.clone(),
        ),
        // accounts
        (format!("UPDATE accounts SET balance_minor = balance_minor + 5 WHERE id = {customer}"), I3, "accounts", "EUR".into()),
        (
            format!("UPDATE accounts SET balance_minor = balance_minor + 5 WHERE id = {customer}; UPDATE accounts SET balance_minor = balance_minor - 5 WHERE id = {settlement}"),
            I2, "accounts", String::new(),
        ),
        (format!("UPDATE accounts SET version = version - 1 WHERE id = {customer}"), I11, "accounts", customer_key.clone()),
        (format!("UPDATE accounts SET version = version + 1 WHERE id = {customer}"), I11, "accounts", customer_key.clone()),
        (format!("UPDATE accounts SET head = REPEAT('x', 32) WHERE id = {customer}"), I11, "accounts", customer_key.clone()),
        (format!("UPDATE accounts SET held_minor = 1 WHERE id = {customer}"), I2, "accounts", customer_key.clone()),
        (format!("UPDATE accounts SET held_minor = 1000000 WHERE id = {customer}"), I7, "accounts", customer_key.clone()),
        (format!("UPDATE accounts SET status = 77 WHERE id = {customer}"), I6, "accounts", customer_key.clone()),
        (format!("UPDATE accounts SET owner_kind = 1 WHERE id = {bank}"), I7, "entries", String::new()),
        (format!("UPDATE accounts SET owner_id = {bank} WHERE id = {customer}"), I6, "changes", String::new()),
        (format!("UPDATE accounts SET currency = 'USD' WHERE id = {customer}"), I3, "accounts", "EUR".into()),
        (format!("UPDATE accounts SET entered_at = entered_at + INTERVAL 1 SECOND WHERE id = {customer}"), I2, "accounts", customer_key.clone()),
        (format!("DELETE FROM accounts WHERE id = {customer}"), I3, "accounts", "EUR".into()),
        (
            format!("INSERT INTO accounts SELECT {paid}, owner_kind, owner_id, currency, status, 0, 0, 0, NULL, NULL, 0, 0, 0, REPEAT('\\0', 32), entered_at, livemode FROM accounts WHERE id = {customer}"),
            I4, "accounts", String::new(),
        ),
        (format!("UPDATE settlement_accounts SET account_id = {customer}"), I6, "settlement_accounts", "EUR".into()),
        (format!("INSERT INTO settlement_accounts VALUES ({partner}, 'USD', {settlement})"), I6, "settlement_accounts", "USD".into()),
        // payments
        (format!("UPDATE payments SET amount_minor = 999 WHERE id = {paid}"), I8, "payments", payment_key.clone()),
        (format!("UPDATE payments SET captured_minor = 999 WHERE id = {paid}"), I8, "payments", payment_key.clone()),
        (format!("UPDATE payments SET refunded_minor = 1 WHERE id = {paid}"), I8, "payments", payment_key.clone()),
        (format!("UPDATE payments SET status = 3, reason = 1 WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET status = 2, reason = NULL WHERE id = {rejected}"), I1, "payments", String::new()),
        (format!("UPDATE payments SET status = 1 WHERE id = {paid}"), I6, "payments", payment_key.clone()),
        (format!("UPDATE payments SET status = 88 WHERE id = {paid}"), I6, "payments", payment_key.clone()),
        (format!("UPDATE payments SET reason = NULL WHERE id = {rejected}"), I6, "payments", String::new()),
        (format!("UPDATE payments SET kind = 2 WHERE id = {paid}"), I8, "payments", payment_key.clone()),
        (format!("UPDATE payments SET version = 0 WHERE id = {paid}"), I6, "payments", payment_key.clone()),
        (format!("UPDATE payments SET debit_version = 2 WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET debit_version = 200 WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET credit_version = NULL WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET credit_account = debit_account, credit_version = debit_version WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET currency = 'USD' WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET id = {bank} WHERE id = {paid}"), I4, "payments", String::new()),
        (format!("UPDATE payments SET idempotency_key = 'z' WHERE id = {paid}"), I4, "payments", payment_key.clone()),
        (format!("UPDATE payments SET root_id = {first} WHERE id = {paid}"), I4, "payments", payment_key.clone()),
        (format!("UPDATE payments SET partner_id = {bank} WHERE id = {paid}"), I4, "payments", payment_key.clone()),
        (format!("UPDATE payments SET mandate_id = {bank} WHERE id = {paid}"), I8, "payments", payment_key.clone()),
        (format!("UPDATE payments SET mandate_id = {single} WHERE id = {paid}"), I8, "payments", String::new()),
        ("UPDATE payments SET fingerprint = REPEAT('x', 33) WHERE kind = 3".to_owned(), I4, "payments", String::new()),
        (format!("UPDATE payments SET event_sequence = 3 WHERE id = {paid}"), I9, "events", "sequence 3".into()),
        (format!("UPDATE payments SET event_sequence = 300 WHERE id = {paid}"), I9, "payments", payment_key.clone()),
        (format!("UPDATE payments SET event_sequence = NULL WHERE id = {paid}"), I9, "payments", payment_key.clone()),
        (format!("UPDATE payments SET reference = 'other' WHERE id = {paid}"), I9, "events", String::new()),
        (format!("UPDATE payments SET metadata = '{{}}' WHERE id = {paid}"), I9, "events", String::new()),
        (format!("UPDATE payments SET livemode = 0 WHERE id = {paid}"), I9, "events", String::new()),
        (format!("UPDATE payments SET accepted_at = accepted_at - INTERVAL 1 DAY WHERE id = {paid}"), I9, "events", String::new()),
        (format!("UPDATE payments SET decided_at = decided_at + INTERVAL 1 DAY WHERE id = {paid}"), I1, "payments", payment_key.clone()),
        (format!("UPDATE payments SET kafka_offset = 4000 WHERE id = {paid}"), I4, "positions", "source 1 partition 0".into()),
        (format!("UPDATE payments SET kafka_partition = 40 WHERE id = {paid}"), I4, "payments", "partition 40".into()),
        (format!("DELETE FROM payments WHERE id = {paid}"), I1, "entries", String::new()),
        (format!("DELETE FROM payments WHERE id = {rejected}"), I9, "events", "sequence 7".into()),
        // changes
        ("UPDATE changes SET reason = 250 WHERE kind = 'open_account'".to_owned(), I6, "changes", String::new()),
        ("UPDATE changes SET kind = 'freeze_account' WHERE kind = 'open_account'".to_owned(), I6, "changes", String::new()),
        (format!("UPDATE changes SET target_id = {bank} WHERE target_id = {customer}"), I6, "changes", String::new()),
        ("UPDATE changes SET command = REPLACE(command, 'EUR', 'USD') WHERE kind = 'grant_mandate'".to_owned(), I4, "changes", String::new()),
        ("UPDATE changes SET command = '{}' WHERE kind = 'grant_mandate'".to_owned(), I6, "changes", String::new()),
        ("UPDATE changes SET event_sequence = NULL, partner_id = NULL WHERE event_sequence = 1".to_owned(), I9, "changes", String::new()),
        ("UPDATE changes SET event_sequence = 2 WHERE event_sequence = 1".to_owned(), I9, "events", "sequence 2".into()),
        (format!("UPDATE changes SET id = {paid} WHERE event_sequence = 1"), I4, "changes", String::new()),
        (format!("DELETE FROM changes WHERE target_id = {customer}"), I4, "accounts", customer_key.clone()),
        (format!("DELETE FROM changes WHERE target_id = {standing}"), I4, "mandates", ledger.standing.to_string()),
        // mandates
        (format!("UPDATE mandates SET status = 9 WHERE id = {standing}"), I6, "mandates", ledger.standing.to_string()),
        (format!("UPDATE mandates SET status = 1 WHERE id = {single}"), I8, "mandates", ledger.single.to_string()),
        (format!("UPDATE mandates SET status = 2 WHERE id = {standing}"), I8, "mandates", ledger.standing.to_string()),
        (format!("UPDATE mandates SET spent_minor = 80001 WHERE id = {standing}"), I8, "mandates", ledger.standing.to_string()),
        (format!("UPDATE mandates SET payment_max_minor = 999 WHERE id = {standing}"), I8, "payments", String::new()),
        (format!("UPDATE mandates SET daily_max_minor = NULL WHERE id = {standing}"), I8, "changes", String::new()),
        (format!("UPDATE mandates SET account_id = {settlement} WHERE id = {standing}"), I8, "payments", String::new()),
        (format!("UPDATE mandates SET currency = 'USD' WHERE id = {standing}"), I8, "payments", String::new()),
        (format!("UPDATE mandates SET expires_at = '2020-01-01' WHERE id = {standing}"), I8, "payments", String::new()),
        (format!("DELETE FROM mandates WHERE id = {standing}"), I8, "payments", String::new()),
        (
            format!("INSERT INTO mandates SELECT {paid}, partner_id, account_id, kind, status, version, currency, payment_max_minor, daily_max_minor, spent_day, spent_minor, expires_at, reference, granted_at FROM mandates WHERE id = {standing}"),
            I4, "mandates", String::new(),
        ),
        // events
        ("DELETE FROM events WHERE sequence = 4".to_owned(), I9, "payments", String::new()),
        ("DELETE FROM events WHERE sequence = 8".to_owned(), I9, "partner_sequences", ledger.partner.to_string()),
        ("UPDATE events SET sequence = 40 WHERE sequence = 4".to_owned(), I9, "partner_sequences", String::new()),
        ("UPDATE events SET type = 2 WHERE sequence = 4".to_owned(), I9, "events", "sequence 4".into()),
        ("UPDATE events SET data = REPLACE(data, '10.00', '99.00') WHERE sequence = 4".to_owned(), I9, "events", "sequence 4".into()),
        ("UPDATE events SET data = 'x' WHERE sequence = 1".to_owned(), I9, "events", "sequence 1".into()),
        ("UPDATE events SET occurred_at = occurred_at + INTERVAL 1 SECOND WHERE sequence = 4".to_owned(), I9, "events", "sequence 4".into()),
        ("UPDATE events SET epoch = 2 WHERE sequence = 4".to_owned(), I9, "events", "sequence 4".into()),
        (format!("INSERT INTO events SELECT {bank}, 1, epoch, type, occurred_at, data FROM events WHERE sequence = 4"), I9, "events", String::new()),
        // A forged event at the end, with the sequence raised for it.
        ("INSERT INTO events SELECT partner_id, 9, epoch, type, occurred_at, data FROM events WHERE sequence = 4; UPDATE partner_sequences SET last_sequence = 9".to_owned(), I9, "events", "sequence 9".into()),
        ("UPDATE partner_sequences SET last_sequence = 7".to_owned(), I9, "partner_sequences", String::new()),
        ("UPDATE partner_sequences SET last_sequence = 9".to_owned(), I9, "partner_sequences", String::new()),
        ("DELETE FROM partner_sequences".to_owned(), I9, "events", ledger.partner.to_string()),
        // positions and dead letters
        ("UPDATE positions SET next_offset = 3 WHERE source = 1 AND kafka_partition = 0".to_owned(), I4, "positions", "source 1 partition 0".into()),
        ("UPDATE positions SET announced_offset = 300 WHERE source = 1 AND kafka_partition = 0".to_owned(), I4, "positions", "source 1 partition 0".into()),
        ("UPDATE positions SET record_hash = NULL WHERE source = 1 AND kafka_partition = 0".to_owned(), I4, "positions", "source 1 partition 0".into()),
        (
            "INSERT INTO dead_letters VALUES (1, 0, 1, 1, NULL, NULL, 'undecodable', '', NULL, '', NOW(), NOW(), NULL)".to_owned(),
            I4, "dead_letters", "offset 1".into(),
        ),
        (
            "INSERT INTO dead_letters VALUES (1, 1, 0, 1, NULL, NULL, 'other', '', NULL, '', NOW(), NOW(), NULL)".to_owned(),
            I6, "dead_letters", "partition 1".into(),
        ),
    ];
    let mut missed = Vec::new();
    for (sql, invariant, table, key) in cases {
        ledger.execute(&sql).await;
        let report = verify(&env, None).await;
        let found = report.findings.iter().any(|finding| {
            finding.invariant == invariant && finding.table == table && finding.key.contains(&key)
        });
        if !found {
            missed.push(format!("{sql}: no {invariant:?} at {table} {key}, but {:#?}", report.findings));
        }
        ledger.restore().await;
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let whole = verify(&env, None).await;
    assert!(whole.is_whole(), "{:#?}", whole.findings);
    env.close().await;
}

#[tokio::test]
async fn every_alteration_of_every_kind_is_found_and_its_row_named() {
    use Invariant::{I1, I2, I4, I6, I7, I8, I9};
    let env = Env::new("verifier-altered").await;
    let mut ledger = Ledger::write(env.pool()).await;
    ledger.write_every_kind().await;
    for (table, check) in [
        ("payments", "payments_refunded"),
        ("payments", "payments_amount"),
        ("accounts", "accounts_held"),
        ("accounts", "accounts_available"),
        ("holds", "holds_amount"),
    ] {
        ledger.execute(&format!("ALTER TABLE {table} DROP CHECK {check}")).await;
    }
    ledger.keep().await;
    let partner = ledger.partner;
    let of = |key: &str| hex(payment_id(partner, key).uuid());
    let named = |key: &str| payment_id(partner, key).to_string();
    let derived = |name: &str| hex(derived_uuid(name));
    let (customer, settlement) = (hex(ledger.customer.uuid()), hex(ledger.settlement.uuid()));
    let set = |key: &str, what: &str| format!("UPDATE payments SET {what} WHERE id = {}", of(key));
    let hold = |what: &str| format!("UPDATE holds SET {what} WHERE payment_id = {}", of("waiting"));
    let cases: Vec<(String, Invariant, &str, String)> = vec![
        // The root's status, version and sums against its follow-ups.
        (set("waiting", "status = 2"), I6, "payments", named("waiting")),
        (set("waiting", "status = 6"), I6, "payments", named("waiting")),
        (set("waiting", "version = 2"), I6, "payments", named("waiting")),
        (set("waiting", "captured_minor = 700"), I8, "payments", named("waiting")),
        (set("waiting", "expires_at = NULL"), I6, "payments", named("waiting")),
        (set("waiting", "expires_at = expires_at + INTERVAL 1 DAY"), I2, "holds", named("waiting")),
        (set("waiting", "amount_minor = 701"), I2, "payments", named("waiting")),
        (set("waiting", "debit_account = NULL"), I1, "payments", named("waiting")),
        (set("waiting", "debit_version = 3, credit_version = 3"), I1, "payments", named("waiting")),
        (set("captured", "status = 5"), I6, "payments", named("captured")),
        (set("captured", "version = version + 1"), I6, "payments", named("captured")),
        (set("captured", "captured_minor = 601"), I8, "payments", named("captured")),
        (set("captured", "refunded_minor = 349"), I8, "payments", named("captured")),
        (set("voided", "status = 7"), I6, "payments", named("voided")),
        (set("voided", "status = 5"), I6, "payments", named("voided")),
        (set("expired", "status = 5"), I6, "payments", named("expired")),
        // The follow-ups themselves.
        (set("capture", "amount_minor = 599, captured_minor = 599"), I1, "payments", named("capture")),
        (set("capture", "version = 2"), I6, "payments", named("capture")),
        (set("capture", "captured_minor = 0"), I8, "payments", named("capture")),
        (set("capture", "kind = 7"), I8, "payments", named("captured")),
        (set("capture", "source = 1, accepted_at = accepted_at + INTERVAL 3 DAY"), I8, "payments", named("capture")),
        (set("capture", &format!("root_id = {}", of("voided"))), I4, "payments", named("capture")),
        (set("capture", "status = 3, reason = 26"), I1, "payments", named("capture")),
        (set("refund 1", &format!("partner_id = {customer}")), I8, "payments", named("refund 1")),
        (set("refund 1", "kind = 4"), I6, "payments", named("captured")),
        (set("refund 2", "debit_account = credit_account"), I1, "payments", named("refund 2")),
        (set("refund 2", "id = 0x00112233445566778899aabbccddeeff"), I4, "payments", String::new()),
        (set("reversal", "kafka_offset = 900"), I4, "positions", "source 2 partition 0".into()),
        (set("capture", "kind = 9"), I6, "payments", named("capture")),
        (set("void", "amount_minor = 299"), I8, "payments", named("void")),
        (set("void", "accepted_at = accepted_at - INTERVAL 1 DAY, version = 3"), I6, "payments", named("void")),
        (
            format!("UPDATE payments SET accepted_at = accepted_at - INTERVAL 3 DAY WHERE root_id = {} AND kind = 6", of("expired")),
            I8, "payments", String::new(),
        ),
        (format!("UPDATE payments SET idempotency_key = 'x', id = {} WHERE root_id = {} AND kind = 6", derived("x"), of("expired")), I4, "payments", String::new()),
        (set("too much", "status = 2, reason = NULL"), I1, "payments", named("too much")),
        (set("too late", "reason = NULL"), I6, "payments", named("too late")),
        (set("nobody's", "currency = 'EUR'"), I8, "payments", named("nobody's")),
        (set("nobody's", "reason = 24"), I4, "payments", named("nobody's")),
        // follow_ups, both ways
        (format!("DELETE FROM follow_ups WHERE payment_id = {}", of("capture")), I4, "payments", named("capture")),
        (format!("DELETE FROM follow_ups WHERE payment_id = {}", of("refund 1")), I8, "payments", named("captured")),
        (format!("INSERT INTO follow_ups VALUES ({}, {})", of("a"), of("capture")), I4, "payments", named("a")),
        (format!("INSERT INTO follow_ups VALUES ({}, {})", of("a"), derived("none")), I4, "payments", named("a")),
        (format!("INSERT INTO follow_ups VALUES ({}, {})", derived("none"), of("capture")), I4, "follow_ups", named("capture")),
        // holds
        (format!("DELETE FROM holds WHERE payment_id = {}", of("waiting")), I2, "payments", named("waiting")),
        (hold("amount_minor = 1"), I2, "accounts", ledger.customer.to_string()),
        (hold("kafka_partition = 3"), I2, "holds", named("waiting")),
        (hold(&format!("account_id = {settlement}")), I2, "holds", named("waiting")),
        (hold(&format!("payment_id = {}", of("voided"))), I2, "holds", named("voided")),
        (
            format!("INSERT INTO holds SELECT {}, payment_id, kafka_partition, amount_minor, expires_at FROM holds", derived("none")),
            I2, "holds", String::new(),
        ),
        (format!("UPDATE accounts SET held_minor = 0 WHERE id = {customer}"), I2, "accounts", ledger.customer.to_string()),
        (
            format!("DELETE FROM holds; UPDATE accounts SET held_minor = 0 WHERE id = {customer}; UPDATE payments SET status = 6 WHERE id = {}", of("waiting")),
            I6, "payments", named("waiting"),
        ),
        // transfers and withdrawals
        (set("to other", "told_sequence = NULL"), I9, "payments", named("to other")),
        (set("to other", "told_partner_id = NULL, told_sequence = NULL"), I9, "payments", named("to other")),
        (set("to other", "partner_id = NULL"), I6, "payments", named("to other")),
        (set("to nobody", "credit_account = NULL"), I1, "payments", named("to nobody")),
        (format!("UPDATE payments SET credit_account = {customer} WHERE id = {}", derived("withdrawal")), I8, "payments", String::new()),
        (format!("UPDATE payments SET told_sequence = 1 WHERE id = {}", derived("bank transfer")), I9, "events", "sequence 1".into()),
        // accounts
        ("UPDATE changes SET command = REPLACE(command, '500', '300'), fingerprint = 'x' WHERE kind = 'set_limits'".to_owned(), I7, "entries", String::new()),
        (format!("UPDATE accounts SET livemode = 0 WHERE id = {customer}"), I8, "payments", "pay_".to_owned()),
        (format!("UPDATE accounts SET status = 1 WHERE id = {}", derived("closed")), I6, "changes", String::new()),
        (format!("UPDATE accounts SET status = 3 WHERE id = {customer}"), I6, "accounts", ledger.customer.to_string()),
        (format!("UPDATE accounts SET owner_id = {customer} WHERE id = {}", derived("test account")), I6, "changes", String::new()),
        // mandates that ended without a grant
        (format!("UPDATE mandates SET status = 1 WHERE id = {}", derived("declined")), I8, "mandates", String::new()),
        (format!("UPDATE mandates SET status = 3 WHERE id = {}", derived("declined")), I6, "changes", String::new()),
        (format!("UPDATE mandates SET status = 6 WHERE id = {}", derived("cancelled")), I8, "mandates", String::new()),
        (format!("UPDATE mandates SET payment_max_minor = 2 WHERE id = {}", derived("cancelled")), I8, "changes", String::new()),
        (format!("UPDATE mandates SET account_id = {customer} WHERE id = {}", derived("expired")), I4, "mandates", String::new()),
        (format!("UPDATE mandates SET payment_max_minor = 2 WHERE id = {}", derived("test mandate")), I8, "changes", String::new()),
        ("UPDATE changes SET id = REPEAT('x', 16) WHERE kind = 'cancel_mandate'".to_owned(), I4, "changes", String::new()),
        ("UPDATE changes SET command = REPLACE(command, 'expire_mandate', 'cancel_mandate') WHERE kind = 'expire_mandate'".to_owned(), I6, "changes", String::new()),
        ("UPDATE events SET data = REPLACE(data, 'declined', 'active') WHERE type = 18".to_owned(), I9, "events", String::new()),
        // events
        ("UPDATE events SET data = REPLACE(data, '\"amount_refunded\":\"3.50\"', '\"amount_refunded\":\"3.40\"') WHERE type = 10".to_owned(), I9, "events", String::new()),
        ("UPDATE events SET data = REPLACE(data, 'authorized', 'posted') WHERE type = 7".to_owned(), I9, "events", String::new()),
        ("UPDATE events SET type = 9 WHERE type = 8".to_owned(), I9, "events", String::new()),
        ("UPDATE events SET data = REPLACE(data, 'voided', 'expired') WHERE type = 8".to_owned(), I9, "events", String::new()),
        ("UPDATE events SET data = REPLACE(data, '2.50', '2.60') WHERE type = 4".to_owned(), I9, "events", String::new()),
        // dead letters
        ("UPDATE dead_letters SET change_id = NULL WHERE status = 2".to_owned(), I6, "dead_letters", String::new()),
        ("UPDATE dead_letters SET status = 3 WHERE status = 2".to_owned(), I6, "dead_letters", String::new()),
        ("UPDATE dead_letters SET status = 1, change_id = NULL WHERE status = 2".to_owned(), I4, "dead_letters", String::new()),
        (format!("UPDATE dead_letters SET root_id = {customer} WHERE status = 3"), I6, "dead_letters", String::new()),
        (set("redriven", "amount_minor = 61, captured_minor = 61"), I1, "payments", named("redriven")),
        (set("rejected", "reason = 1"), I4, "payments", named("rejected")),
        (format!("DELETE FROM payments WHERE id = {}", of("redriven")), I1, "entries", String::new()),
        ("DELETE FROM dead_letters WHERE status = 3".to_owned(), I4, "changes", String::new()),
    ];
    let mut missed = Vec::new();
    for (sql, invariant, table, key) in cases {
        ledger.execute(&sql).await;
        let report = verify(&env, None).await;
        let found = report.findings.iter().any(|finding| {
            finding.invariant == invariant && finding.table == table && finding.key.contains(&key)
        });
        if !found {
            missed.push(format!("{sql}: no {invariant:?} at {table} {key}, but {:#?}", report.findings));
        }
        ledger.restore().await;
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let whole = verify(&env, None).await;
    assert!(whole.is_whole(), "{:#?}", whole.findings);
    env.close().await;
}

#[tokio::test]
async fn forged_chains_are_found_by_the_payments() {
    let env = Env::new("verifier-forged").await;
    // An amount that was changed in both entries, with all hashes, balances and heads computed anew.
    let mut ledger = Ledger::write(env.pool()).await;
    let mut paid = Ledger::paid("forged", ledger.standing, 1_000);
    paid.entry_amount = 400;
    ledger.pay(&paid).await;
    let report = verify(&env, None).await;
    let first = report.findings.first().expect("the forgery is found");
    assert_eq!((first.invariant, first.table), (Invariant::I1, "payments"), "{first}");
    assert!(first.key.contains(&payment_id(ledger.partner, "forged").to_string()), "{first}");

    // A posting of no payment, perfect in itself.
    let mut ledger = Ledger::write(env.pool()).await;
    let (accounts, at) = ([ledger.customer, ledger.settlement], ledger.later());
    ledger.post(PaymentId::from_uuid(derived_uuid("nobody")), accounts, 300, at).await;
    let report = verify(&env, None).await;
    let first = report.findings.first().expect("the posting is found");
    assert_eq!((first.invariant, first.table), (Invariant::I1, "entries"), "{first}");
    assert!(accounts.iter().any(|account| first.key.contains(&account.to_string())), "{first}");

    // A second payment under a single-use mandate, perfect in itself.
    let mut ledger = Ledger::write(env.pool()).await;
    let paid = Ledger::paid("again", ledger.single, 500);
    ledger.pay(&paid).await;
    let report = verify(&env, None).await;
    let first = report.findings.first().expect("the second use is found");
    assert_eq!((first.invariant, first.table), (Invariant::I8, "payments"), "{first}");
    env.close().await;
}

#[tokio::test]
async fn a_second_run_reads_only_what_is_new_and_still_finds_what_was_taken_back() {
    let env = Env::new("verifier-resume").await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut ledger = Ledger::write(env.pool()).await;
    let first = verify(&env, Some(&state)).await;
    assert!(first.is_whole() && !first.resumed, "{:#?}", first.findings);

    let second = verify(&env, Some(&state)).await;
    assert!(second.is_whole() && second.resumed, "{:#?}", second.findings);
    assert_eq!(second.rows["payments"], 0);
    assert_eq!(second.rows["changes"], 0);
    assert!(!second.rows.contains_key("events"), "{:?}", second.rows);
    assert_eq!(second.rows["entries"], 3, "the last entry of each account is compared");

    for number in 0..5 {
        let paid = Ledger::paid(&format!("new-{number}"), ledger.standing, 100);
        ledger.pay(&paid).await;
    }
    let third = verify(&env, Some(&state)).await;
    assert!(third.is_whole(), "{:#?}", third.findings);
    assert_eq!((third.rows["payments"], third.rows["events"]), (5, 5));
    assert_eq!(third.rows["entries"], 3 + 10);

    // A single-use mandate that was used before the state was written is remembered.
    let paid = Ledger::paid("again", ledger.single, 500);
    ledger.pay(&paid).await;
    for _ in 0..2 {
        let broken = verify(&env, Some(&state)).await;
        let first = broken.findings.first().expect("found, and found again since the state was not written");
        assert_eq!((first.invariant, first.table), (Invariant::I8, "payments"), "{first}");
    }

    // History taken back: a new ledger under an old state.
    Ledger::write(env.pool()).await;
    let report = verify(&env, Some(&state)).await;
    assert!(report.findings.iter().any(|it| it.table == "accounts" && it.expected.contains("verified")));
    std::fs::write(&state, b"{}").unwrap();
    let pool = env.service_mysql("verifier").pool("verify", 1).unwrap();
    let error = verifier::verify(&pool, Some(&state)).await.unwrap_err().to_string();
    assert!(error.contains("remove it"), "{error}");
    pool.close().await;
    env.close().await;
}

#[tokio::test]
async fn an_event_that_was_passed_over_on_its_way_to_an_endpoint_is_found() {
    let env = Env::new("verifier-deliveries").await;
    let ledger = Ledger::write(env.pool()).await;
    let partner = hex(ledger.partner.uuid());
    // An hour ago, after the endpoint was made; types are those of the small ledger's events 1 to 8.
    ledger
        .execute(&format!(
            "UPDATE events SET occurred_at = UTC_TIMESTAMP(6) - INTERVAL 3600 - sequence SECOND; \
             INSERT INTO endpoints (id, partner_id, url, event_types, api_version, created_at, changed_at) VALUES \
             (REPEAT('a', 16), {partner}, '', NULL, '', NOW(), '2020-01-01'), \
             (REPEAT('b', 16), {partner}, '', 'payment.rejected,mandate.active', '', NOW(), '2020-01-01'), \
             (REPEAT('c', 16), {partner}, '', NULL, '', NOW(), UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE), \
             (REPEAT('d', 16), {partner}, '', NULL, '', NOW(), '2020-01-01'); \
             INSERT INTO endpoint_states (endpoint_id, disabled_at) VALUES (REPEAT('d', 16), NOW())"
        ))
        .await;
    let deliver = |endpoint: char, sequence: u64| {
        let id = hex(domain::ids::event_id(ledger.partner, 1, sequence).uuid());
        format!(
            "INSERT INTO deliveries (endpoint_id, event_id, partner_id, status, attempts, created_at) \
             VALUES (REPEAT('{endpoint}', 16), {id}, {partner}, 2, 1, NOW())"
        )
    };
    let lost = || async {
        let found = verify(&env, None).await.findings;
        let lost = found.into_iter().filter(|it| it.invariant == Invariant::I10);
        lost.map(|it| it.key.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(lost().await.is_empty(), "a notifier that has done nothing yet is behind, no more");
    for sequence in [1, 2, 3, 4, 6, 7] {
        ledger.execute(&deliver('a', sequence)).await;
    }
    // 8 is not dealt with yet; 5 was passed over.
    assert_eq!(lost().await, ["5"]);
    ledger.execute(&deliver('a', 5)).await;
    ledger.execute(&deliver('b', 7)).await;
    // Of 1 to 6 the second endpoint subscribes to the two mandates.
    assert_eq!(lost().await, ["2", "1"]);
    ledger.execute("UPDATE events SET occurred_at = UTC_TIMESTAMP(6) - INTERVAL sequence SECOND").await;
    assert!(lost().await.is_empty(), "what is young may be overtaken");
    env.close().await;
}

#[tokio::test]
async fn an_export_is_verified_with_the_same_findings() {
    let (env, scratch) = (Env::new("verifier-export").await, Env::new("verifier-import").await);
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::write(env.pool()).await;
    ledger.write_every_kind().await;
    // Something to find in three tables, a text that is no ASCII, and a dead letter that is no text.
    ledger.execute("UPDATE entries SET amount_minor = amount_minor + 1 WHERE version = 3").await;
    ledger.execute("UPDATE payments SET reference = 'Café \\'x\\'' WHERE kind = 2").await;
    ledger.execute("UPDATE dead_letters SET record_value = 0x00ff0a27, status = 9 WHERE status = 1").await;
    let live = verify(&env, None).await;
    assert!(live.findings.len() > 3, "{:#?}", live.findings);
    let files = folder.path().join("export");
    let reader = env.service_mysql("verifier").pool("export", 1).unwrap();
    let written = verifier::export(&reader, &files).await.unwrap();
    assert!(verifier::export(&reader, &files).await.is_err(), "an export is never overwritten");
    assert_eq!(verifier::import(scratch.pool(), &files).await.unwrap(), written);
    let loaded = verify(&scratch, None).await;
    assert_eq!((&loaded.findings, &loaded.rows, &loaded.checks), (&live.findings, &live.rows, &live.checks));
    let again = verifier::import(scratch.pool(), &files).await.unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");
    reader.close().await;
    env.close().await;
    scratch.close().await;
}

#[tokio::test]
async fn outcomes_count_every_id_once() {
    let env = Env::new("verifier-outcomes").await;
    let ledger = Ledger::write(env.pool()).await;
    let review = payment_id(ledger.partner, "review");
    let sql = format!(
        "INSERT INTO dead_letters VALUES (1, 1, 0, 1, {}, NULL, 'data_error', '', NULL, '', NOW(), NOW(), NULL)",
        hex(review.uuid())
    );
    ledger.execute(&sql).await;
    let lost = payment_id(ledger.partner, "lost");
    let ids = ["a", "b", "r", "review", "lost"].map(|key| payment_id(ledger.partner, key));
    let outcomes = verifier::outcomes(env.pool(), &ids).await.unwrap();
    assert_eq!((outcomes.posted, outcomes.rejected, outcomes.under_review, outcomes.missing), (2, 1, 1, 1));
    assert_eq!(outcomes.examples, [lost]);
    assert!(!outcomes.is_complete());
    env.close().await;
}

#[tokio::test]
async fn more_than_a_page_of_everything_is_walked_to_its_end() {
    let env = Env::new("verifier-pages").await;
    let mut ledger = Ledger::write(env.pool()).await;
    ledger.fill(1_200, 2_300).await;
    // As for tables that have been there for a while: by these figures MySQL chooses how to read them.
    ledger.execute("ANALYZE TABLE accounts, changes, entries, events, payments").await;
    // MySQL keeps figures of so many different statements only, and other tests had theirs.
    let forget = "TRUNCATE TABLE performance_schema.events_statements_summary_by_digest";
    sqlx::raw_sql(forget).execute(env.pool()).await.unwrap();
    let whole = verify(&env, None).await;
    assert!(whole.is_whole(), "{:#?}", whole.findings);
    assert_eq!(whole.rows["accounts"], 1_203);
    assert_eq!(whole.rows["changes"], 1_205);
    assert_eq!(whole.rows["payments"], 2_307);
    assert_eq!(whole.rows["entries"], 10 + 4_600);
    assert_eq!(whole.rows["events"], 8 + 2_300);
    // However much there is, no statement reads more than its page and what belongs to it.
    let (most, statement): (f64, String) = sqlx::query_as(
        "SELECT CAST(SUM_ROWS_EXAMINED / COUNT_STAR AS DOUBLE), CONVERT(LEFT(DIGEST_TEXT, 200) USING utf8mb4) \
         FROM performance_schema.events_statements_summary_by_digest \
         WHERE SCHEMA_NAME = DATABASE() AND DIGEST_TEXT LIKE 'SELECT%' ORDER BY 1 DESC LIMIT 1",
    )
    .fetch_one(env.pool())
    .await
    .unwrap();
    assert!(most <= 2_000.0, "{most} rows are read by each {statement}");
    for (sql, table) in [
        (
            format!(
                "DELETE FROM entries WHERE account_id = {} AND version = 2200",
                hex(ledger.customer.uuid())
            ),
            "entries",
        ),
        ("DELETE FROM events WHERE sequence = 2250".to_owned(), "events"),
    ] {
        ledger.execute(&sql).await;
        let report = verify(&env, None).await;
        assert!(
            report.findings.iter().any(|finding| finding.table == table),
            "{sql}: {:#?}",
            report.findings
        );
    }
    env.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_at_work_gives_no_false_alarm() {
    let env = Env::new("verifier-live").await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut ledger = Ledger::write(env.pool()).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut written = 0_u64;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            ledger.pay(&Ledger::paid(&format!("live {written}"), ledger.standing, 1)).await;
            ledger.move_money(written).await;
            written += 8;
        }
        written
    });
    for run in 0..40 {
        let report = verify(&env, (run % 2 == 0).then_some(&*state)).await;
        assert!(report.is_whole(), "run {run}: {:#?}", report.findings);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(written > 100, "only {written} payments came between: the bank was not at work");
    let report = verify(&env, Some(&state)).await;
    assert!(report.is_whole(), "{:#?}", report.findings);
    env.close().await;
}
