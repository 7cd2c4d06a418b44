//! The figures of this service.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const RESPONSES: &str = "wired_admin_api_http_responses_total";
const DURATION: &str = "wired_admin_api_http_request_duration_seconds";
const PROBLEMS: &str = "wired_admin_api_problems_total";
const HASHES: &str = "wired_admin_api_password_hash_duration_seconds";
const LOGINS: &str = "wired_admin_api_logins_total";
const MAILS: &str = "wired_admin_api_mails_total";
const ANALYTICS_BEHIND: &str = "wired_admin_api_analytics_behind_commands";
const ANALYTICS_FAILURES: &str = "wired_admin_api_analytics_failures_total";
const COMMANDS: &str = "wired_admin_api_commands_total";
const DISPATCHED: &str = "wired_admin_api_commands_dispatched_total";
const OLDEST_COMMAND: &str = "wired_admin_api_oldest_undecided_command_seconds";

/// Tells Prometheus what the figures mean.
pub(crate) fn describe() {
    describe_counter!(RESPONSES, "Answers of the public listener by class of status");
    describe_histogram!(DURATION, "Time from a request's head to its answer");
    describe_counter!(PROBLEMS, "Problems answered by code");
    describe_histogram!(HASHES, "Time that hashing a password took, without waiting for its turn");
    describe_counter!(LOGINS, "Log-ins by outcome: done, refused, throttled");
    describe_counter!(MAILS, "Mails by outcome: sent, failed, given_up");
    describe_gauge!(ANALYTICS_BEHIND, "Places of the command topics that are applied and not counted");
    describe_counter!(ANALYTICS_FAILURES, "Rounds of counting that came to no end");
    describe_counter!(
        COMMANDS,
        "Commands as answered: applied, rejected, under_review, pending, unpublished (Kafka took nothing)"
    );
    describe_counter!(
        DISPATCHED,
        "Records that the dispatcher published for requests that did not, or once more"
    );
    describe_gauge!(OLDEST_COMMAND, "Age of the oldest command that the ledger has not decided; 0: none");
}

/// One answer was given.
pub(crate) fn answered(status: u16, elapsed: Duration) {
    let class = match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    counter!(RESPONSES, "class" => class).increment(1);
    histogram!(DURATION).record(elapsed);
}

/// A problem was answered.
pub(crate) fn problem(code: &'static str) {
    counter!(PROBLEMS, "code" => code).increment(1);
}

/// A password was hashed.
pub(crate) fn hashed(elapsed: Duration) {
    histogram!(HASHES).record(elapsed);
}

/// Somebody tried to log in: `done`, `refused`, `throttled`.
pub(crate) fn login(outcome: &'static str) {
    counter!(LOGINS, "outcome" => outcome).increment(1);
}

/// A mail was `sent`, `failed` once, or `given_up`.
pub(crate) fn mail(outcome: &'static str) {
    counter!(MAILS, "outcome" => outcome).increment(1);
}

/// So much is applied and not counted.
pub(crate) fn analytics_behind(commands: u64) {
    gauge!(ANALYTICS_BEHIND).set(commands as f64);
}

/// A round of counting came to no end.
pub(crate) fn analytics_failed() {
    counter!(ANALYTICS_FAILURES).increment(1);
}

/// A command was answered.
pub(crate) fn command(outcome: &'static str) {
    counter!(COMMANDS, "outcome" => outcome).increment(1);
}

/// The dispatcher published so many records.
pub(crate) fn commands_dispatched(count: u64) {
    counter!(DISPATCHED).increment(count);
}

/// How old the oldest undecided command is.
pub(crate) fn oldest_command(seconds: i64) {
    gauge!(OLDEST_COMMAND).set(seconds as f64);
}
