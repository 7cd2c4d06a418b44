//! Figures by hour and day, for charts. All are read from sums that are counted a little after the ledger; nothing here
//! reads payments, so an answer takes as long over ten million of them as over ten.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use domain::histogram::Histogram;
use domain::ids::PartnerId;
use domain::money::Currency;
use domain::payment::{PaymentKind, PaymentStatus, Reason};
use domain::time::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::access::Reader;
use crate::analytics::{facts::Grain, zone_of};
use crate::app::App;
use crate::body::FromQuery;
use crate::problem::{Code, Problem};
use crate::store::analytics::{self as store, Buckets};

/// Buckets of one answer: a month of hours, a year and a month of days.
const HOURS_MAX: i32 = 31 * 24 + 1;
const DAYS_MAX: i32 = 400;
/// Without `from`.
const HOURS_DEFAULT: i64 = 24;
const DAYS_DEFAULT: i64 = 30;
/// Partners of one answer.
const PARTNERS_MAX: u32 = 100;
/// Rows of calls of one answer.
const CALLS_MAX: usize = 20_000;

/// Which time.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Window {
    /// From the bucket of this time on, RFC 3339; a day or 30 days before `to` when left out.
    #[param(value_type = Option<String>, example = "2026-11-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// To the bucket that holds what is before this time; now when left out.
    #[param(value_type = Option<String>, example = "2026-12-01T00:00:00Z")]
    to: Option<Timestamp>,
    /// `hour` (at most 31 days) or `day` (of the bank's zone, at most 400).
    #[param(value_type = Option<String>, example = "day")]
    step: Option<Grain>,
    /// `false` for test money.
    #[param(example = true)]
    livemode: Option<bool>,
}

/// Which partners.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PartnersWindow {
    /// From the day of this time on; 30 days before `to` when left out.
    #[param(value_type = Option<String>, example = "2026-11-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// To the day that holds what is before this time; now when left out.
    #[param(value_type = Option<String>, example = "2026-12-01T00:00:00Z")]
    to: Option<Timestamp>,
    /// `false` for test money.
    #[param(example = true)]
    livemode: Option<bool>,
    /// Ranks by what was taken in this currency; by the number of commands when left out.
    #[param(value_type = Option<String>, example = "EUR")]
    currency: Option<Currency>,
    /// How many, 1 to 100.
    #[param(example = 10)]
    limit: Option<u32>,
}

/// Whose calls.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CallsWindow {
    /// As everywhere in analytics.
    #[param(value_type = Option<String>, example = "2026-11-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// As everywhere in analytics.
    #[param(value_type = Option<String>, example = "2026-12-01T00:00:00Z")]
    to: Option<Timestamp>,
    /// `hour` or `day`.
    #[param(value_type = Option<String>, example = "day")]
    step: Option<Grain>,
    /// Of this partner alone.
    #[param(value_type = Option<String>, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: Option<PartnerId>,
}

/// What the figures are of.
#[derive(Debug, Serialize, ToSchema)]
pub struct Frame {
    /// When the first bucket begins.
    #[schema(value_type = String, example = "2026-10-31T23:00:00.000000Z")]
    from: Timestamp,
    /// When the last bucket ends.
    #[schema(value_type = String, example = "2026-11-30T23:00:00.000000Z")]
    to: Timestamp,
    /// How long a bucket is.
    #[schema(value_type = String, example = "day")]
    step: Grain,
    /// Whose days they are.
    #[schema(example = "Europe/Vienna")]
    time_zone: String,
    /// When it was last looked for something to count; nothing before the first time.
    #[schema(value_type = Option<String>, example = "2026-11-30T12:00:00.000000Z")]
    counted_at: Option<Timestamp>,
    /// Commands that are decided and not counted yet, at most.
    #[schema(example = 0)]
    behind: u64,
}

struct Wanted {
    buckets: Buckets,
    zone: TimeZone,
    frame: Frame,
}

impl Wanted {
    fn start(&self, bucket: i32) -> Timestamp {
        self.buckets.grain.start(bucket, &self.zone)
    }
}

fn refuse(detail: String) -> Problem {
    Problem::new(Code::MalformedRequest, detail)
}

async fn wanted(app: &App, window: &Window) -> Result<Wanted, Problem> {
    let shown = store::shown(&app.pool).await?;
    let (generation, zone, counted_at) = match &shown {
        Some(shown) => (shown.number, zone_of(shown), Some(shown.counted_at)),
        // Nothing was counted yet.
        None => (0, app.bank_time_zone.clone(), None),
    };
    let behind = match &shown {
        Some(shown) => store::behind(&app.pool, shown.number).await?,
        None => 0,
    };
    let to = match window.to {
        Some(to) => to,
        None => store::count::now(&app.pool).await?.plus_micros(1),
    };
    let (grain, first, last) = range(window, to, &zone)?;
    let frame = Frame {
        from: grain.start(first, &zone),
        to: grain.start(last.saturating_add(1), &zone),
        step: grain,
        time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        counted_at,
        behind,
    };
    let livemode = window.livemode.unwrap_or(true);
    Ok(Wanted { buckets: Buckets { generation, livemode, grain, first, last }, zone, frame })
}

/// The first and the last bucket.
fn range(window: &Window, to: Timestamp, zone: &TimeZone) -> Result<(Grain, i32, i32), Problem> {
    let grain = window.step.unwrap_or_else(|| {
        let short = window.from.is_none_or(|from| to.seconds() - from.seconds() <= 2 * HOURS_DEFAULT * 3_600);
        if short { Grain::Hour } else { Grain::Day }
    });
    let (length_s, most) = match grain {
        Grain::Hour => (HOURS_DEFAULT * 3_600, HOURS_MAX),
        Grain::Day => (DAYS_DEFAULT * 86_400, DAYS_MAX),
    };
    let from = window.from.unwrap_or_else(|| to.plus_seconds(-length_s));
    if from >= to {
        return Err(refuse("`from` must be before `to`".to_owned()));
    }
    let (first, last) = (grain.bucket(from, zone), grain.bucket(to.plus_micros(-1), zone));
    if last - first >= most {
        return Err(refuse(format!(
            "at most {most} buckets in one answer: choose a longer step or a shorter time"
        )));
    }
    Ok((grain, first, last))
}

/// A sum that may be larger than any amount, with the currency's digits.
fn decimal(minor: i128, currency: Currency) -> String {
    let digits = currency.digits() as usize;
    let sign = if minor < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
    let (whole, rest) = text.split_at(text.len() - digits);
    if digits == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

macro_rules! answers {
    ($($(#[$doc:meta])* $Answer:ident of $Row:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        pub struct $Answer {
            #[serde(flatten)]
            frame: Frame,
            /// Only where there is something to tell.
            data: Vec<$Row>,
        }
    )*};
}

answers! {
    /// What moved.
    VolumeAnswer of Volume;
    /// What was decided.
    OutcomesAnswer of Outcome;
    /// How long deciding took.
    LatencyAnswer of Latency;
    /// Who took most.
    PartnersAnswer of TopPartner;
    /// How many customers were active.
    ActiveAnswer of Active;
    /// What the APIs were asked.
    CallsAnswer of Calls;
    /// How deliveries fared.
    DeliveriesAnswer of Deliveries;
}

/// What moved in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Volume {
    /// When the bucket begins.
    #[schema(value_type = String, example = "2026-11-01T23:00:00.000000Z")]
    start: Timestamp,
    /// By what.
    #[schema(value_type = String, example = "payment")]
    kind: PaymentKind,
    /// In which currency.
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// How many commands moved it.
    #[schema(example = 1200)]
    count: u64,
    /// The sum, as a decimal string.
    #[schema(example = "15034.20")]
    amount: String,
}

/// Volume
///
/// What moved, by kind and currency. An authorised payment moves nothing until its capture does.
#[utoipa::path(
    get, path = "/v1/analytics/volume", tag = "analytics", operation_id = "analytics_volume", security(("access_token" = [])),
    params(Window),
    responses(
        (status = 200, description = "The figures", body = VolumeAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"start": "2026-11-01T23:00:00.000000Z", "kind": "payment", "currency": "EUR", "count": 1200, "amount": "15034.20"}]})),
    )
)]
pub async fn volume(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(window): FromQuery<Window>,
) -> Result<axum::Json<VolumeAnswer>, Problem> {
    let wanted = wanted(&app, &window).await?;
    let rows = store::volume(&app.pool, &wanted.buckets).await?;
    let row = |row: store::VolumeRow| Volume {
        start: wanted.start(row.bucket),
        kind: row.kind,
        currency: row.currency,
        count: row.commands,
        amount: decimal(row.moved_minor, row.currency),
    };
    let data = rows.into_iter().map(row).collect();
    Ok(axum::Json(VolumeAnswer { data, frame: wanted.frame }))
}

/// What was decided in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outcome {
    /// When the bucket begins.
    #[schema(value_type = String, example = "2026-11-01T23:00:00.000000Z")]
    start: Timestamp,
    /// On what.
    #[schema(value_type = String, example = "payment")]
    kind: PaymentKind,
    /// `posted`, `authorized`, `rejected` or `conflicted`.
    #[schema(value_type = String, example = "rejected")]
    outcome: PaymentStatus,
    /// Why it was rejected.
    #[schema(value_type = Option<String>, example = "insufficient_funds")]
    reason: Option<Reason>,
    /// How often.
    #[schema(example = 17)]
    count: u64,
}

/// Outcomes
///
/// What was decided, by kind, outcome and reason. Each command counts once, as it was decided.
#[utoipa::path(
    get, path = "/v1/analytics/outcomes", tag = "analytics", operation_id = "analytics_outcomes", security(("access_token" = [])),
    params(Window),
    responses(
        (status = 200, description = "The figures", body = OutcomesAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"start": "2026-11-01T23:00:00.000000Z", "kind": "payment", "outcome": "rejected", "reason": "insufficient_funds", "count": 17}]})),
    )
)]
pub async fn outcomes(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(window): FromQuery<Window>,
) -> Result<axum::Json<OutcomesAnswer>, Problem> {
    let wanted = wanted(&app, &window).await?;
    let rows = store::outcomes(&app.pool, &wanted.buckets).await?;
    let row = |row: store::OutcomeRow| Outcome {
        start: wanted.start(row.bucket),
        kind: row.kind,
        outcome: row.outcome,
        reason: row.reason,
        count: row.commands,
    };
    let data = rows.into_iter().map(row).collect();
    Ok(axum::Json(OutcomesAnswer { data, frame: wanted.frame }))
}

/// Times of a bucket, in milliseconds, told at most an eighth too high.
#[derive(Debug, Serialize, ToSchema)]
pub struct Latency {
    /// When the bucket begins.
    #[schema(value_type = String, example = "2026-11-01T23:00:00.000000Z")]
    start: Timestamp,
    #[serde(flatten)]
    times: Times,
}

/// Quantiles, in milliseconds, told at most an eighth too high.
#[derive(Debug, Serialize, ToSchema)]
pub struct Times {
    /// How many.
    #[schema(example = 1200)]
    count: u64,
    /// Half of them took no longer.
    #[schema(example = 4.09)]
    p50_ms: f64,
    /// 95 of 100.
    #[schema(example = 9.21)]
    p95_ms: f64,
    /// 99 of 100.
    #[schema(example = 20.47)]
    p99_ms: f64,
    /// All of them.
    #[schema(example = 57.34)]
    max_ms: f64,
}

impl Times {
    fn of(histogram: &Histogram) -> Self {
        let ms = |thousandths| histogram.quantile(thousandths).unwrap_or_default() as f64 / 1_000.0;
        Self {
            count: histogram.total(),
            p50_ms: ms(500),
            p95_ms: ms(950),
            p99_ms: ms(990),
            max_ms: ms(1_000),
        }
    }
}

/// Latency
///
/// How long it took from a command's acceptance to its decision.
#[utoipa::path(
    get, path = "/v1/analytics/latency", tag = "analytics", operation_id = "analytics_latency", security(("access_token" = [])),
    params(Window),
    responses(
        (status = 200, description = "The figures", body = LatencyAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"start": "2026-11-01T23:00:00.000000Z", "count": 1200, "p50_ms": 4.09, "p95_ms": 9.21, "p99_ms": 20.47, "max_ms": 57.34}]})),
    )
)]
pub async fn latency(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(window): FromQuery<Window>,
) -> Result<axum::Json<LatencyAnswer>, Problem> {
    let wanted = wanted(&app, &window).await?;
    let mut buckets: BTreeMap<i32, Histogram> = BTreeMap::new();
    for (bucket, step, commands) in store::latency(&app.pool, &wanted.buckets).await? {
        buckets.entry(bucket).or_default().add(step, commands);
    }
    let row = |(bucket, histogram): (&i32, &Histogram)| Latency {
        start: wanted.start(*bucket),
        times: Times::of(histogram),
    };
    let data = buckets.iter().map(row).collect();
    Ok(axum::Json(LatencyAnswer { data, frame: wanted.frame }))
}

/// A partner and what it did.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopPartner {
    /// The partner.
    #[schema(value_type = String, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: PartnerId,
    /// Its name.
    #[schema(example = "Café Mozart")]
    name: String,
    /// Its commands on money.
    #[schema(example = 1200)]
    commands: u64,
    /// How many of them were rejected.
    #[schema(example = 17)]
    rejected: u64,
    /// What moved, by currency.
    amounts: Vec<TakenAndReturned>,
}

/// What a partner took and gave back in a currency.
#[derive(Debug, Serialize, ToSchema)]
pub struct TakenAndReturned {
    /// The currency.
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// By payments and captures.
    #[schema(example = "15034.20")]
    taken: String,
    /// By refunds and reversals.
    #[schema(example = "210.00")]
    returned: String,
}

/// Top partners
///
/// By what they took in a currency, or by the number of their commands; whole days of the bank's zone.
#[utoipa::path(
    get, path = "/v1/analytics/top-partners", tag = "analytics", operation_id = "analytics_top_partners", security(("access_token" = [])),
    params(PartnersWindow),
    responses(
        (status = 200, description = "The figures", body = PartnersAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"partner": "ptr_01k9q5m3v7f8h9j0kamcneprqs", "name": "Café Mozart", "commands": 1200, "rejected": 17, "amounts": [{"currency": "EUR", "taken": "15034.20", "returned": "210.00"}]}]})),
    )
)]
pub async fn top_partners(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(window): FromQuery<PartnersWindow>,
) -> Result<axum::Json<PartnersAnswer>, Problem> {
    let limit = match window.limit {
        None => 10,
        Some(limit @ 1..=PARTNERS_MAX) => limit,
        Some(_) => return Err(refuse(format!("`limit` is 1 to {PARTNERS_MAX}"))),
    };
    let PartnersWindow { from, to, livemode, currency, .. } = window;
    let wanted = wanted(&app, &Window { from, to, step: Some(Grain::Day), livemode }).await?;
    let mut data: Vec<TopPartner> = Vec::new();
    for row in store::top_partners(&app.pool, &wanted.buckets, currency, limit as usize).await? {
        let amounts = row.currency.map(|currency| TakenAndReturned {
            currency,
            taken: decimal(row.taken_minor, currency),
            returned: decimal(row.returned_minor, currency),
        });
        match data.last_mut().filter(|last| last.partner == row.partner) {
            Some(last) => {
                last.commands += row.commands;
                last.rejected += row.rejected;
                last.amounts.extend(amounts);
            }
            None => data.push(TopPartner {
                partner: row.partner,
                name: row.name,
                commands: row.commands,
                rejected: row.rejected,
                amounts: amounts.into_iter().collect(),
            }),
        }
    }
    Ok(axum::Json(PartnersAnswer { data, frame: wanted.frame }))
}

/// Customers of a day.
#[derive(Debug, Serialize, ToSchema)]
pub struct Active {
    /// When the day begins.
    #[schema(value_type = String, example = "2026-11-01T23:00:00.000000Z")]
    start: Timestamp,
    /// Customers of whose accounts something was debited or held, each once.
    #[schema(example = 320)]
    customers: u64,
}

/// Active customers
///
/// Customers of whose accounts something was debited or held on a day of the bank's zone, each once; real money only.
#[utoipa::path(
    get, path = "/v1/analytics/active-users", tag = "analytics", operation_id = "analytics_active_users", security(("access_token" = [])),
    params(Window),
    responses(
        (status = 200, description = "The figures", body = ActiveAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"start": "2026-11-01T23:00:00.000000Z", "customers": 320}]})),
    )
)]
pub async fn active_users(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(window): FromQuery<Window>,
) -> Result<axum::Json<ActiveAnswer>, Problem> {
    if window.step == Some(Grain::Hour) {
        return Err(refuse("active customers are counted by day".to_owned()));
    }
    let wanted = wanted(&app, &Window { step: Some(Grain::Day), ..window }).await?;
    let rows = store::active(&app.pool, &wanted.buckets).await?;
    let data =
        rows.into_iter().map(|(day, customers)| Active { start: wanted.start(day), customers }).collect();
    Ok(axum::Json(ActiveAnswer { data, frame: wanted.frame }))
}

/// Requests of a partner in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Calls {
    /// When the bucket begins.
    #[schema(value_type = String, example = "2026-11-01T23:00:00.000000Z")]
    start: Timestamp,
    /// `partners`: the partners' API; `bank`: this one.
    #[schema(example = "partners")]
    api: &'static str,
    /// The partner; nothing when none was recognised.
    #[schema(value_type = Option<String>, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: Option<PartnerId>,
    /// How many.
    #[schema(example = 5400)]
    calls: u64,
    /// Answered 4xx.
    #[schema(example = 12)]
    client_errors: u64,
    /// Answered 5xx.
    #[schema(example = 0)]
    server_errors: u64,
    /// How long one took, on average.
    #[schema(example = 3.4)]
    mean_ms: f64,
}

/// API calls
///
/// Requests and errors by partner. The first 20000 rows: ask for one partner or a shorter time when there are more.
#[utoipa::path(
    get, path = "/v1/analytics/api-calls", tag = "analytics", operation_id = "analytics_api_calls", security(("access_token" = [])),
    params(CallsWindow),
    responses(
        (status = 200, description = "The figures", body = CallsAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"start": "2026-11-01T23:00:00.000000Z", "api": "partners", "partner": "ptr_01k9q5m3v7f8h9j0kamcneprqs", "calls": 5400, "client_errors": 12, "server_errors": 0, "mean_ms": 3.4}]})),
    )
)]
pub async fn api_calls(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(CallsWindow { from, to, step, partner }): FromQuery<CallsWindow>,
) -> Result<axum::Json<CallsAnswer>, Problem> {
    let wanted = wanted(&app, &Window { from, to, step, livemode: None }).await?;
    let rows = store::calls(&app.pool, &wanted.buckets, partner, CALLS_MAX).await?;
    let row = |row: store::CallsRow| Calls {
        start: wanted.start(row.bucket),
        api: if row.service == 1 { "partners" } else { "bank" },
        partner: row.partner,
        calls: row.calls,
        client_errors: row.client_errors,
        server_errors: row.server_errors,
        mean_ms: row.duration_us as f64 / 1_000.0 / row.calls.max(1) as f64,
    };
    let data = rows.into_iter().map(row).collect();
    Ok(axum::Json(CallsAnswer { data, frame: wanted.frame }))
}

/// Attempts of a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deliveries {
    /// When the bucket begins.
    #[schema(value_type = String, example = "2026-11-01T23:00:00.000000Z")]
    start: Timestamp,
    /// Attempts that the endpoint accepted.
    #[schema(example = 1180)]
    delivered: u64,
    /// Attempts that failed and were to be repeated.
    #[schema(example = 20)]
    failed: u64,
    /// Attempts that failed and were the last.
    #[schema(example = 0)]
    given_up: u64,
    /// Attempts that were accepted, of all that were made, 0 to 1.
    #[schema(example = 0.983)]
    success: f64,
    /// How long accepted attempts took.
    latency: Times,
}

/// Deliveries
///
/// Attempts to deliver events, by how they ended. Days are put together from hours of UTC.
#[utoipa::path(
    get, path = "/v1/analytics/deliveries", tag = "analytics", operation_id = "analytics_deliveries", security(("access_token" = [])),
    params(Window),
    responses(
        (status = 200, description = "The figures", body = DeliveriesAnswer, example = json!({"from": "2026-10-31T23:00:00.000000Z", "to": "2026-11-30T23:00:00.000000Z", "step": "day", "time_zone": "Europe/Vienna", "counted_at": "2026-11-30T12:00:00.000000Z", "behind": 0, "data": [{"start": "2026-11-01T23:00:00.000000Z", "delivered": 1180, "failed": 20, "given_up": 0, "success": 0.983, "latency": {"count": 1180, "p50_ms": 12.28, "p95_ms": 40.95, "p99_ms": 114.68, "max_ms": 229.37}}]})),
    )
)]
pub async fn deliveries(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(window): FromQuery<Window>,
) -> Result<axum::Json<DeliveriesAnswer>, Problem> {
    let wanted = wanted(&app, &window).await?;
    let hour = |at: Timestamp| Grain::Hour.bucket(at, &wanted.zone);
    let (first, last) = (hour(wanted.frame.from), hour(wanted.frame.to.plus_micros(-1)));
    let mut buckets: BTreeMap<i32, ([u64; 3], Histogram)> = BTreeMap::new();
    for (hour, outcome, step, attempts) in store::deliveries(&app.pool, first, last).await? {
        let bucket = wanted.buckets.grain.bucket(Grain::Hour.start(hour, &wanted.zone), &wanted.zone);
        let (counts, latency) = buckets.entry(bucket).or_default();
        if let Some(count) = counts.get_mut(usize::from(outcome.saturating_sub(1))) {
            *count += attempts;
        }
        if outcome == 1 {
            latency.add(step, attempts);
        }
    }
    let row = |(bucket, ([delivered, failed, given_up], latency)): (&i32, &([u64; 3], Histogram))| {
        let all = delivered + failed + given_up;
        Deliveries {
            start: wanted.start(*bucket),
            delivered: *delivered,
            failed: *failed,
            given_up: *given_up,
            success: *delivered as f64 / all.max(1) as f64,
            latency: Times::of(latency),
        }
    };
    let data = buckets.iter().map(row).collect();
    Ok(axum::Json(DeliveriesAnswer { data, frame: wanted.frame }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_with_the_currencys_digits() {
        assert_eq!(decimal(0, Currency::EUR), "0.00");
        assert_eq!(decimal(5, Currency::EUR), "0.05");
        assert_eq!(decimal(-1_234, Currency::KWD), "-1.234");
        assert_eq!(decimal(7, Currency::JPY), "7");
        assert_eq!(decimal(i128::from(i64::MAX) * 10, Currency::EUR), "922337203685477580.70");
    }

    #[test]
    fn a_window_is_bounded_and_holds_whole_buckets() {
        let zone = TimeZone::get("Europe/Vienna").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let window = |from: Option<&str>, step| Window { from: from.map(at), step, ..Window::default() };
        let to = at("2026-11-30T12:30:00Z");
        let range = |window: &Window| range(window, to, &zone).map_err(|problem| problem.detail.into_owned());
        let (grain, first, last) = range(&window(None, None)).unwrap();
        assert_eq!((grain, last - first), (Grain::Hour, 24));
        let (grain, first, last) = range(&window(None, Some(Grain::Day))).unwrap();
        assert_eq!((grain, last - first), (Grain::Day, 30));
        let (grain, ..) = range(&window(Some("2026-11-01T00:00:00Z"), None)).unwrap();
        assert_eq!(grain, Grain::Day);
        // The last instant before midnight is of the day before.
        let midnight = Window { to: None, ..window(Some("2026-11-29T22:59:59.999999Z"), Some(Grain::Day)) };
        let (_, first, last) = range(&midnight).unwrap();
        assert_eq!(last - first, 1);
        for (from, step) in [
            ("2026-11-30T12:30:00Z", None),
            ("2027-01-01T00:00:00Z", Some(Grain::Day)),
            ("2026-10-29T00:00:00Z", Some(Grain::Hour)),
            ("1970-01-01T00:00:00Z", None),
        ] {
            assert!(range(&window(Some(from), step)).is_err(), "{from}");
        }
    }
}
