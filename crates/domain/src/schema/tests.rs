//! Schemas against the types that write the bodies: their examples are what is sent, and every part of it counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{find, types};
use crate::command::SCHEMA;
use crate::event::{API_VERSION, CreditView, EventRecord, EventType, MandateView};
use crate::ids::{AccountId, EndpointId, MandateId, PartnerId, PaymentId, event_id};
use crate::mandate::{MandateKind, MandateStatus};
use crate::money::Currency;
use crate::notice::{DisabledReason, NoticeType, disabled_data, ping_data, webhook_body};
use crate::payment::{Amounts, PaymentKind, PaymentStatus, PaymentView, Reason, status_path};
use crate::time::Timestamp;

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x0193_6a4c_5e80_7000_8000_0000_0000_0000 + number)
}

fn at(second: i64) -> Timestamp {
    "2026-11-23T12:00:00.123456Z".parse::<Timestamp>().unwrap().plus_seconds(second)
}

fn minors(captured: i64, refunded: i64) -> Amounts {
    Amounts::of(Currency::EUR, 1_250, captured, refunded)
}

/// `data` with one thing in it.
fn of(name: &str, view: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(&BTreeMap::from([(name, view)])).unwrap()
}

/// A posted payment with everything that a payment can have.
fn payment() -> PaymentView {
    let id = PaymentId::from_uuid(uuid(1));
    PaymentView {
        id,
        kind: PaymentKind::Payment,
        root: id,
        status: PaymentStatus::Posted,
        under_review: false,
        version: 1,
        amounts: Some(minors(1_250, 0)),
        from: None,
        to: None,
        mandate: Some(MandateId::from_uuid(uuid(2))),
        reference: Some("order-4711".to_owned()),
        description: Some("Two melanges".to_owned()),
        metadata: BTreeMap::from([("table".to_owned(), "12".to_owned())]),
        reason: None,
        livemode: true,
        created_at: at(0),
        decided_at: Some(at(0)),
        expires_at: None,
        status_url: status_path(id),
    }
}

fn follow_up(kind: PaymentKind, status: PaymentStatus) -> PaymentView {
    let id = PaymentId::from_uuid(uuid(3));
    let bare = PaymentView { mandate: None, description: None, metadata: BTreeMap::new(), ..payment() };
    PaymentView { id, kind, status, status_url: status_path(id), ..bare }
}

fn rejected(view: PaymentView, amounts: Option<Amounts>, reason: Reason) -> PaymentView {
    PaymentView { status: PaymentStatus::Rejected, amounts, reason: Some(reason), ..view }
}

fn two_phase(status: PaymentStatus, version: u32) -> PaymentView {
    let amounts = Some(minors(0, 0));
    PaymentView { status, version, amounts, expires_at: Some(at(3_600)), ..payment() }
}

fn transfer() -> PaymentView {
    let (from, to) = (Some(AccountId::from_uuid(uuid(4))), Some(AccountId::from_uuid(uuid(5))));
    let view = follow_up(PaymentKind::Transfer, PaymentStatus::Posted);
    PaymentView { root: view.id, from, to, ..view }
}

fn mandate(status: MandateStatus) -> Box<RawValue> {
    let view = MandateView {
        id: MandateId::from_uuid(uuid(2)),
        kind: MandateKind::Standing,
        status,
        currency: Currency::EUR,
        per_payment_max: Some("50.00".to_owned()),
        daily_cap: Some("200.00".to_owned()),
        expires_at: Some(at(86_400)),
        reference: Some("customer-17".to_owned()),
    };
    of("mandate", &view)
}

/// `data` of an event, built by the types that the ledger writes it with.
fn data(event_type: EventType) -> Box<RawValue> {
    use PaymentStatus::{Authorized, Conflicted, Expired, Posted, Voided};
    let view = match event_type {
        EventType::PaymentPosted => payment(),
        EventType::PaymentRejected => rejected(payment(), Some(minors(0, 0)), Reason::InsufficientFunds),
        EventType::PaymentConflicted => {
            let conflict = follow_up(PaymentKind::Conflict, Conflicted);
            PaymentView { mandate: payment().mandate, amounts: Some(minors(0, 0)), ..conflict }
        }
        EventType::PaymentAuthorized => two_phase(Authorized, 1),
        EventType::PaymentVoided => two_phase(Voided, 2),
        EventType::PaymentExpired => two_phase(Expired, 2),
        EventType::PaymentReversed => {
            PaymentView { version: 2, amounts: Some(minors(1_250, 1_250)), ..payment() }
        }
        EventType::CapturePosted => follow_up(PaymentKind::Capture, Posted),
        EventType::CaptureRejected => {
            let capture = follow_up(PaymentKind::Capture, Posted);
            rejected(capture, Some(minors(0, 0)), Reason::AmountExceedsAuthorized)
        }
        EventType::VoidRejected => {
            rejected(follow_up(PaymentKind::Void, Posted), None, Reason::PaymentUnknown)
        }
        EventType::RefundPosted => follow_up(PaymentKind::Refund, Posted),
        EventType::RefundRejected => {
            let refund = follow_up(PaymentKind::Refund, Posted);
            rejected(refund, Some(minors(0, 0)), Reason::PaymentNotRefundable)
        }
        EventType::TransferPosted => transfer(),
        EventType::TransferRejected => rejected(transfer(), Some(minors(0, 0)), Reason::AccountFrozen),
        EventType::AccountCredited => {
            let view = CreditView {
                id: AccountId::from_uuid(uuid(5)),
                amount: "100.00".to_owned(),
                currency: Currency::EUR,
                balance: "1350.00".to_owned(),
                reference: Some("pay-in 7".to_owned()),
            };
            return of("account", &view);
        }
        EventType::AccountDebited => {
            let view = CreditView {
                id: AccountId::from_uuid(uuid(5)),
                amount: "100.00".to_owned(),
                currency: Currency::EUR,
                balance: "1250.00".to_owned(),
                reference: Some("pay-in 7".to_owned()),
            };
            return of("account", &view);
        }
        EventType::MandateActive => return mandate(MandateStatus::Active),
        EventType::MandateDeclined => return mandate(MandateStatus::Declined),
        EventType::MandateRevoked => return mandate(MandateStatus::Revoked),
        EventType::MandateExpired => return mandate(MandateStatus::Expired),
    };
    of("payment", &view)
}

/// A whole body of each type, as it is sent.
fn bodies() -> BTreeMap<&'static str, Value> {
    let partner = PartnerId::from_uuid(uuid(6));
    let event = |(number, event_type): (usize, &EventType)| {
        let sequence = 4_711 + number as u64;
        let record = EventRecord {
            schema: SCHEMA,
            id: event_id(partner, 1, sequence),
            partner,
            sequence,
            epoch: 1,
            event_type: *event_type,
            timestamp: at(0),
            data: data(*event_type),
        };
        (event_type.as_str(), record.webhook_body(API_VERSION))
    };
    let endpoint = EndpointId::from_uuid(uuid(7));
    let notice = |notice: &NoticeType| {
        let data = match notice {
            NoticeType::Ping => ping_data(endpoint),
            NoticeType::EndpointDisabled => {
                disabled_data(endpoint, DisabledReason::Failing, at(0), Some(4_710))
            }
        };
        (notice.as_str(), webhook_body(*notice, API_VERSION, at(0), &data))
    };
    let texts = EventType::ALL.iter().enumerate().map(event).chain(NoticeType::ALL.iter().map(notice));
    texts.map(|(word, text)| (word, serde_json::from_str(&text).unwrap())).collect()
}

fn schema(word: &str) -> Value {
    let text = find(API_VERSION, word).unwrap_or_else(|| panic!("{word} has no schema"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("the schema of {word}: {error}"))
}

fn validator(word: &str) -> jsonschema::Validator {
    let schema = schema(word);
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{word}: {error}"));
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).unwrap_or_else(|error| panic!("{word}: {error}"))
}

#[test]
fn every_type_has_a_schema_of_its_own_whose_example_is_what_is_sent() {
    let bodies = bodies();
    assert_eq!(types().collect::<BTreeSet<_>>(), bodies.keys().copied().collect());
    for (word, body) in bodies {
        let schema = schema(word);
        assert_eq!(schema["title"], word);
        assert_eq!(schema["$id"], format!("/v1/schemas/{word}?api_version={API_VERSION}"));
        assert_eq!(schema["properties"]["type"]["const"], word);
        assert_eq!(schema["properties"]["api_version"]["const"], API_VERSION);
        assert_eq!(schema["examples"], json!([body]), "{word}");
        let errors: Vec<_> = validator(word).iter_errors(&body).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{word}: {errors:?}");
    }
    assert_eq!(find("2020-01-01", "ping"), None);
    assert_eq!(find(API_VERSION, "payment.paid"), None);
}

/// What is removed or spoilt anywhere in a body is noticed, unless it is optional.
#[test]
fn a_body_of_another_form_is_refused() {
    // What a body may lack.
    let optional = |pointer: &str| {
        ["/reference", "/description", "/metadata", "/metadata/table"].iter().any(|it| pointer.ends_with(it))
            || pointer.starts_with("/data/mandate/") && pointer.matches('_').count() > 0
    };
    for (word, body) in bodies() {
        let validator = validator(word);
        let mut pointers = Vec::new();
        walk(&body, "", &mut pointers);
        for pointer in &pointers {
            let mut spoilt = body.clone();
            *spoilt.pointer_mut(pointer).unwrap() = json!([]);
            assert!(!validator.is_valid(&spoilt), "{word}: {pointer} may be anything");
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let mut lacking = body.clone();
            lacking.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            let may = optional(pointer) || may_lack(word, key);
            assert_eq!(validator.is_valid(&lacking), may, "{word} without {pointer}");
        }
        // Changes only add: a receiver takes what it does not know.
        let mut more = body.clone();
        more["data"]["new"] = json!(1);
        assert!(validator.is_valid(&more), "{word} does not allow additions");
        for (other, body) in bodies() {
            assert_eq!(validator.is_valid(&body), other == word, "{other} as {word}");
        }
    }
}

/// What only some types require.
fn may_lack(word: &str, key: &str) -> bool {
    match key {
        "mandate" => matches!(word, "payment.reversed" | "payment.conflicted"),
        "from" | "to" => word == "transfer.rejected",
        _ => false,
    }
}

fn walk(value: &Value, pointer: &str, pointers: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let pointer = format!("{pointer}/{key}");
        walk(value, &pointer, pointers);
        pointers.push(pointer);
    }
}

#[test]
fn amounts_have_exactly_a_currencys_digits_and_ids_their_prefix() {
    let validator = validator("payment.posted");
    let body = bodies().remove("payment.posted").unwrap();
    let valid = |key: &str, value: &str| {
        let mut changed = body.clone();
        changed["data"]["payment"][key] = json!(value);
        validator.is_valid(&changed)
    };
    for good in ["0", "1250", "12.50", "0.01", "1.250", "92233720368547758.07"] {
        assert!(valid("amount", good), "{good}");
    }
    for bad in ["", "12.5", "-1.00", "1e3", "01.00", "12.5000", ".50", "NaN", "12,50"] {
        assert!(!valid("amount", bad), "{bad}");
    }
    let mandate = MandateId::from_uuid(uuid(2)).to_string();
    assert!(valid("mandate", &mandate));
    assert!(!valid("mandate", &mandate.replace("mdt", "pay")));
    assert!(!valid("mandate", &mandate[..mandate.len() - 1]));
    assert!(!valid("created_at", "2026-11-23T12:00:00Z"), "microseconds are missing");
    assert!(!valid("created_at", "2026-13-23T12:00:00.123456Z"), "there is no such month");
}

/// The parts that many schemas repeat are the same in all of them, and know every kind and status of the code.
#[test]
fn shared_parts_are_the_same_everywhere_and_know_every_kind_and_status() {
    let mut parts: BTreeMap<String, Value> = BTreeMap::new();
    for word in types() {
        for (name, part) in schema(word)["$defs"].as_object().unwrap() {
            let first = parts.entry(name.clone()).or_insert_with(|| part.clone());
            assert_eq!(first, part, "`{name}` differs in {word}");
        }
    }
    let words = |values: Vec<&'static str>| json!(values);
    let payment = &parts["payment"]["properties"];
    assert_eq!(payment["kind"]["enum"], words(PaymentKind::ALL.iter().map(|it| it.as_str()).collect()));
    assert_eq!(payment["status"]["enum"], words(PaymentStatus::ALL.iter().map(|it| it.as_str()).collect()));
    let statuses = MandateStatus::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(parts["mandate"]["properties"]["status"]["enum"], words(statuses));
    // Every field of the views is described.
    for (name, described) in &parts {
        let Some(described) = described["properties"].as_object() else { continue };
        for body in bodies().values() {
            for key in body["data"][name].as_object().into_iter().flatten().map(|(key, _)| key) {
                let narrowed = name == "endpoint" && key != "id";
                assert!(narrowed || described.contains_key(key), "`{name}.{key}` is not described");
            }
        }
    }
}
