//! Nothing personal and nothing secret stands anywhere in the clear: values are planted in a whole bank that logs at
//! debug level, everything that leaves a process is collected, and no form of any of them may be in it.
//!
//! Looked into: the logs of all services, `/metrics`, every record (key, value and headers) of every topic, every
//! column of every table, every error answer, published checkpoints, and mails, which may hold what they are for. What
//! was planted in the open has to be found in each, or the search proves nothing.

mod places;
mod values;

use std::time::Duration;

use bytes::Bytes;
use client::{MandateRequest, PaymentRequest, SendOptions};
use domain::mandate::MandateKind;
use domain::money::{Amount, Currency};
use http::{HeaderMap, Method};
use loadtest::people::{Answer, People, Person};
use loadtest::sink::{Behaviour, Sink};
use loadtest::system::{Options, Servers, Service, System};
use serde_json::{Value, json};
use testkit::wait_until;

use places::Places;
use values::Values;

const PATIENCE: Duration = Duration::from_secs(60);
/// Planted in the open, as the partner's own reference of a payment.
const OPEN: &str = "canary-in-the-open";
const NAME: &str = "Quillfeather Canarinsky";
const EMAIL: &str = "quill.canarinsky@post.example";
const PHONE: &str = "+43 660 7351 9942";
const ADDRESS: &str = "Zaunkoeniggasse 77, 1234 Federnstadt";
const PASSWORD: &str = "nine purple wrens sing";
const NEW_PASSWORD: &str = "ten yellow finches hum";
const WRONG_PASSWORD: &str = "wrong grey pigeons here";
const CREDENTIAL: &str = "Bearer canary-endpoint-credential-5520";
const CONTACT: &str = "Gimpelmann Canarinsky";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_and_personal_data_appear_nowhere() {
    let _turn = crate::turn().await;
    let mut options = Options { admin_apis: 1, ..Options::new("canary") };
    for service in Service::ALL {
        options = options.with_env(service, "WIRED_LOG", "debug");
    }
    options = options.with_env(Service::AdminApi, "WIRED_CHECKPOINT_INTERVAL_SECONDS", "1");
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let mut values = Values::default();
    for (what, value) in [
        ("name", NAME),
        ("e-mail address", EMAIL),
        ("telephone number", PHONE),
        ("postal address", ADDRESS),
        ("password", PASSWORD),
        ("changed password", NEW_PASSWORD),
        ("wrong password", WRONG_PASSWORD),
        ("credential of an endpoint", CREDENTIAL),
        ("contact of an applicant", CONTACT),
    ] {
        values.plant(what, value);
    }
    let mut places = Places::default();
    people(&system, &mut values, &mut places).await;
    merchant(&system, &mut values, &mut places).await;
    places.collect(&system).await;

    for (place, text) in places.iter() {
        for (what, form) in values.forms() {
            let found = text.find(form).map(|at| {
                let (from, to) = (at.saturating_sub(120), (at + form.len() + 60).min(text.len()));
                String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
            });
            assert!(found.is_none(), "the {what} stands in {place}: … {} …", found.unwrap_or_default());
        }
    }
    // The search finds what is there.
    for place in ["table payments", "topic payments.commands.v1", "topic payments.events.v1"] {
        assert!(places.text_of(place).contains(OPEN), "{place} was not looked into");
    }
    for service in Service::ALL {
        let (log, metrics) = (format!("log of {}", service.name()), format!("metrics of {}", service.name()));
        assert!(places.text_of(&log).contains("\"level\":\"info\""), "{log} was not looked into");
        assert!(places.text_of(&metrics).contains("wired_"), "{metrics} were not looked into");
    }
    // The processor has nothing to say there.
    for service in [Service::Ingest, Service::Notifier, Service::AdminApi] {
        let log = format!("log of {}", service.name());
        assert!(places.text_of(&log).contains("\"level\":\"debug\""), "{log} is not at debug level");
    }
    for code in ["credentials_invalid", "malformed_json", "signature_invalid", "invalid_field", "too_common"]
    {
        assert!(places.text_of("error answers").contains(code), "no error answer says {code}");
    }
    assert!(places.text_of("checkpoints").contains("signature"), "no checkpoint was looked into");
    assert!(places.text_of("mails").contains("subject:"), "no mail was looked into");
    system.finish().await.unwrap();
}

/// A customer and an admin do everything that touches what is theirs, well and badly.
async fn people(system: &System, values: &mut Values, places: &mut Places) {
    let people = People::of(system);
    let mut customer = people.customer(EMAIL, NAME, PASSWORD).await.unwrap();
    plant_person(values, &customer);
    let change = json!({ "phone": PHONE, "address": ADDRESS });
    let me = customer.client.send("PATCH", "/v1/me", &[], Some(&change)).await.unwrap().expect(200).unwrap();
    assert_eq!((&me.json()["phone"], &me.json()["address"]), (&PHONE.into(), &ADDRESS.into()));
    customer.client.post("/v1/me/exports", &Value::Null).await.unwrap().expect(200).unwrap();

    let admin = people.first_admin("wren.admin@post.example", "Wren Canarinsky", PASSWORD).await.unwrap();
    values.plant("admin's address", "wren.admin@post.example");
    plant_person(values, &admin);
    values.plant_base32("TOTP secret", &admin.totp_secret);
    for code in &admin.recovery_codes {
        values.plant("recovery code", code);
    }
    // Unmasked for a reason; the reason is staff's, and is kept.
    let path = format!("/v1/users/{}/personal-data", customer.id);
    let unmasked = admin.client.post(&path, &json!({ "reason": "the customer asked on the phone" })).await;
    assert!(unmasked.unwrap().expect(200).unwrap().body.contains(PHONE));

    // Everything that goes wrong, with what must not be repeated in it.
    let stranger = people.client().unwrap();
    let email = "quill.canarinsky@post.example at home";
    let long = format!("{PASSWORD}{}", "x".repeat(300));
    let bodies = [
        ("/v1/auth/login", json!({ "email": EMAIL, "password": WRONG_PASSWORD })),
        ("/v1/auth/login", json!({ "email": email, "password": PASSWORD })),
        ("/v1/auth/login", json!({ "email": EMAIL, "password": PASSWORD, "secret": PASSWORD })),
        ("/v1/auth/login", json!({ "email": { "of": EMAIL }, "password": PASSWORD })),
        ("/v1/auth/login", json!({ "email": EMAIL, "password": [PASSWORD] })),
        ("/v1/auth/registrations", json!({ "email": email, "name": NAME })),
        ("/v1/auth/registrations", json!({ "email": EMAIL, "name": NAME.repeat(9) })),
        ("/v1/auth/passwords", json!({ "token": customer.link_token, "password": NEW_PASSWORD })),
        ("/v1/auth/passwords", json!({ "token": PASSWORD, "password": long })),
        ("/v1/auth/refresh", json!({ "refresh_token": PASSWORD })),
    ];
    for (path, body) in bodies {
        places.refused(&stranger.post(path, &body).await.unwrap());
    }
    let login = json!({ "email": EMAIL, "password": WRONG_PASSWORD }).to_string();
    let half = Value::String(login);
    places.refused(&stranger.post("/v1/auth/login", &half).await.unwrap());
    // As if the address had been guessed to be the password.
    let weak = json!({ "current_password": PASSWORD, "new_password": EMAIL });
    places.refused(&customer.client.post("/v1/me/password", &weak).await.unwrap());
    let too_long = json!({ "name": NAME, "phone": PHONE.repeat(4), "address": ADDRESS.repeat(20) });
    places.refused(&customer.client.send("PATCH", "/v1/me", &[], Some(&too_long)).await.unwrap());
    let wrong = json!({ "password": WRONG_PASSWORD });
    places.refused(&customer.client.post("/v1/auth/step-up", &wrong).await.unwrap());
    places.refused(&admin.client.post("/v1/auth/step-up", &json!({ "code": PASSWORD })).await.unwrap());
    places.refused(&stranger.with_token(&customer.refresh_token).get("/v1/me").await.unwrap());
    let query = format!("/v1/users?cursor={}", values::percent_encoded(PASSWORD));
    places.refused(&admin.client.get(&query).await.unwrap());

    // Known already; forgotten; changed; continued, and continued by a copy.
    let body = json!({ "email": EMAIL, "name": NAME });
    stranger.post("/v1/auth/registrations", &body).await.unwrap().expect(202).unwrap();
    stranger.post("/v1/auth/password-resets", &json!({ "email": EMAIL })).await.unwrap().expect(202).unwrap();
    let changed = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
    customer.client.post("/v1/me/password", &changed).await.unwrap().expect(204).unwrap();
    NEW_PASSWORD.clone_into(&mut customer.password);
    customer.again().await.unwrap();
    plant_person(values, &customer);
    let refresh = json!({ "refresh_token": customer.refresh_token });
    let next = stranger.post("/v1/auth/refresh", &refresh).await.unwrap().expect(200).unwrap();
    values.plant("refresh token", &next.text("refresh_token").unwrap());
    values.plant("access token", &next.text("access_token").unwrap());
    places.refused(&stranger.post("/v1/auth/refresh", &refresh).await.unwrap());
    wait_until("all mails are written", PATIENCE, async || {
        let waiting: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM mails").fetch_one(system.pool()).await.unwrap();
        waiting == 0
    })
    .await;
}

fn plant_person(values: &mut Values, person: &Person) {
    values.plant("access token", &person.access_token);
    values.plant("refresh token", &person.refresh_token);
    values.plant("token of a link", &person.link_token);
}

/// A merchant pays, is told by webhook, registers endpoints, asks for a mandate, and does some of it badly.
async fn merchant(system: &System, values: &mut Values, places: &mut Places) {
    let partner = &system.partners()[0];
    values.plant_base64("API key secret", &partner.key_secret);
    values.plant_base64("webhook secret", partner.webhook_secret.trim_start_matches("whsec_"));
    let sink = Sink::start(partner.webhook_listen).await.unwrap();
    sink.endpoint("/webhooks", &partner.webhook_secret).unwrap();
    let bank = partner.client(&system.url(0), client::Options::default()).unwrap();
    let send = async |method: Method, target: &str, body: Value, headers: HeaderMap| {
        let body = (method != Method::GET).then(|| Bytes::from(body.to_string()));
        let options = SendOptions { headers, ..SendOptions::default() };
        let answer = bank.request(method, target, body, options).await.unwrap();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Answer { status: answer.status, headers: answer.headers, body }
    };
    let none = HeaderMap::new;

    let endpoint = json!({
        "url": sink.url("/fails"), "headers": { "authorization": CREDENTIAL, "x-shop": CREDENTIAL }, "ed25519": true
    });
    let made = send(Method::POST, "/v1/endpoints", endpoint, none()).await.expect(201).unwrap().json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    values.plant_base64("webhook secret", secret.trim_start_matches("whsec_"));
    sink.endpoint("/fails", &secret).unwrap();
    sink.behave("/fails", Behaviour::Status(500));
    let rotate = format!("/v1/endpoints/{}/secrets", made["id"].as_str().unwrap());
    let rotated =
        send(Method::POST, &rotate, json!({ "overlap_s": 3_600 }), none()).await.expect(201).unwrap();
    let rotated = rotated.text("secret").unwrap();
    values.plant_base64("webhook secret", rotated.trim_start_matches("whsec_"));
    let mandate = MandateRequest::new(MandateKind::Standing, Currency::EUR);
    let code = bank.request_mandate(&mandate, "canary").await.unwrap().code.unwrap();
    values.plant("code of a request for a mandate", &code);
    values.plant("code of a request for a mandate", &code.replace('-', ""));
    let application = json!({
        "name": "Canary Seeds", "contact_email": EMAIL, "contact_name": CONTACT,
        "website": "https://seeds.example"
    });
    let applied =
        send(Method::POST, "/v1/partner-applications", application, none()).await.expect(201).unwrap();
    values.plant_base64("API key secret", &applied.text("key_secret").unwrap());

    let mut request = PaymentRequest::new(partner.mandates[0], Amount::new(1_250, Currency::EUR).unwrap());
    request.reference = Some(OPEN.to_owned());
    let answer = bank.pay(&request, "canary", Some(Duration::from_secs(10))).await.unwrap();
    let told = sink.wait_until(PATIENCE, |sink| sink.payments("/webhooks").contains_key(&answer.payment.id));
    assert!(told.await, "no webhook: {:?}", sink.total());
    wait_until("the failing endpoint is tried", PATIENCE, async || {
        let failed = "SELECT COUNT(*) FROM attempts WHERE status_code = 500";
        let failed: i64 = sqlx::query_scalar(failed).fetch_one(system.pool()).await.unwrap();
        failed > 0
    })
    .await;

    let endpoint = |name: &str, value: &str| {
        let mut headers = serde_json::Map::new();
        headers.insert(name.to_owned(), value.into());
        json!({ "url": sink.url("/bad"), "headers": headers })
    };
    for body in [
        endpoint("authorization", &format!("{CREDENTIAL}\r\nhost: x")),
        endpoint("cookie", CREDENTIAL),
        json!({ "url": sink.url("/bad"), "headers": CREDENTIAL }),
        json!({ "url": sink.url("/bad"), "secret": secret }),
    ] {
        places.refused(&send(Method::POST, "/v1/endpoints", body, none()).await);
    }
    let mut credentials = HeaderMap::new();
    credentials.insert("authorization", CREDENTIAL.parse().unwrap());
    credentials.insert("cookie", CREDENTIAL.parse().unwrap());
    let payment = json!({ "mandate": secret, "amount": PASSWORD, "currency": "EUR" });
    places.refused(&send(Method::POST, "/v1/payments", payment, credentials).await);
    let application = json!({ "name": "x", "contact_email": [EMAIL], "contact_name": CONTACT.repeat(9) });
    places.refused(&send(Method::POST, "/v1/partner-applications", application, none()).await);
    // A key of somebody else, and half a body.
    let stranger =
        client::Client::new(&system.url(0), &partner.key_id, &applied.text("key_secret").unwrap()).unwrap();
    let half = Bytes::from(format!("{{\"mandate\": \"{secret}\", \"amount\": "));
    for bank in [&bank, &stranger] {
        let options = SendOptions::default();
        let answer = bank.request(Method::POST, "/v1/payments", Some(half.clone()), options).await.unwrap();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        places.refused(&Answer { status: answer.status, headers: answer.headers, body });
    }
    sink.stop().await;
}
