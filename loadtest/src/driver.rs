//! Posts payments as partners do, through the client, and keeps a record of every answer.
//!
//! **Open loop** ([`Pace::PerSecond`]): request number `n` is due at `n / rate` whatever the bank does, and its
//! latency counts from then, so that a bank that stalls is not asked less and its stall is not left out.
//! **Closed loop** ([`Pace::Workers`]): so many workers, each sending the next request when it has its answer.
//!
//! Every request has an idempotency key of its own, `<name>-<number>`. Afterwards each stands in exactly one list of
//! the [`Report`]: accepted (the bank answered 202 or 200), refused (a problem that says that nothing happened), or
//! unknown (no answer, or an answer that leaves it open). Nothing of an unknown one may be assumed.
//!
//! Bounded by time, by requests and by requests in flight, and only for this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Client, Options, PartRequest, PaymentRequest, Retries};
use domain::ids::{MandateId, PartnerId, PaymentId, payment_id};
use domain::money::{Amount, Currency};
use domain::payment::PaymentStatus;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::latency::Latencies;
use crate::loopback;

/// The most requests of one run: their records stay in memory, 200 bytes each.
pub const REQUESTS_MAX: u64 = 5_000_000;
/// The longest run.
pub const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// A request that starts so much later than it was due is counted as late: the driver, or its bound of requests in
/// flight, was what held it up.
const LATE: Duration = Duration::from_millis(20);

/// Why a load cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not this machine.
    #[error(transparent)]
    Target(#[from] loopback::NotLoopback),
    /// The client cannot be made.
    #[error(transparent)]
    Client(#[from] client::ConfigError),
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The partner's file cannot be read.
    #[error("{path}: {problem}; `deploy/local/wired-local seed` makes one")]
    PartnerFile {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// What requests ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Payments at once, of these partners by their API keys.
    Payments,
    /// Among eight, one payment in two phases, one refund, and a capture or a void of an earlier one of the former; a
    /// third of those in two phases are left to expire.
    EveryKind,
}

/// A partner that posts payments.
#[derive(Clone)]
pub struct Partner {
    /// The partner, where it is known: what follows on a payment needs it.
    pub id: Option<PartnerId>,
    /// Where ingest is; requests are spread over several.
    pub urls: Vec<String>,
    /// Its API key.
    pub key_id: String,
    /// The key's secret, base64.
    pub secret: String,
    /// What it debits under; drawn evenly.
    pub mandates: Vec<MandateId>,
    /// The currency of all mandates.
    pub currency: Currency,
}

impl Partner {
    /// Reads the file that `admin-api seed` writes.
    pub fn from_env_file(path: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::PartnerFile { path: path.display().to_string(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let variables: BTreeMap<&str, &str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('\'')))
            .collect();
        let get = |name: &str| {
            variables
                .get(name)
                .map(|&value| value.to_owned())
                .ok_or_else(|| failed(format!("{name} is missing")))
        };
        let mandates = match variables.get("WIRED_MANDATES_FILE") {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| failed(format!("{file}: {error}")))?
            }
            None => get("WIRED_MANDATE")?,
        };
        let mandates: Result<Vec<MandateId>, _> = mandates.lines().map(str::parse).collect();
        Ok(Self {
            id: get("WIRED_PARTNER").ok().and_then(|id| id.parse().ok()),
            urls: vec![get("WIRED_URL")?],
            key_id: get("WIRED_KEY_ID")?,
            secret: get("WIRED_KEY_SECRET")?,
            mandates: mandates.map_err(|_| failed("a mandate is no mdt_…".to_owned()))?,
            currency: Currency::EUR,
        })
    }
}

/// How fast requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second, whatever the bank does.
    PerSecond(f64),
    /// So many at a time, each after the answer to the one before.
    Workers(usize),
}

/// What to drive.
#[derive(Clone)]
pub struct Load {
    /// Who posts; requests go round.
    pub partners: Vec<Partner>,
    /// How fast.
    pub pace: Pace,
    /// For how long requests are begun.
    pub duration: Duration,
    /// How many requests at most.
    pub requests_max: u64,
    /// How many requests may wait for their answer at once in an open loop.
    pub in_flight_max: usize,
    /// `Prefer: wait`.
    pub wait: Option<Duration>,
    /// How a request is repeated, with the same key, before it counts as refused or unknown.
    pub retries: Retries,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What idempotency keys begin with. A run with the same name, seed and partners repeats the same requests.
    pub name: String,
    /// Amounts are 1 to so many minor units.
    pub amount_minor_max: u32,
    /// Draws mandates and amounts.
    pub seed: u64,
    /// What requests ask for; of every kind only for partners whose ids are known.
    pub mix: Mix,
}

impl Load {
    /// A load of these partners with bounds and patience for a healthy bank, and no repetition.
    pub fn new(name: &str, partners: Vec<Partner>, pace: Pace, duration: Duration) -> Self {
        Self {
            partners,
            pace,
            duration,
            requests_max: REQUESTS_MAX,
            in_flight_max: 1_000,
            wait: None,
            retries: Retries::NONE,
            timeout: Duration::from_secs(10),
            name: name.to_owned(),
            amount_minor_max: 100,
            seed: 1,
            mix: Mix::Payments,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let problem = |text: &str| Err(Error::Setting(text.to_owned()));
        if self.partners.is_empty()
            || self.partners.iter().any(|it| it.mandates.is_empty() || it.urls.is_empty())
        {
            return problem("a load needs partners, each with a URL and a mandate");
        }
        if self.requests_max > REQUESTS_MAX || self.duration > DURATION_MAX {
            return problem("a load is at most an hour and 5,000,000 requests");
        }
        if !(1..=10_000).contains(&self.in_flight_max) {
            return problem("requests in flight: 1 to 10,000");
        }
        if self.amount_minor_max == 0 || self.name.is_empty() || self.name.len() > 200 {
            return problem("amounts begin at 1, and a load has a name of at most 200 characters");
        }
        match self.pace {
            Pace::PerSecond(rate) if rate > 0.0 && rate <= 100_000.0 => {}
            Pace::Workers(1..=10_000) => {}
            Pace::PerSecond(_) | Pace::Workers(_) => {
                return problem("a pace is above 0 and at most 100,000 a second, or 1 to 10,000 workers");
            }
        }
        self.partners.iter().flat_map(|it| &it.urls).try_for_each(|url| Ok(loopback::check(url)?))
    }
}

/// A payment that the bank accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The payment.
    pub id: PaymentId,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// Who posted it: an index into [`Load::partners`].
    pub partner: usize,
    /// What it debits.
    pub mandate: MandateId,
    /// Minor units.
    pub amount_minor: i64,
    /// 202 while pending, 200 when decided.
    pub http_status: u16,
    /// What the answer said.
    pub status: PaymentStatus,
    /// Whether the bank had seen it before.
    pub replayed: bool,
    /// When the request was due (open loop) or begun, in microseconds since 1970.
    pub due_us: i64,
    /// When the answer was there, in microseconds since 1970.
    pub answered_us: i64,
}

/// A request of which nobody knows whether the bank accepted it.
#[derive(Debug, Clone)]
pub struct Unknown {
    /// Its idempotency key: the id of the payment follows from it.
    pub idempotency_key: String,
    /// Who posted it: an index into [`Load::partners`].
    pub partner: usize,
    /// What happened.
    pub problem: String,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests begun; the sum of the three lists.
    pub sent: u64,
    /// In the order of their answers.
    pub accepted: Vec<Accepted>,
    /// Answers that say that nothing happened, by problem code.
    pub refused: BTreeMap<String, u64>,
    /// The rest.
    pub unknown: Vec<Unknown>,
    /// From when a request was due to its good answer.
    pub latencies: Latencies,
    /// Requests begun later than they were due.
    pub late: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Report {
    /// Good answers a second.
    pub fn accepted_per_second(&self) -> f64 {
        self.accepted.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Counters to look at while a load runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests begun.
    pub sent: AtomicU64,
    /// Good answers.
    pub accepted: AtomicU64,
    /// Refused or unknown.
    pub failed: AtomicU64,
}

/// Now, in microseconds since 1970.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
}

/// Drives a load until its bounds or `stop`; waits for the answers of everything begun.
pub async fn run(load: &Load, progress: Arc<Progress>, stop: CancellationToken) -> Result<Report, Error> {
    load.check()?;
    let driver = Arc::new(Driver::new(load.clone(), progress)?);
    let started = Instant::now();
    match load.pace {
        Pace::PerSecond(rate) => open_loop(&driver, rate, started, &stop).await,
        Pace::Workers(workers) => closed_loop(&driver, workers, started, &stop).await,
    }
    let mut report = std::mem::take(&mut *lock(&driver.report));
    report.elapsed = started.elapsed();
    Ok(report)
}

async fn open_loop(driver: &Arc<Driver>, rate: f64, started: Instant, stop: &CancellationToken) {
    let in_flight = Arc::new(Semaphore::new(driver.load.in_flight_max));
    let mut requests = JoinSet::new();
    for number in 0..driver.load.requests_max {
        let due = started + Duration::from_secs_f64(number as f64 / rate);
        if due >= started + driver.load.duration {
            break;
        }
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            slot = async {
                tokio::time::sleep_until(due).await;
                in_flight.clone().acquire_owned().await
            } => slot,
        };
        let driver = driver.clone();
        requests.spawn(async move {
            driver.request(number, due).await;
            drop(slot);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn closed_loop(driver: &Arc<Driver>, workers: usize, started: Instant, stop: &CancellationToken) {
    let next = Arc::new(AtomicU64::new(0));
    let end = started + driver.load.duration;
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (driver, next, stop) = (driver.clone(), next.clone(), stop.clone());
        tasks.spawn(async move {
            while Instant::now() < end && !stop.is_cancelled() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= driver.load.requests_max {
                    break;
                }
                driver.request(number, Instant::now()).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Requests of a partner before it follows on one.
const FOLLOWING: u64 = 64;
/// How long the funds of a payment in two phases are held: the shortest that ingest lets partners ask for.
const HOLD_S: u32 = 60;

/// What one request asks for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Payment,
    Authorization,
    Capture(PaymentId),
    Void(PaymentId),
    Refund(PaymentId),
}

struct Driver {
    load: Load,
    /// Clients of each partner, one for each URL.
    clients: Vec<Vec<Client>>,
    progress: Arc<Progress>,
    report: Mutex<Report>,
}

impl Driver {
    fn new(load: Load, progress: Arc<Progress>) -> Result<Self, Error> {
        let options = Options { timeout: load.timeout, retries: load.retries, ..Options::default() };
        let clients_of = |partner: &Partner| {
            let client =
                |url: &String| Client::with_options(url, &partner.key_id, &partner.secret, options.clone());
            partner.urls.iter().map(client).collect::<Result<Vec<_>, _>>()
        };
        let clients = load.partners.iter().map(clients_of).collect::<Result<_, _>>()?;
        Ok(Self { load, clients, progress, report: Mutex::default() })
    }

    /// What the request of a number asks for. What it follows on came a while ago, from the same partner.
    fn kind_of(&self, number: u64) -> Kind {
        let partners = self.load.partners.len() as u64;
        let Some(partner) = self.load.partners[(number % partners) as usize].id else { return Kind::Payment };
        let place = number / partners;
        if self.load.mix == Mix::Payments || place < FOLLOWING {
            return Kind::Payment;
        }
        let root = |back: u64| {
            let number = (place - back) * partners + number % partners;
            payment_id(partner, &format!("{}-{number}", self.load.name))
        };
        match place % 8 {
            4 => Kind::Authorization,
            5 => Kind::Refund(root(45)),
            // Those in two phases by turns: captured, voided, or left to expire.
            6 if (place / 8).is_multiple_of(3) => Kind::Capture(root(42)),
            6 if place / 8 % 3 == 1 => Kind::Void(root(42)),
            _ => Kind::Payment,
        }
    }

    async fn ask(
        &self,
        client: &Client,
        kind: Kind,
        request: PaymentRequest,
        key: &str,
    ) -> Result<client::Accepted, client::Error> {
        let wait = self.load.wait;
        match kind {
            Kind::Payment => client.pay(&request, key, wait).await,
            Kind::Authorization => client.pay(&request.authorize(Some(HOLD_S)), key, wait).await,
            Kind::Capture(root) => client.capture(root, &PartRequest::everything(), key, wait).await,
            Kind::Void(root) => client.void(root, key, wait).await,
            Kind::Refund(root) => client.refund(root, &PartRequest::everything(), key, wait).await,
        }
    }

    async fn request(&self, number: u64, due: Instant) {
        let begun = Instant::now();
        self.progress.sent.fetch_add(1, Ordering::Relaxed);
        let load = &self.load;
        let index = (number % load.partners.len() as u64) as usize;
        let partner = &load.partners[index];
        let draw = scatter(load.seed.wrapping_add(scatter(number)));
        let mandate = partner.mandates[(draw % partner.mandates.len() as u64) as usize];
        let amount_minor = 1 + ((draw >> 40) % u64::from(load.amount_minor_max)) as i64;
        let clients = &self.clients[index];
        let client = &clients[(number / load.partners.len() as u64 % clients.len() as u64) as usize];
        let idempotency_key = format!("{}-{number}", load.name);
        let due_us = now_us() - begun.duration_since(due).as_micros() as i64;
        let answer = match Amount::new(amount_minor, partner.currency) {
            Ok(amount) => {
                let request = PaymentRequest::new(mandate, amount);
                self.ask(client, self.kind_of(number), request, &idempotency_key).await
            }
            Err(error) => Err(client::Error::Request(error.to_string())),
        };
        let answered_us = now_us();
        let mut report = lock(&self.report);
        report.sent += 1;
        report.late += u64::from(begun.duration_since(due) > LATE);
        match answer {
            Ok(answer) => {
                self.progress.accepted.fetch_add(1, Ordering::Relaxed);
                report.latencies.record(due.elapsed());
                report.accepted.push(Accepted {
                    id: answer.payment.id,
                    idempotency_key,
                    partner: index,
                    mandate,
                    amount_minor,
                    http_status: answer.status,
                    status: answer.payment.status,
                    replayed: answer.replayed,
                    due_us,
                    answered_us,
                });
            }
            Err(error) => {
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
                if let Some(code) = refusal(&error, load.retries.max > 0) {
                    *report.refused.entry(code).or_default() += 1;
                } else {
                    let problem = error.to_string();
                    report.unknown.push(Unknown { idempotency_key, partner: index, problem });
                }
            }
        }
    }
}

/// The word for a failure after which surely nothing was accepted; `None` when that is not sure. Of a repeated
/// request only the last failure is known, and an earlier try may have been accepted unseen.
fn refusal(error: &client::Error, repeated: bool) -> Option<String> {
    match error {
        client::Error::Request(_) => Some("bad_request".to_owned()),
        _ if repeated => None,
        client::Error::Problem(problem) if problem.status < 500 || problem.code == "queue_unavailable" => {
            Some(problem.code.clone())
        }
        client::Error::Unreachable { .. } => Some("unreachable".to_owned()),
        client::Error::Problem(_) | client::Error::NoAnswer { .. } | client::Error::Unexpected { .. } => None,
    }
}

/// Spreads neighbouring numbers over all of `u64` (the finaliser of SplitMix64).
pub(crate) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
