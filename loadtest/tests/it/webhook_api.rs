//! A merchant manages its webhooks itself: every promise of the API kept by the programs that keep it.

use std::time::Duration;

use client::{Client, EndpointRequest, PaymentRequest, ReplayRequest};
use domain::ids::{EndpointId, PaymentId};
use domain::money::{Amount, Currency};
use domain::notice::{Flaw, Verdict};
use domain::replay::ReplayStatus;
use loadtest::sink::{Behaviour, Sink};
use loadtest::system::{Options, Servers, Service, System};
use serde_json::{Value, json};
use testkit::wait_until;

const SOON: Duration = Duration::from_secs(30);
const PATH: &str = "/api";

struct Shop {
    bank: Client,
    sink: Sink,
    mandate: domain::ids::MandateId,
    paid: u32,
}

impl Shop {
    async fn pay(&mut self) -> PaymentId {
        self.paid += 1;
        let request = PaymentRequest::new(self.mandate, Amount::new(100, Currency::EUR).unwrap());
        let key = format!("shop-{}", self.paid);
        let answer = self.bank.pay(&request, &key, Some(Duration::from_secs(10))).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.payment.id
    }

    async fn received(&self, payment: PaymentId) {
        let received = self.sink.wait_until(SOON, |sink| sink.payments(PATH).contains_key(&payment));
        assert!(received.await, "no webhook: {:?} {:?}", self.sink.total(), self.sink.first_problem());
    }

    async fn get(&self, target: &str) -> Value {
        self.bank
            .request(http::Method::GET, target, None, client::SendOptions::default())
            .await
            .unwrap()
            .json()
            .unwrap()
    }

    async fn replayed(&self, endpoint: EndpointId, request: ReplayRequest, key: &str) -> client::Replay {
        let replay = self.bank.replay(endpoint, &request, key).await.unwrap();
        wait_until("the replay is worked off", SOON, async || {
            let now = self.bank.replay_status(&replay.status_url).await.unwrap();
            (now.status == ReplayStatus::Done).then_some(now)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merchant_manages_its_webhooks_itself() {
    let _turn = crate::turn().await;
    let options = Options::new("webhook_api");
    let options = options.with_env(Service::Ingest, "WIRED_WEBHOOK_ALLOW_LOOPBACK_HTTP", "true");
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let partner = &system.partners()[0];
    let sink = Sink::start(partner.webhook_listen).await.unwrap();
    sink.endpoint("/webhooks", &partner.webhook_secret).unwrap();
    let bank = partner.client(&system.url(0), client::Options::default()).unwrap();
    let mut shop = Shop { bank, sink, mandate: partner.mandates[0], paid: 0 };

    // Created: the next event already reaches it.
    let request = EndpointRequest { url: shop.sink.url(PATH), ed25519: true, ..EndpointRequest::default() };
    let endpoint = shop.bank.create_endpoint(&request, "endpoint").await.unwrap();
    let first_secret = endpoint.secret.clone().unwrap();
    shop.sink.endpoint(PATH, &first_secret).unwrap();
    let first = shop.pay().await;
    shop.received(first).await;

    // A ping and the flaws, each with its verdict about this receiver, which verifies well.
    let wait = Some(Duration::from_secs(10));
    for flaw in [None, Some(Flaw::WrongSignature), Some(Flaw::OldTimestamp), Some(Flaw::Doubled)] {
        let ping = shop.bank.ping(endpoint.id, flaw, wait).await.unwrap();
        assert_eq!(ping.verdict, Some(Verdict::Passed), "{flaw:?}");
    }
    assert_eq!(shop.sink.counts(PATH).invalid, 2, "the two that it had to refuse");

    // Rotated: the old secret goes on verifying, then the new one does, and then the old one is not needed.
    let rotated = shop.bank.rotate_secret(endpoint.id, Duration::from_secs(3_600), "rotate").await.unwrap();
    let second = shop.pay().await;
    shop.received(second).await;
    let check = async |shop: &Shop| {
        let body = json!({ "secret": rotated.id }).to_string();
        let target = format!("/v1/endpoints/{}/ping", endpoint.id);
        let options = client::SendOptions { wait, ..client::SendOptions::default() };
        let answer =
            shop.bank.request(http::Method::POST, &target, Some(body.into()), options).await.unwrap();
        let ping: client::Ping = answer.json().unwrap();
        ping.verdict
    };
    let needed = async |shop: &Shop| {
        let secrets = shop.get(&format!("/v1/endpoints/{}/secrets", endpoint.id)).await;
        secrets["data"][1]["needed"].clone()
    };
    assert_eq!(check(&shop).await, Some(Verdict::Failed));
    assert_eq!(needed(&shop).await, "yes");
    shop.sink.replace_secret(PATH, rotated.secret.as_deref().unwrap()).unwrap();
    assert_eq!(check(&shop).await, Some(Verdict::Passed));
    assert_eq!(needed(&shop).await, "no");
    let third = shop.pay().await;
    shop.received(third).await;

    // Disabled, missed, enabled, replayed: only what is missing comes, in its order.
    let disabled = format!("/v1/endpoints/{}/disable", endpoint.id);
    let disabled = shop.bank.request(http::Method::POST, &disabled, None, client::SendOptions::default());
    assert_eq!(disabled.await.unwrap().status, 200);
    let missed = [shop.pay().await, shop.pay().await];
    let log = shop.bank.events(0, &[], None).await.unwrap();
    let enabled = shop.bank.enable_endpoint(endpoint.id).await.unwrap();
    let offer = enabled.replay_offer.unwrap();
    let before = shop.sink.counts(PATH);
    let replay = shop.replayed(endpoint.id, offer, "missing").await;
    // Also what came just before there was the endpoint, since clocks differ.
    assert!(replay.queued >= 2, "{replay:?}");
    for payment in missed {
        shop.received(payment).await;
    }
    assert_eq!(shop.sink.counts(PATH).repeats, before.repeats, "nothing came twice");
    assert_eq!(shop.sink.gaps(PATH), []);

    // One event again, and all that there are.
    let event = log.data.last().unwrap().id;
    shop.replayed(endpoint.id, ReplayRequest::Event { event }, "again").await;
    let repeated = shop.sink.wait_until(SOON, |sink| sink.counts(PATH).repeats == before.repeats + 1);
    assert!(repeated.await, "{:?}", shop.sink.counts(PATH));
    shop.replayed(endpoint.id, ReplayRequest::Range { from_sequence: 1 }, "range").await;
    let repeated = shop.sink.wait_until(SOON, |sink| sink.counts(PATH).repeats >= before.repeats + 6);
    assert!(repeated.await, "{:?}", shop.sink.counts(PATH));

    // A failed one shows its attempts, and is delivered when it is asked for again.
    shop.sink.behave(PATH, Behaviour::Status(503));
    let failed = shop.pay().await;
    let event = shop.bank.events(0, &[], None).await.unwrap().data.last().unwrap().id;
    let list = format!("/v1/deliveries?endpoint={}&status=pending&event={event}", endpoint.id);
    let delivery = wait_until("the failed attempt is listed", SOON, async || {
        let page = shop.get(&list).await;
        let attempted = |delivery: &&Value| delivery["attempts"][0]["status_code"] == 503;
        page["data"].as_array().unwrap().iter().find(attempted).cloned()
    })
    .await;
    assert_eq!(delivery["attempts"][0]["error"], "status");
    shop.sink.behave(PATH, Behaviour::Accept);
    shop.replayed(endpoint.id, ReplayRequest::Event { event }, "failed").await;
    shop.received(failed).await;

    // The log says the same as the webhooks.
    let body = shop.bank.event(event).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["data"]["payment"]["id"], failed.to_string());
    assert_eq!(body["sequence"], delivery["sequence"]);

    shop.sink.stop().await;
    system.finish().await.unwrap();
}
