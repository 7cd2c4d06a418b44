//! Every part of the bank is killed at random moments under load.

use loadtest::faults::killed_anywhere::{self, Plan};

/// `WIRED_FAULT_KILLS`: SIGKILLs to services in a run.
const KILLS: u32 = 30;
/// Payments a second: enough that something is always under way, few enough for a debug build on two cores.
const RATE: f64 = 100.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_is_twice_when_every_part_is_killed() {
    let _turn = crate::turn().await;
    let seed = crate::number("WIRED_FAULT_SEED").unwrap_or_else(rand::random);
    let kills = crate::number("WIRED_FAULT_KILLS").map_or(KILLS, |kills| kills as u32);
    match killed_anywhere::run(Plan { seed, kills, rate: RATE }).await {
        Ok(outcome) => println!("{outcome:#?}"),
        Err(error) => panic!("with WIRED_FAULT_SEED={seed} WIRED_FAULT_KILLS={kills}: {error:#}"),
    }
}
