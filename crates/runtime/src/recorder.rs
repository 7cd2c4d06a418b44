//! The metrics recorder: one per process, however many services a test starts in it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histograms whose name ends in `_seconds`: half a millisecond to half a minute.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Upper bounds of all other histograms: sizes and counts.
const COUNTS: &[f64] = &[
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
    1_000.0,
    2_000.0,
    5_000.0,
    10_000.0,
    100_000.0,
    1_000_000.0,
];
/// How often histograms are folded; without it, samples pile up while nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder at the first call and returns its handle at every call.
pub fn install() -> &'static PrometheusHandle {
    HANDLE.get_or_init(|| {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("another metrics recorder was installed before, /metrics stays empty");
        }
        let upkeep = handle.clone();
        // A thread, not a task: a test's runtime may end before the process does.
        let spawned = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_INTERVAL);
                upkeep.run_upkeep();
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(error = %error, "no thread for metrics, histograms are folded at each scrape only");
        }
        handle
    })
}

fn builder() -> PrometheusBuilder {
    // The lists above are not empty, which is the only complaint these two know.
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|builder| builder.set_buckets(COUNTS))
        .unwrap_or_default()
}

/// Everything in the text format of Prometheus, with the process's own figures.
pub fn render() -> String {
    let mut text = install().render();
    text.push_str(&process());
    text
}

/// Memory, CPU time and open files of this process, as Prometheus clients name them; empty where there is no /proc.
fn process() -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    };
    metric("process_resident_memory_bytes", "gauge", "Resident memory", resident_bytes());
    metric("process_cpu_seconds_total", "counter", "User and system CPU time", cpu_seconds());
    metric("process_open_fds", "gauge", "Open file descriptors", open_files());
    text
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// The 14th and 15th field of /proc/self/stat, in hundredths of a second on every Linux.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, which may hold spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

fn open_files() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_the_buckets_of_their_unit_and_the_process_shows_itself() {
        install();
        install();
        metrics::histogram!("wired_test_wait_seconds").record(0.004);
        metrics::histogram!("wired_test_batch_records").record(300.0);
        let text = render();
        for line in [
            "wired_test_wait_seconds_bucket{le=\"0.003\"} 0",
            "wired_test_wait_seconds_bucket{le=\"0.005\"} 1",
            "wired_test_batch_records_bucket{le=\"200\"} 0",
            "wired_test_batch_records_bucket{le=\"500\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(resident_bytes().unwrap() > 1e6);
        assert!(cpu_seconds().is_some() && open_files().unwrap() >= 3.0);
        assert!(text.contains("\nprocess_resident_memory_bytes "));
    }
}
