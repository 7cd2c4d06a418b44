//! Every movement of money that a partner can ask for, through the public API and back.

use std::time::{Duration, Instant};

use client::{Client, MandateRequest, Page, PartRequest, PaymentFilter, PaymentRequest, StatementFilter};
use domain::account::Owner;
use domain::command::SandboxState;
use domain::ids::{PartnerId, PaymentId};
use domain::mandate::{MandateKind, MandateStatus};
use domain::money::{Amount, Currency};
use domain::payment::{PaymentKind, PaymentStatus, PaymentView, Reason};
use domain::time::Timestamp;
use domain::topic::BANK_COMMANDS;
use loadtest::system::{Options, Servers, System};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

const WAIT: Option<Duration> = Some(Duration::from_secs(10));
const PATIENCE: Duration = Duration::from_secs(20);

fn eur(minor: i64) -> Amount {
    Amount::new(minor, Currency::EUR).unwrap()
}

/// What became of it, with the reason of a rejection.
fn outcome(view: &PaymentView) -> (PaymentStatus, Option<Reason>) {
    (view.status, view.reason)
}

const POSTED: (PaymentStatus, Option<Reason>) = (PaymentStatus::Posted, None);

fn rejected(reason: Reason) -> (PaymentStatus, Option<Reason>) {
    (PaymentStatus::Rejected, Some(reason))
}

/// Authorises 40.00 EUR.
async fn authorized(bank: &Client, system: &System, key: &str) -> PaymentId {
    let request = PaymentRequest::new(system.partners()[0].mandates[0], eur(4_000)).authorize(Some(600));
    let payment = bank.pay(&request, key, WAIT).await.unwrap().payment;
    assert_eq!(outcome(&payment), (PaymentStatus::Authorized, None));
    assert_eq!(payment.expires_at, Some(payment.created_at.plus_seconds(600)));
    payment.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_moves_as_a_partner_asks_and_the_books_tell_it() {
    let _turn = crate::turn().await;
    let options = Options { partners: 2, ..Options::new("money") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let [partner, other] = system.partners() else { panic!("two partners") };
    let bank = partner.client(&system.url(0), client::Options::default()).unwrap();
    let stranger = other.client(&system.url(0), client::Options::default()).unwrap();
    let balances = bank.balances().await.unwrap();
    let account = balances["data"][0]["account"].as_str().unwrap().parse().unwrap();
    let part = |minor| PartRequest::of(eur(minor));

    // A part is captured, once, and given back, never more than that.
    let payment = authorized(&bank, &system, "a").await;
    let early = bank.refund(payment, &part(100), "early", WAIT).await.unwrap().payment;
    assert_eq!(outcome(&early), rejected(Reason::PaymentNotRefundable));
    let mut steps = Vec::new();
    for (key, minor) in [("above", 4_001), ("capture", 3_500), ("again", 100)] {
        steps.push(outcome(&bank.capture(payment, &part(minor), key, WAIT).await.unwrap().payment));
    }
    for (key, minor) in [("first", 2_000), ("second", 2_000), ("third", 1_000)] {
        steps.push(outcome(&bank.refund(payment, &part(minor), key, WAIT).await.unwrap().payment));
    }
    let everything = PartRequest::everything();
    let rest = bank.refund(payment, &everything, "rest", WAIT).await.unwrap().payment;
    assert_eq!((outcome(&rest), rest.amounts.unwrap().amount.as_str()), (POSTED, "5.00"));
    steps.push(outcome(&bank.refund(payment, &everything, "none", WAIT).await.unwrap().payment));
    let expected = [
        rejected(Reason::AmountExceedsAuthorized),
        POSTED,
        rejected(Reason::PaymentNotCapturable),
        POSTED,
        rejected(Reason::AmountExceedsCaptured),
        POSTED,
        rejected(Reason::PaymentNotRefundable),
    ];
    assert_eq!(steps, expected);
    let root = bank.payment_by_id(payment).await.unwrap();
    let amounts = root.amounts.clone().unwrap();
    assert_eq!(
        (outcome(&root), amounts.amount_captured.as_str(), amounts.amount_refunded.as_str()),
        (POSTED, "35.00", "35.00")
    );
    let details: Value = bank
        .request(http::Method::GET, &format!("/v1/payments/{payment}"), None, client::SendOptions::default())
        .await
        .unwrap()
        .json()
        .unwrap();
    let shown = ["captures", "refunds", "entries"].map(|name| details[name].as_array().unwrap().len());
    assert_eq!(shown, [3, 6, 0], "the capture has the entries: {details}");

    // What is voided holds nothing; what is another's is unknown.
    let held = authorized(&bank, &system, "b").await;
    let foreign = stranger.capture(held, &everything, "steal", WAIT).await.unwrap().payment;
    assert_eq!(outcome(&foreign), rejected(Reason::PaymentUnknown));
    let dollars = PartRequest::of(Amount::new(100, Currency::USD).unwrap());
    let wrong = bank.capture(held, &dollars, "dollars", WAIT).await.unwrap().payment;
    assert_eq!(outcome(&wrong), rejected(Reason::CurrencyMismatch));
    let void = bank.void(held, "void", WAIT).await.unwrap();
    assert_eq!((outcome(&void.payment), void.payment.kind), (POSTED, PaymentKind::Void));
    assert_eq!(bank.payment_by_id(held).await.unwrap().status, PaymentStatus::Voided);
    let replay = bank.void(held, "void", WAIT).await.unwrap();
    assert!(replay.replayed && replay.payment == void.payment);
    let late = bank.capture(held, &everything, "late", WAIT).await.unwrap().payment;
    assert_eq!(outcome(&late), rejected(Reason::PaymentNotCapturable));

    // Many at once, and the books about them.
    let batch: Vec<_> = (0..100)
        .map(|index| {
            let mut request = PaymentRequest::new(partner.mandates[index % partner.mandates.len()], eur(100));
            request.reference = Some("batch".to_owned());
            (format!("batch-{index}"), request)
        })
        .collect();
    let items = bank.pay_batch(&batch).await.unwrap();
    assert!(
        items.iter().enumerate().all(|(index, item)| (item.index, item.status) == (index, 202)),
        "{items:?}"
    );
    let filter = PaymentFilter {
        reference: Some("batch".to_owned()),
        statuses: vec![PaymentStatus::Posted],
        limit: Some(30),
        ..PaymentFilter::default()
    };
    let started = Instant::now();
    let listed = loop {
        let mut listed: Vec<PaymentView> = Vec::new();
        let mut filter = filter.clone();
        loop {
            let page: Page<_> = bank.payments(&filter).await.unwrap();
            listed.extend(page.data);
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                break;
            }
        }
        if listed.len() == 100 || started.elapsed() > PATIENCE {
            break listed;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(listed.len(), 100, "all are posted and listed");
    assert!(listed.is_sorted_by_key(|view| std::cmp::Reverse(view.created_at)));
    let replayed = bank.pay_batch(&batch).await.unwrap();
    assert!(replayed.iter().all(|item| item.status == 200), "{replayed:?}");

    let mut entries = Vec::new();
    let mut filter = StatementFilter { ascending: true, limit: Some(40), ..StatementFilter::default() };
    loop {
        let page = bank.entries(account, &filter).await.unwrap();
        entries.extend(page.data);
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    assert!(entries.iter().map(|entry| entry.version).eq(1..=entries.len() as u64));
    let last = entries.last().unwrap();
    let now = bank.balances().await.unwrap();
    assert_eq!(now["data"][0]["balance"], last.balance);
    assert_eq!(now["data"][0]["held"], "0.00");
    for entry in [&entries[0], &entries[entries.len() / 2], last] {
        let same = entries.iter().rfind(|other| other.entered_at == entry.entered_at).unwrap();
        assert_eq!(bank.balance_at(account, entry.entered_at).await.unwrap(), same.balance);
    }

    // A request for a mandate that is given up.
    let request = MandateRequest::new(MandateKind::Standing, Currency::EUR);
    let asked = bank.request_mandate(&request, "mandate").await.unwrap();
    assert_eq!((asked.view.status, asked.code.unwrap().len()), (MandateStatus::Pending, 8));
    let ended = bank.cancel_mandate(asked.view.id, WAIT).await.unwrap();
    assert_eq!(ended.view.status, MandateStatus::Revoked);
    let listed = bank.mandates(None).await.unwrap().data;
    assert_eq!((listed[0].view.id, listed[0].view.status), (asked.view.id, MandateStatus::Revoked));
    assert_eq!(listed.len(), partner.mandates.len() + 1);
    let payment = PaymentRequest::new(asked.view.id, eur(100));
    let refused = bank.pay(&payment, "cancelled", WAIT).await.unwrap().payment;
    assert_eq!(refused.status, PaymentStatus::Rejected);
    system.finish().await.unwrap();
}

/// Opens an account of a partner, as nobody but the bank may.
async fn open_account(system: &System, partner: PartnerId) {
    let account = testkit::fixtures::account_id();
    let command = testkit::fixtures::open_account(account, Owner::Partner(partner), Currency::EUR);
    let envelope = testkit::fixtures::bank(testkit::fixtures::user_id(), command);
    let producer: FutureProducer = system.kafka().producer().create().unwrap();
    let (topic, key) = (system.kafka().topic(BANK_COMMANDS.name), envelope.command.kafka_key());
    let value = envelope.encode();
    let record = FutureRecord::to(&topic).key(key.as_bytes()).payload(&value);
    producer.send(record, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_developer_reaches_every_outcome_with_test_mandates_alone() {
    let _turn = crate::turn().await;
    let system = System::start(Servers::from_env().unwrap(), Options::new("sandbox")).await.unwrap();
    let live = system.partners()[0].client(&system.url(0), client::Options::default()).unwrap();
    let mut request = MandateRequest::new(MandateKind::Standing, Currency::EUR);
    let refused = live.sandbox_mandate(&request, "1.00", SandboxState::Active, "live").await.unwrap_err();
    assert!(refused.is("test_partners_only"), "{refused}");

    let body = br#"{"name":"Test","contact_email":"it@shop.example"}"#;
    let options = client::SendOptions::default();
    let made: Value = live
        .request(http::Method::POST, "/v1/partner-applications", Some(body.as_slice().into()), options)
        .await
        .unwrap()
        .json()
        .unwrap();
    let text =
        |pointer: &str| made.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{made}"));
    let bank = Client::new(&system.url(0), text("/key_id"), text("/key_secret")).unwrap();
    bank.ready(PATIENCE).await.unwrap();
    open_account(&system, text("/partner").parse().unwrap()).await;
    let started = Instant::now();
    while bank.balances().await.unwrap()["data"].as_array().unwrap().is_empty() {
        assert!(started.elapsed() < PATIENCE, "the account is opened");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    request.per_payment_max = Some("60.00".to_owned());
    request.daily_cap = Some("80.00".to_owned());
    let cases = [
        ("active", SandboxState::Active, "70.00", 5_000, POSTED),
        ("poor", SandboxState::Active, "10.00", 5_000, rejected(Reason::InsufficientFunds)),
        ("limit", SandboxState::Active, "100.00", 6_001, rejected(Reason::MandateLimit)),
        ("used", SandboxState::Used, "70.00", 100, rejected(Reason::MandateUsed)),
        ("revoked", SandboxState::Revoked, "70.00", 100, rejected(Reason::MandateRevoked)),
        ("expired", SandboxState::Expired, "70.00", 100, rejected(Reason::MandateExpired)),
        ("frozen", SandboxState::AccountFrozen, "70.00", 100, rejected(Reason::AccountFrozen)),
        ("closed", SandboxState::AccountClosed, "0.00", 100, rejected(Reason::AccountClosed)),
    ];
    for (key, state, balance, minor, expected) in cases {
        let made = bank.sandbox_mandate(&request, balance, state, key).await.unwrap();
        assert_eq!(made.status, "ready", "{key}: {made:?}");
        let again = bank.sandbox_mandate(&request, balance, state, key).await.unwrap();
        assert_eq!((again.mandate, again.account), (made.mandate, made.account), "{key}");
        let payment = PaymentRequest::new(made.mandate, eur(minor));
        // The key of a test mandate is another kind of key: it may be used for a payment.
        let paid = bank.pay(&payment, key, WAIT).await.unwrap().payment;
        assert_eq!((outcome(&paid), paid.livemode), (expected, false), "{key}");
        if expected == POSTED {
            let above = bank.pay(&payment, "daily", WAIT).await.unwrap().payment;
            assert_eq!(outcome(&above), rejected(Reason::DailyLimit));
        }
    }
    let past =
        bank.balance_at("acct_00000000000000000000000001".parse().unwrap(), Timestamp::from_micros(0)).await;
    assert!(past.unwrap_err().is("not_found"));
    system.finish().await.unwrap();
}
