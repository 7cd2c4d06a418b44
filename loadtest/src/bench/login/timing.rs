//! Whether the time of a refused log-in tells if somebody has the address: wrong passwords for known and unknown users,
//! one at a time, in random order, each from another network.
//!
//! The samples are compared by the test of Mann and Whitney at a level of 0.001. A difference is believed when
//! [`RUNS`] runs find it in the same direction, so a false alarm comes once in thousands of millions of times; the
//! report says the smallest difference that would be found with a probability of 0.9. Then the same samples are compared
//! once more with a delay planted into the known users': a test that cannot find that proves nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::seq::SliceRandom as _;

use super::statistics::{Compared, RUNS};
use super::{LOGIN_PATH, WRONG_PASSWORD, address, admin_api};
use crate::bench::wire::{self, Requests};
use crate::bench::{Config, median};
use crate::people::People;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, System};

/// Users of each kind, and guesses at each of them: fewer than make a user's throttle slow strangers down. Each run has
/// users of its own.
const USERS: [usize; 2] = [60, 4];
const GUESSES: usize = 15;
const PASSWORD: &str = "seven quiet herons";
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Measures and reports.
pub(in crate::bench) async fn measure(
    servers: Servers,
    config: &Config,
    report: &mut Report,
) -> anyhow::Result<()> {
    let options =
        Options { admin_apis: 1, ingests: 0, notifiers: 0, customers: 1, ..Options::new("login_timing") };
    let system = System::start(servers, options).await?;
    let users = config.size(USERS[0], USERS[1]);
    let mut runs: Vec<Run> = Vec::new();
    // One run without a difference ends it; a difference is looked at again.
    loop {
        let run = run(&system, runs.len(), users).await?;
        let found = run.compared.verdict();
        eprintln!(
            "  … known users take longer than unknown ones in {:.1} % of comparisons (50 % ± {:.1} % is chance)",
            100.0 * run.compared.first_larger,
            100.0 * run.compared.critical()
        );
        runs.push(run);
        if found == 0 || runs.len() == RUNS {
            break;
        }
    }
    let direction = |run: &Run| run.compared.verdict();
    let first = direction(&runs[0]);
    let tells = runs.len() == RUNS && first != 0 && runs.iter().all(|run| direction(run) == first);
    let (known, unknown) = (median(runs[0].known.iter().copied()), median(runs[0].unknown.iter().copied()));
    report.add("refused log-in of a known user, p50", known, "ms", Goal::None);
    report.add("refused log-in of an unknown user, p50", unknown, "ms", Goal::None);
    let last = &runs[runs.len() - 1];
    let distance = (last.compared.first_larger - 0.5).abs();
    report.add("known ones slower: distance from one half", distance, "", Goal::None);
    let detectable = last.compared.detectable();
    report.add("the same that is found in 9 of 10 cases", detectable, "", Goal::None);
    report.add("the same as a delay", last.delay_of(detectable), "ms", Goal::None);
    // So long that by chance the known ones may have been as much faster as counts for nothing.
    let delay_ms = last.delay_of(detectable + last.compared.critical());
    let planted: Vec<f64> = last.known.iter().map(|time| time + delay_ms).collect();
    let planted = Compared::new(&planted, &last.unknown).verdict() > 0;
    report.add("a planted delay is found", f64::from(planted), "", Goal::AtLeast(1.0));
    report.add("times tell known users from unknown ones", f64::from(tells), "", Goal::AtMost(0.0));
    let verdict = if tells { "DISTINGUISHABLE" } else { "indistinguishable" };
    eprintln!("  … verdict: known and unknown users are {verdict} by the time of the answer");
    system.finish().await
}

/// Milliseconds of each answer.
struct Run {
    known: Vec<f64>,
    unknown: Vec<f64>,
    compared: Compared,
}

impl Run {
    /// The delay of all known users that would move the comparison by `distance`.
    fn delay_of(&self, distance: f64) -> f64 {
        let moved = |delay: f64| {
            let later: Vec<f64> = self.unknown.iter().map(|time| time + delay).collect();
            Compared::new(&later, &self.unknown).first_larger - 0.5 >= distance
        };
        let (mut low, mut high) = (0.0, 1_000.0);
        for _ in 0..30 {
            let middle = f64::midpoint(low, high);
            if moved(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}

async fn run(system: &System, number: usize, users: usize) -> anyhow::Result<Run> {
    let (people, server) = (People::of(system), admin_api(system)?);
    let email = |kind: &str, user: usize| format!("{kind}-{number}-{user}@example.com");
    for user in 0..users {
        people.customer(&email("known", user), "Anna Bell", PASSWORD).await?;
    }
    let mut guesses: Vec<(bool, String)> = Vec::new();
    for user in 0..users {
        for _ in 0..GUESSES {
            guesses.push((true, email("known", user)));
            // As long as the others.
            guesses.push((false, email("other", user)));
        }
    }
    guesses.shuffle(&mut rand::rng());
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (index, (is_known, email)) in guesses.iter().enumerate() {
        let body = serde_json::json!({ "email": email, "password": WRONG_PASSWORD });
        let from = address(number * guesses.len() + index);
        let request = Requests::plain(server, LOGIN_PATH, &[(from, body)])?;
        let milliseconds = time(server, &request).await?;
        if *is_known { known.push(milliseconds) } else { unknown.push(milliseconds) }
    }
    let compared = Compared::new(&known, &unknown);
    Ok(Run { known, unknown, compared })
}

/// Milliseconds from a request to the end of its answer, on a connection of its own.
async fn time(server: SocketAddr, request: &Requests) -> anyhow::Result<f64> {
    let mut connection = wire::Connection::open(server).await?;
    let begun = Instant::now();
    let status = tokio::time::timeout(ANSWER_TIMEOUT, connection.ask(request, 0)).await??;
    let took = begun.elapsed();
    if status != 401 {
        bail!("a guess was answered {status}");
    }
    Ok(took.as_secs_f64() * 1_000.0)
}
