//! Wrong passwords without end, from everywhere and for everybody: memory and threads stay bounded, every answer says
//! what it is, and who has the right password still gets in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loadtest::people::People;
use loadtest::system::{Options, Servers, Service, System};
use tokio::task::JoinSet;

/// Connections of the guesser. If each hash had its memory at once, it would be 1.9 GiB.
const CONNECTIONS: usize = 100;
/// What admin-api takes with two hashes of 19 MiB at once, in a debug build, and room to spare.
const MIB_MAX: f64 = 200.0;
const EMAIL: &str = "anna@example.com";
const PASSWORD: &str = "seven quiet herons";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wrong_passwords_cost_bounded_memory_and_lock_nobody_out() {
    let _turn = crate::turn().await;
    let guesses = crate::number("WIRED_LOGIN_GUESSES").unwrap_or(600) as usize;
    let options =
        Options { admin_apis: 1, ingests: 0, notifiers: 0, customers: 1, ..Options::new("guesses") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let people = People::of(&system);
    let mut anna = people.customer(EMAIL, "Anna Bell", PASSWORD).await.unwrap();
    let threads = || threads(system.pid(Service::AdminApi, 0).unwrap());
    let mib = || system.memory_max_bytes(Service::AdminApi, 0).unwrap() / 1_048_576.0;
    let mib_before = mib();
    let (threads_before, client) = (threads(), people.client().unwrap());
    let (next, mut guessers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..CONNECTIONS {
        let (next, client) = (next.clone(), client.clone());
        guessers.spawn(async move {
            let mut answers = BTreeMap::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= guesses {
                    return answers;
                }
                // A third at Anna, the others each at somebody else; each from another network.
                let email =
                    if number % 3 == 0 { EMAIL.to_owned() } else { format!("guessed{number}@example.com") };
                let from = format!("2001:db8:77:{number:x}::1");
                let answer =
                    client.coming_from(&from).log_in(&email, "wrong grey pigeons", None).await.unwrap();
                *answers.entry((answer.status, answer.code())).or_insert(0_usize) += 1;
            }
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(of_one) = guessers.join_next().await {
        for (answer, count) in of_one.unwrap() {
            *answers.entry(answer).or_insert(0) += count;
        }
    }
    let threads_after = threads();
    let count = |status: u16, code: &str| answers.get(&(status, code.to_owned())).copied().unwrap_or(0);
    let known = count(401, "credentials_invalid") + count(429, "too_many_attempts") + count(503, "busy");
    assert_eq!(known, guesses, "{answers:?}");
    assert!(count(401, "credentials_invalid") >= 30 && count(503, "busy") > 0, "{answers:?}");
    let mib_more = mib() - mib_before;
    assert!(mib_more < MIB_MAX, "{mib_before:.0} MiB and {mib_more:.0} more for {answers:?}");
    assert!(threads_after <= threads_before + 8, "{threads_before} threads became {threads_after}");
    // Where she has logged in before, nothing is different.
    anna.again().await.unwrap();
    anna.client.get("/v1/me").await.unwrap().expect(200).unwrap();
    system.finish().await.unwrap();
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}
