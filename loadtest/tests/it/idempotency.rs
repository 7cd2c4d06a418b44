//! One key is one payment, however often and wherever it is sent.

use std::collections::HashMap;
use std::time::Duration;

use client::{Client, PaymentRequest};
use domain::ids::PaymentId;
use domain::money::{Amount, Currency};
use domain::payment::{PaymentKind, PaymentStatus};
use loadtest::faults::{audit, store};
use loadtest::system::{Options, Servers, System};
use migrations::users::Role;
use tokio::task::JoinSet;

const REPEATS: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_equal_requests_over_two_ingests_are_one_payment() {
    let _turn = crate::turn().await;
    let options = Options { ingests: 2, ..Options::new("idempotency") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let partner = &system.partners()[0];
    let banks: Vec<Client> =
        system.urls().iter().map(|url| partner.client(url, client::Options::default()).unwrap()).collect();
    let request =
        |minor| PaymentRequest::new(partner.mandates[0], Amount::new(minor, Currency::EUR).unwrap());

    // Equal requests, at once.
    let (answers, refused) = send(&banks, &[request(1_250)], "same", REPEATS).await;
    assert_eq!((answers.len(), answers.values().sum::<usize>()), (1, REPEATS), "{answers:?}");
    assert!(refused.is_empty(), "{refused:?}");
    // Two different requests under one key, at once: one of them is the payment. What ingest did not notice (the
    // key was not in the ledger yet) the processor does.
    let (answers, refused) = send(&banks, &[request(100), request(200)], "other", REPEATS).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(refused.keys().all(|code| code == "idempotency_conflict"), "{refused:?}");
    // And once the ledger has it, ingest always does.
    audit::applied(&system, Duration::from_secs(30)).await.unwrap();
    let (answers, refused) = send(&banks, &[request(777)], "same", 20).await;
    assert_eq!(
        (answers.len(), refused.get("idempotency_conflict")),
        (0, Some(&20)),
        "{answers:?} {refused:?}"
    );
    let (_, refused) = send(&banks, &[request(1_250)], "same", 20).await;
    assert!(refused.is_empty(), "{refused:?}");

    audit::applied(&system, Duration::from_secs(30)).await.unwrap();
    let rows = store::payments(system.pool()).await.unwrap();
    let of_kind = |kind: PaymentKind| rows.iter().filter(move |row| row.kind == kind.code());
    let paid: Vec<_> = of_kind(PaymentKind::Payment).collect();
    assert_eq!(paid.len(), 2, "{paid:?}");
    assert!(paid.iter().all(|row| row.status == PaymentStatus::Posted.code()), "{paid:?}");
    // Five hundred repeats of the losing request are one conflict, or none when ingest noticed them all.
    assert!(of_kind(PaymentKind::Conflict).count() <= 1, "{rows:?}");
    let sum: i64 = paid.iter().map(|row| row.amount_minor).sum();
    assert!([1_350, 1_450].contains(&sum), "{paid:?}");
    assert_eq!(store::balance(system.pool(), partner.id.uuid()).await.unwrap(), sum);
    let verifier = system.mysql_of(Role::Verifier).pool("verifier", 2).unwrap();
    let report = verifier::verify(&verifier, None).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    verifier.close().await;
    system.finish().await.unwrap();
}

/// Sends `requests` in turn over `banks` in turn, all at once; counts good answers by payment and the others by code.
async fn send(
    banks: &[Client],
    requests: &[PaymentRequest],
    key: &str,
    count: usize,
) -> (HashMap<PaymentId, usize>, HashMap<String, usize>) {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let (bank, key) = (banks[number % banks.len()].clone(), key.to_owned());
        // Every bank gets every request.
        let request = requests[number / banks.len() % requests.len()].clone();
        tasks.spawn(async move { bank.pay(&request, &key, None).await });
    }
    let (mut answers, mut refused) = (HashMap::new(), HashMap::new());
    while let Some(answer) = tasks.join_next().await {
        match answer.unwrap() {
            Ok(answer) => *answers.entry(answer.payment.id).or_default() += 1,
            Err(error) => {
                let problem = error.problem().unwrap_or_else(|| panic!("{error}"));
                *refused.entry(problem.code.clone()).or_default() += 1;
            }
        }
    }
    (answers, refused)
}
