//! What a merchant does with his endpoints, by signed requests.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, Options, PaymentRequest, SendOptions};
use domain::ids::{MandateId, PaymentId};
use domain::money::{Amount, Currency};
use http::{HeaderMap, HeaderValue, Method};
use loadtest::system::{Partner, System};
use serde_json::{Value, json};
use testkit::wait_until;

/// A merchant.
pub(crate) struct Merchant {
    client: Client,
}

/// An endpoint as its owner knows it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// An entry of the event log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logged {
    pub(crate) id: String,
    pub(crate) body: Value,
}

impl Logged {
    pub(crate) fn sequence(&self) -> u64 {
        self.body["sequence"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn epoch(&self) -> u16 {
        self.body["epoch"]
            .as_u64()
            .and_then(|epoch| epoch.try_into().ok())
            .unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Merchant {
    pub(crate) fn new(system: &System, partner: &Partner) -> Self {
        Self { client: partner.client(&system.url(0), Options::default()).unwrap() }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut headers = HeaderMap::new();
        if matches!(method, Method::PATCH | Method::DELETE) {
            headers.insert("if-match", HeaderValue::from_static("*"));
        }
        let body = body.map(|body| body.to_string().into());
        let options = SendOptions { headers, ..SendOptions::default() };
        let answer = self.client.request(method.clone(), path, body, options).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {text}", answer.status);
        if answer.body.is_empty() { Value::Null } else { answer.json().unwrap() }
    }

    pub(crate) async fn pay(&self, mandate: MandateId, key: &str) -> PaymentId {
        let request = PaymentRequest::new(mandate, Amount::new(100, Currency::EUR).unwrap());
        self.client.pay(&request, key, None).await.unwrap().payment.id
    }

    pub(crate) async fn create(&self, url: &str, event_types: Option<&[&str]>) -> Endpoint {
        let body = json!({ "url": url, "event_types": event_types });
        let made = self.ask(Method::POST, "/v1/endpoints", Some(body)).await;
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name}: {made}")).to_owned();
        Endpoint { id: text("id"), secret: text("secret") }
    }

    pub(crate) async fn change(&self, endpoint: &str, change: Value) -> Value {
        self.ask(Method::PATCH, &format!("/v1/endpoints/{endpoint}"), Some(change)).await
    }

    pub(crate) async fn delete(&self, endpoint: &str) {
        self.ask(Method::DELETE, &format!("/v1/endpoints/{endpoint}"), None).await;
    }

    pub(crate) async fn read(&self, endpoint: &str) -> Value {
        self.ask(Method::GET, &format!("/v1/endpoints/{endpoint}"), None).await
    }

    pub(crate) async fn enable(&self, endpoint: &str) -> Value {
        self.ask(Method::POST, &format!("/v1/endpoints/{endpoint}/enable"), None).await
    }

    /// The new secret.
    pub(crate) async fn rotate(&self, endpoint: &str, overlap: Duration) -> String {
        let path = format!("/v1/endpoints/{endpoint}/secrets");
        let made = self.ask(Method::POST, &path, Some(json!({ "overlap_s": overlap.as_secs() }))).await;
        made["secret"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// Asks for something to be sent again, and waits until all of it is queued.
    pub(crate) async fn replay(&self, endpoint: &str, what: Value) -> Value {
        let path = format!("/v1/endpoints/{endpoint}/replays");
        let mut replay = self.ask(Method::POST, &path, Some(what)).await;
        let status_url = replay["status_url"].as_str().unwrap().to_owned();
        wait_until("the replay to be worked off", Duration::from_secs(60), async || {
            replay = self.ask(Method::GET, &status_url, None).await;
            replay["status"] != "open"
        })
        .await;
        replay
    }

    /// Deliveries of an endpoint that are not delivered: id of the event and how it stands.
    pub(crate) async fn undelivered(&self, endpoint: &str) -> BTreeMap<String, Value> {
        let first = format!("/v1/deliveries?endpoint={endpoint}&status=pending,dead&limit=200");
        let (mut undelivered, mut next) = (BTreeMap::new(), Some(first.clone()));
        while let Some(path) = next {
            let page = self.ask(Method::GET, &path, None).await;
            for delivery in page["data"].as_array().unwrap() {
                undelivered.insert(delivery["event"].as_str().unwrap().to_owned(), delivery.clone());
            }
            next = page["next"].as_str().map(|cursor| format!("{first}&cursor={cursor}"));
        }
        undelivered
    }

    /// The event log behind `after`, to its end.
    pub(crate) async fn events(&self, mut after: u64) -> Vec<Logged> {
        let mut events = Vec::new();
        loop {
            let page = self.ask(Method::GET, &format!("/v1/events?after={after}&limit=200"), None).await;
            for entry in page["data"].as_array().unwrap() {
                let id = entry["id"].as_str().unwrap().to_owned();
                events.push(Logged { id, body: entry["body"].clone() });
            }
            let through = page["scanned_through"].as_u64().unwrap();
            if through <= after {
                return events;
            }
            after = through;
        }
    }
}
