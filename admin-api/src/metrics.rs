//! The figures of this service.

use metrics::{counter, describe_counter};

const RESPONSES: &str = "wired_admin_api_http_responses_total";

/// Tells Prometheus what the figures mean.
pub(crate) fn describe() {
    describe_counter!(RESPONSES, "Answers of the public listener by class of status");
}

/// One answer was given.
pub(crate) fn answered(status: u16) {
    let class = match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    counter!(RESPONSES, "class" => class).increment(1);
}
