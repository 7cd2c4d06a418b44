//! `loadtest load`: drives the bank that runs on this machine for a while and tells what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::driver::{self, Load, Pace, Partner, Progress, Report};
use crate::latency::Latencies;
use crate::sink::Sink;

/// How long to wait for the webhooks of the last payments.
const WEBHOOKS_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings of `loadtest load`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Payments a second, at most 20,000, whatever the bank does.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, at most an hour.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// The file of the partner that posts, as `deploy/local/wired-local seed` makes it.
    #[arg(long, default_value = ".local/partner.env")]
    pub partner: PathBuf,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=20_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is 0.01 to 20000 payments a second".to_owned()),
    }
}

/// Drives, waits for the webhooks and prints a report. Ctrl-C ends it early and reports all the same.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let partner = Partner::from_env_file(&config.partner)?;
    let sink = receiver(config).await;
    let name = format!("load-{:x}", driver::now_us());
    let load =
        Load::new(&name, vec![partner], Pace::PerSecond(config.rate), Duration::from_secs(config.seconds));
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    eprintln!("{} payments/s for {} s", config.rate, config.seconds);
    let report = driver::run(&load, Arc::new(Progress::default()), stop).await?;
    print(&report);
    match sink {
        Ok((sink, path)) => print_webhooks(&report, &sink, &path).await,
        Err(why) => println!("webhooks  not counted: {why:#}"),
    }
    Ok(())
}

/// Receives the partner's webhooks in place of `wired listen`.
async fn receiver(config: &Config) -> anyhow::Result<(Sink, String)> {
    let text = std::fs::read_to_string(&config.partner)?;
    let get = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches('\''))
            .with_context(|| format!("the partner's file has no {name}"))
    };
    let sink = Sink::start(get("WIRED_WEBHOOK_LISTEN")?.parse()?).await.context("its address is taken")?;
    sink.trust_bodies();
    let path = "/webhooks".to_owned();
    sink.endpoint(&path, get("WIRED_WEBHOOK_SECRET")?)?;
    Ok((sink, path))
}

fn print(report: &Report) {
    println!("sent      {} in {:.1} s", report.sent, report.elapsed.as_secs_f64());
    println!(
        "accepted  {} ({:.0}/s), {}",
        report.accepted.len(),
        report.accepted_per_second(),
        report.latencies
    );
    for (code, count) in &report.refused {
        println!("refused   {count} {code}");
    }
    if let Some(first) = report.unknown.first() {
        println!("unknown   {}, the first: {}", report.unknown.len(), first.problem);
    }
    if report.late > 0 {
        println!("late      {} requests began more than 20 ms after they were due", report.late);
    }
}

async fn print_webhooks(report: &Report, sink: &Sink, path: &str) {
    let expected = report.accepted.len();
    let told = |sink: &Sink| {
        let told = sink.payments(path);
        report.accepted.iter().filter(|it| told.contains_key(&it.id)).count()
    };
    // The cheap count first: looking for each payment takes longer.
    sink.wait_until(WEBHOOKS_TIMEOUT, |sink| {
        sink.counts(path).events >= expected as u64 && told(sink) == expected
    })
    .await;
    let payments = sink.payments(path);
    let (mut posted, mut received) = (Latencies::default(), Latencies::default());
    for accepted in &report.accepted {
        let Some(webhook) = payments.get(&accepted.id) else { continue };
        received.record_between(accepted.due_us, webhook.received_us);
        if let Some(decided_us) = webhook.decided_us {
            posted.record_between(accepted.due_us, decided_us);
        }
    }
    println!("decided   {} of {expected}, after the request: {posted}", posted.count());
    println!("webhooks  {} of {expected}, after the request: {received}", received.count());
    let counts = sink.counts(path);
    if counts.repeats + counts.invalid > 0 {
        println!("webhooks  {} repeated, {} invalid", counts.repeats, counts.invalid);
    }
}
