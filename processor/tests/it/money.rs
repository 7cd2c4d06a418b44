//! Payments in two phases, refunds and what ends by itself, through Kafka and MySQL.

use domain::account::Owner;
use domain::command::{
    BankCommand, FollowUp, MandateTerms, Part, PartnerCommand, PartnerEnvelope, SandboxMandate, SandboxState,
};
use domain::event::EventType;
use domain::ids::{MandateId, PaymentId, mandate_end_id};
use domain::mandate::MandateKind;
use domain::money::Currency::EUR;
use domain::payment::Metadata;
use domain::topic::Source;
use sqlx::Executor as _;
use testkit::{fixtures, wait_until};

use crate::bank::{Bank, FUNDS_MINOR, PATIENCE, item};

impl Bank {
    /// A payment of the first customer that only reserves.
    pub(crate) fn authorization(&self, key: &str, amount_minor: i64, expires_in_s: u32) -> PartnerEnvelope {
        let mut payment = self.payment(key, amount_minor);
        let PartnerCommand::Payment(command) = &mut payment.command else { unreachable!("a payment") };
        command.expires_in_s = Some(expires_in_s);
        payment
    }

    /// A command on an earlier payment, of a part or of everything.
    pub(crate) fn follow_up(
        &self,
        root: PaymentId,
        key: &str,
        command: fn(FollowUp) -> PartnerCommand,
        amount_minor: Option<i64>,
    ) -> PartnerEnvelope {
        let part = amount_minor.map(|amount_minor| Part { amount_minor, currency: EUR });
        let command =
            command(FollowUp { part, reference: None, description: None, metadata: Metadata::new() });
        PartnerEnvelope { root, command, ..self.payment(key, 1) }
    }

    /// A command on a mandate, by its envelope's id.
    pub(crate) fn on_mandate(&self, id: PaymentId, command: PartnerCommand) -> PartnerEnvelope {
        PartnerEnvelope { id, root: id, command, ..self.payment("mandate", 1) }
    }

    async fn outcome(&self, id: PaymentId) -> (i64, i64) {
        self.decided(id.uuid()).await;
        let hex = id.uuid().simple();
        let status = format!("SELECT CAST(status AS SIGNED) FROM payments WHERE id = 0x{hex}");
        let reason = format!("SELECT CAST(COALESCE(reason, 0) AS SIGNED) FROM payments WHERE id = 0x{hex}");
        (self.number(&status).await, self.number(&reason).await)
    }

    async fn held(&self) -> i64 {
        self.number("SELECT CAST(SUM(held_minor) AS SIGNED) FROM accounts").await
    }

    async fn waits(&self, what: &str, sql: &str, wanted: i64) {
        wait_until(what, PATIENCE, async || self.number(sql).await == wanted).await;
    }
}

pub(crate) fn terms(mandate: MandateId) -> MandateTerms {
    MandateTerms {
        mandate,
        kind: MandateKind::Standing,
        currency: EUR,
        payment_max_minor: None,
        daily_max_minor: None,
        expires_at: None,
        reference: Some("a subscription".to_owned()),
        answer_by: None,
    }
}

const POSTED: (i64, i64) = (2, 0);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_authorised_is_captured_in_part_refunded_and_never_more() {
    let bank = Bank::new("two-phase", 1).await;
    let running = bank.start();
    let root = bank.authorization("a", 10_000, 3_600);
    bank.pay(std::slice::from_ref(&root)).await;
    assert_eq!(bank.outcome(root.id).await, (5, 0));
    assert_eq!((bank.held().await, bank.number("SELECT COUNT(*) FROM holds").await), (10_000, 1));

    let too_much = bank.follow_up(root.id, "c1", PartnerCommand::Capture, Some(10_001));
    let part = bank.follow_up(root.id, "c2", PartnerCommand::Capture, Some(6_000));
    let again = bank.follow_up(root.id, "c3", PartnerCommand::Capture, Some(1));
    let refund = bank.follow_up(root.id, "r1", PartnerCommand::Refund, Some(3_500));
    let above = bank.follow_up(root.id, "r2", PartnerCommand::Refund, Some(2_501));
    let rest = bank.follow_up(root.id, "r3", PartnerCommand::Refund, None);
    let late = bank.follow_up(root.id, "r4", PartnerCommand::Refund, None);
    let void = bank.follow_up(root.id, "v", PartnerCommand::Void, None);
    let all = [&too_much, &part, &again, &refund, &above, &rest, &late, &void].map(Clone::clone);
    bank.pay(&all).await;
    assert_eq!(bank.outcome(too_much.id).await, (3, 26), "amount_exceeds_authorized");
    assert_eq!(bank.outcome(part.id).await, POSTED);
    assert_eq!(bank.outcome(again.id).await, (3, 24), "payment_not_capturable");
    assert_eq!(bank.outcome(refund.id).await, POSTED);
    assert_eq!(bank.outcome(above.id).await, (3, 27), "amount_exceeds_captured");
    assert_eq!(bank.outcome(rest.id).await, POSTED);
    assert_eq!(bank.outcome(late.id).await, (3, 25), "payment_not_refundable");
    assert_eq!(bank.outcome(void.id).await, (3, 29), "payment_not_voidable");
    assert_eq!((bank.held().await, bank.number("SELECT COUNT(*) FROM holds").await), (0, 0));
    let root_row = "SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2 AND captured_minor = 6000 \
                    AND refunded_minor = 6000 AND version = 4";
    assert_eq!(bank.number(root_row).await, 1);
    assert_eq!(bank.number("SELECT COUNT(*) FROM follow_ups").await, 8);
    running.stop().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_nobody_captures_expires_by_itself_and_a_voided_one_does_not() {
    let bank = Bank::new("expiry", 1).await;
    let running = bank.start();
    let (short, voided) = (bank.authorization("short", 500, 1), bank.authorization("voided", 700, 1));
    let void = bank.follow_up(voided.id, "v", PartnerCommand::Void, None);
    bank.pay(&[short.clone(), voided.clone(), void.clone()]).await;
    bank.waits("the hold expires", "SELECT COUNT(*) FROM payments WHERE status = 7", 1).await;
    assert_eq!(bank.outcome(short.id).await, (7, 0));
    assert_eq!(bank.outcome(voided.id).await, (6, 0));
    assert_eq!(bank.outcome(void.id).await, POSTED);
    assert_eq!(bank.held().await, 0);
    let capture = bank.follow_up(short.id, "late", PartnerCommand::Capture, None);
    bank.pay(std::slice::from_ref(&capture)).await;
    assert_eq!(bank.outcome(capture.id).await, (3, 24), "payment_not_capturable");
    // A grant, two authorisations, a void, an expiry, and a capture that came too late.
    let told = bank.announced(6).await;
    let mut types: Vec<_> = told.values().map(|(event, _)| event.event_type).collect();
    types.sort();
    assert_eq!(
        types,
        [
            EventType::MandateActive,
            EventType::PaymentAuthorized,
            EventType::PaymentAuthorized,
            EventType::PaymentVoided,
            EventType::PaymentExpired,
            EventType::CaptureRejected
        ]
    );
    running.stop().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_comes_too_early_leaves_nothing_and_can_come_again() {
    let bank = Bank::new("early", 1).await;
    let running = bank.start();
    let root = bank.authorization("a", 500, 3);
    let expiry = PartnerEnvelope {
        id: domain::ids::expiry_id(root.id),
        command: PartnerCommand::Expire,
        ..root.clone()
    };
    let last = bank.payment("last", 100);
    bank.pay(&[root.clone(), expiry.clone()]).await;
    bank.pay(std::slice::from_ref(&last)).await;
    assert_eq!(bank.outcome(root.id).await, (5, 0), "it was too early");
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 6").await, 0);
    bank.waits("the hold expires later", "SELECT COUNT(*) FROM payments WHERE kind = 6", 1).await;
    assert_eq!(bank.outcome(root.id).await, (7, 0));
    running.stop().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mandates_and_requests_for_them_come_to_their_time() {
    let bank = Bank::new("mandate-expiry", 1).await;
    let account = bank.customers[0].0;
    let running = bank.start();
    // A mandate of a moment.
    let (brief, requested, cancelled) =
        (fixtures::mandate_id(), fixtures::mandate_id(), fixtures::mandate_id());
    let soon = domain::time::Timestamp::from_micros(
        bank.number("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))").await,
    )
    .plus_seconds(2);
    let BankCommand::GrantMandate(mut grant) = fixtures::grant_mandate(brief, bank.partner, account, EUR)
    else {
        unreachable!("a grant")
    };
    grant.expires_at = Some(soon);
    bank.apply(BankCommand::GrantMandate(grant)).await;
    // A request that nobody answers.
    let (request, partner) = (requested.uuid().simple(), bank.partner.uuid().simple());
    bank.execute(&format!(
        "INSERT INTO mandate_requests (id, partner_id, kind, currency, code_hash, answer_by, created_at) VALUES \
         (0x{request}, 0x{partner}, 2, 'EUR', REPEAT('x', 32), UTC_TIMESTAMP(6) + INTERVAL 2 SECOND, UTC_TIMESTAMP(6))"
    ))
    .await;
    // One that the partner gives up, twice.
    let id = mandate_end_id(bank.partner, cancelled, "cancel");
    let cancel = bank.on_mandate(id, PartnerCommand::CancelMandate(terms(cancelled)));
    bank.pay(&[cancel.clone(), cancel]).await;
    bank.waits("both expire", "SELECT COUNT(*) FROM mandates WHERE status = 5", 2).await;
    assert_eq!(bank.number("SELECT COUNT(*) FROM mandates WHERE status = 3 AND account_id IS NULL").await, 1);
    // What has ended cannot be granted any more.
    for ended in [requested, cancelled] {
        let grant = fixtures::grant_mandate(ended, bank.partner, account, EUR);
        let change = bank.send(grant).await;
        bank.decided(change.id).await;
    }
    assert_eq!(bank.number("SELECT COUNT(*) FROM changes WHERE reason = 17").await, 2, "mandate_exists");
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_partner_makes_itself_a_mandate_and_a_live_one_does_not() {
    let bank = Bank::new("sandbox", 1).await;
    let running = bank.start();
    let sandbox = |key: &str, state| {
        let command = PartnerCommand::SandboxMandate(SandboxMandate {
            account: fixtures::account_id(),
            balance_minor: 5_000,
            terms: terms(fixtures::mandate_id()),
            state,
        });
        PartnerEnvelope { command, ..bank.payment(key, 1) }
    };
    let live = sandbox("live", SandboxState::Active);
    bank.pay(std::slice::from_ref(&live)).await;
    bank.waits("it is refused", "SELECT COUNT(*) FROM changes WHERE reason = 34", 1).await;
    // As if it had been a test partner from the beginning.
    bank.execute("UPDATE partners SET livemode = 0").await;
    bank.execute("UPDATE accounts SET livemode = 0 WHERE owner_kind = 2").await;
    let (active, used) = (sandbox("active", SandboxState::Active), sandbox("used", SandboxState::Used));
    bank.pay(&[active.clone(), used.clone()]).await;
    bank.waits("both are made", "SELECT COUNT(*) FROM changes WHERE kind = 'sandbox_mandate'", 3).await;
    let pay = |key: &str, envelope: &PartnerEnvelope, amount| {
        let PartnerCommand::SandboxMandate(made) = &envelope.command else { unreachable!("made above") };
        fixtures::payment(bank.partner, bank.key, key, made.terms.mandate, amount, EUR)
    };
    let (fits, above, spent) = (pay("p1", &active, 5_000), pay("p2", &active, 1), pay("p3", &used, 1));
    bank.pay(std::slice::from_ref(&fits)).await;
    assert_eq!(bank.outcome(fits.id).await, POSTED);
    bank.pay(&[above.clone(), spent.clone()]).await;
    assert_eq!(bank.outcome(above.id).await, (3, 1), "insufficient_funds");
    assert_eq!(bank.outcome(spent.id).await, (3, 12), "mandate_used");
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_settlement_account_is_seen_by_a_processor_that_remembers_the_old_one() {
    let bank = Bank::new("settlement", 1).await;
    let running = bank.start();
    let before = bank.payment("before", 100);
    bank.pay(std::slice::from_ref(&before)).await;
    assert_eq!(bank.outcome(before.id).await, POSTED);
    // Changed behind its back, as another processor does.
    let second = fixtures::account_id();
    bank.apply(fixtures::open_account(second, Owner::Partner(bank.partner), EUR)).await;
    let hex = second.uuid().simple();
    bank.execute(&format!("UPDATE settlement_accounts SET account_id = 0x{hex}")).await;
    let after = bank.payment("after", 250);
    bank.pay(std::slice::from_ref(&after)).await;
    assert_eq!(bank.outcome(after.id).await, POSTED);
    let balance = format!("SELECT balance_minor FROM accounts WHERE id = 0x{hex}");
    assert_eq!(bank.number(&balance).await, 250);
    // By a command as well; the accounts are those of the partner by age.
    let third = fixtures::account_id();
    bank.apply(fixtures::open_account(third, Owner::Partner(bank.partner), EUR)).await;
    let partner = bank.partner;
    bank.apply(BankCommand::SetSettlementAccount { partner, account: third }).await;
    let last = bank.payment("last", 75);
    bank.pay(std::slice::from_ref(&last)).await;
    assert_eq!(bank.outcome(last.id).await, POSTED);
    let balance = format!("SELECT balance_minor FROM accounts WHERE id = 0x{}", third.uuid().simple());
    assert_eq!(bank.number(&balance).await, 75);
    // While another processor is at it: a payment is not credited on the account that is no longer the right one.
    let mut changing = bank.env.pool().begin().await.unwrap();
    let change = format!("UPDATE settlement_accounts SET account_id = 0x{hex}");
    sqlx::raw_sql(&change).execute(&mut *changing).await.unwrap();
    let meanwhile = bank.payment("meanwhile", 33);
    bank.pay(std::slice::from_ref(&meanwhile)).await;
    let waiting = "SELECT COUNT(*) FROM performance_schema.data_locks WHERE object_schema = DATABASE() \
        AND object_name = 'settlement_accounts' AND lock_status = 'WAITING'";
    bank.waits("the payment waits for the change", waiting, 1).await;
    changing.commit().await.unwrap();
    assert_eq!(bank.outcome(meanwhile.id).await, POSTED);
    assert_eq!(bank.number(&balance).await, 75);
    running.stop().await;
    bank.assert_sound().await;
    bank.env.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bank_moves_money_back_and_the_partner_is_told_of_the_whole() {
    let bank = Bank::new("reversal", 1).await;
    let running = bank.start();
    let payment = bank.payment("p", 1_000);
    bank.pay(std::slice::from_ref(&payment)).await;
    assert_eq!(bank.outcome(payment.id).await, POSTED);
    let reversal =
        |part| BankCommand::Reversal(domain::command::Reversal { payment: payment.id, part: part_of(part) });
    bank.apply(reversal(Some(400))).await;
    bank.apply(reversal(Some(601))).await;
    bank.apply(reversal(None)).await;
    let told = bank.announced(4).await;
    let mut reversed: Vec<serde_json::Value> = told
        .values()
        .filter(|(event, _)| event.event_type == EventType::PaymentReversed)
        .map(|(event, _)| serde_json::from_str(event.data.get()).unwrap())
        .collect();
    reversed.sort_by_key(|data| data["payment"]["version"].as_u64());
    let shown: Vec<_> = reversed.iter().map(|data| &data["payment"]).collect();
    assert_eq!(shown.len(), 2, "the one that was too much tells nobody");
    assert_eq!((&shown[0]["amount_refunded"], &shown[0]["version"]), (&"4.00".into(), &2.into()));
    assert_eq!((&shown[1]["amount_refunded"], &shown[1]["version"]), (&"10.00".into(), &3.into()));
    assert_eq!(shown[1]["id"], payment.id.to_string());
    let customer = bank.customers[0].0.uuid().simple();
    let balance = format!("SELECT balance_minor FROM accounts WHERE id = 0x{customer}");
    assert_eq!(bank.number(&balance).await, FUNDS_MINOR);
    running.stop().await;
    bank.env.close().await;
}

fn part_of(amount_minor: Option<i64>) -> Option<Part> {
    amount_minor.map(|amount_minor| Part { amount_minor, currency: EUR })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_largest_payments_is_applied_in_transactions_that_mysql_takes() {
    let bank = Bank::new("large", 3).await;
    // As large as ingest accepts: 43,200 bytes of metadata, which are written twice in hexadecimal. All of them in one
    // text would be above max_allowed_packet.
    let metadata: Metadata =
        (0..20).map(|n| (format!("{}{n:02}", "\u{1F6B2}".repeat(38)), "\u{1F6B2}".repeat(500))).collect();
    let items = (0..420).map(|n| {
        let mut payment = bank.payment_of(n, &format!("large{n}"), 10);
        let PartnerCommand::Payment(command) = &mut payment.command else { unreachable!("a payment") };
        command.metadata.clone_from(&metadata);
        item(Source::Partner, 0, n as i64, &payment.encode())
    });
    let (mut applier, health) = bank.applier();
    applier.apply(items.collect()).await.unwrap();
    assert!(applier.finish().await);
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2").await, 420);
    assert!(health.ready().is_ok(), "{:?}", health.ready());
    bank.assert_sound().await;
    bank.env.close().await;
}

/// Payments name mandates that another transaction is just making, each seen only by the look after the last one's: the
/// ids fall, so a look that waits for one has passed the place of the next.
#[tokio::test(flavor = "multi_thread")]
async fn mandates_that_appear_one_after_the_other_while_payments_name_them_halt_nobody() {
    // An account each, or the next mandate's would be locked already.
    let bank = Bank::new("appearing", 6).await;
    let granted = bank.customers[0].1;
    let mut mandates: Vec<_> = (0..6).map(|_| fixtures::mandate_id()).collect();
    mandates.sort_by(|a, b| b.cmp(a));
    let items = mandates.iter().zip(0..).map(|(mandate, n)| {
        let payment = fixtures::payment(bank.partner, bank.key, &format!("p{n}"), *mandate, 100, EUR);
        item(Source::Partner, 0, n, &payment.encode())
    });
    let items: Vec<_> = items.collect();
    let (mut applier, health) = bank.applier();
    let insert = |n: usize| {
        let (mandate, account) = (mandates[n], bank.customers[n].0);
        format!(
            "INSERT INTO mandates SELECT 0x{}, partner_id, 0x{}, kind, status, version, currency, payment_max_minor, \
             daily_max_minor, spent_day, spent_minor, expires_at, reference, granted_at FROM mandates WHERE id = 0x{}",
            mandate.uuid().simple(),
            account.uuid().simple(),
            granted.uuid().simple()
        )
    };
    // A connection each, since a transaction is still open when the next begins.
    let make = async |n| {
        let mut connection = bank.env.mysql.connect().await.unwrap();
        connection.execute("START TRANSACTION").await.unwrap();
        connection.execute(insert(n).as_str()).await.unwrap();
        connection
    };
    let mut making = make(0).await;
    let applying = tokio::spawn(async move {
        applier.apply(items).await.unwrap();
        assert!(applier.finish().await);
    });
    let waits = "SELECT CAST(COUNT(*) > 0 AS SIGNED) FROM performance_schema.data_locks WHERE OBJECT_SCHEMA = DATABASE() \
                 AND LOCK_STATUS = 'WAITING'";
    for next in 1..mandates.len() {
        bank.waits("the batch waits for a mandate", waits, 1).await;
        let made = make(next).await;
        std::mem::replace(&mut making, made).execute("COMMIT").await.unwrap();
    }
    bank.waits("the batch waits for the last mandate", waits, 1).await;
    making.execute("COMMIT").await.unwrap();
    applying.await.unwrap();
    assert_eq!(bank.number("SELECT COUNT(*) FROM payments WHERE kind = 1 AND status = 2").await, 6);
    assert!(health.ready().is_ok(), "{:?}", health.ready());
    bank.assert_sound().await;
    bank.env.close().await;
}
