//! A payment goes all the way.

use std::time::Duration;

use client::PaymentRequest;
use domain::money::{Amount, Currency};
use domain::payment::PaymentStatus;
use loadtest::people::{People, Role};
use loadtest::sink::Sink;
use loadtest::system::{Options, Servers, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_posted_and_its_webhook_is_received() {
    let _turn = crate::turn().await;
    let system = System::start(Servers::from_env().unwrap(), Options::new("smoke")).await.unwrap();
    let partner = &system.partners()[0];
    let sink = Sink::start(partner.webhook_listen).await.unwrap();
    sink.endpoint("/webhooks", &partner.webhook_secret).unwrap();
    let bank = partner.client(&system.url(0), client::Options::default()).unwrap();
    let request = PaymentRequest::new(partner.mandates[0], Amount::new(1_250, Currency::EUR).unwrap());
    let answer = bank.pay(&request, "smoke", Some(Duration::from_secs(10))).await.unwrap();
    assert_eq!((answer.status, answer.payment.status), (200, PaymentStatus::Posted));
    let received = sink.wait_until(Duration::from_secs(20), |sink| {
        sink.payments("/webhooks").contains_key(&answer.payment.id)
    });
    assert!(received.await, "no webhook: {:?}", sink.total());
    sink.stop().await;
    system.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_and_staff_log_in() {
    let _turn = crate::turn().await;
    let options = Options { admin_apis: 1, ingests: 0, notifiers: 0, ..Options::new("people") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let people = People::of(&system);
    let customer = people.customer("anna@example.com", "Anna Bell", "seven quiet herons").await.unwrap();
    let me = customer.client.get("/v1/me").await.unwrap().expect(200).unwrap().json();
    assert_eq!((&me["role"], &me["name"]), (&"customer".into(), &"Anna Bell".into()));
    customer.client.get("/v1/users").await.unwrap().expect(403).unwrap();
    let password = "eight loud herons";
    let mut admin = people.first_admin("ada@example.com", "Ada Byron", password).await.unwrap();
    admin.again().await.unwrap();
    let auditor = people.staff(Role::Auditor, "otto@example.com", password).await.unwrap();
    for (staff, role) in [(&admin, "admin"), (&auditor, "auditor")] {
        let me = staff.client.get("/v1/me").await.unwrap().expect(200).unwrap().json();
        assert_eq!(me["role"], role);
        staff.client.get("/v1/users").await.unwrap().expect(200).unwrap();
    }
    system.finish().await.unwrap();
}
