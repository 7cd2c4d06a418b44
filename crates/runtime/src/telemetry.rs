//! Logs: one JSON object a line on stderr, each with the service's name.
//!
//! No log holds a token, key, signature, personal datum or body; that is for each caller to keep.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What is logged, in the syntax of `tracing_subscriber::EnvFilter`, e.g. `info,librdkafka=debug`.
pub const FILTER_VARIABLE: &str = "WIRED_LOG";

/// Begins to log. `WIRED_LOG` filters; `info` without it. A second call in one process changes nothing, so that
/// tests may start several services.
pub fn init(service: &'static str) {
    let (filter, complaint) = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new("info"), Some(error)),
        },
        Err(_) => (EnvFilter::new("info"), None),
    };
    let installed = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(Labelled { service })
        .try_init()
        .is_ok();
    if let (true, Some(error)) = (installed, complaint) {
        tracing::warn!(error = %error, "WIRED_LOG is no filter, logging at info");
    }
}

/// Writes the service's name into each object.
#[derive(Clone, Copy)]
struct Labelled {
    service: &'static str,
}

impl<'a> MakeWriter<'a> for Labelled {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        *self
    }
}

impl Write for Labelled {
    /// The formatter hands over one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&labelled(self.service, line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn labelled(service: &str, line: &[u8]) -> Vec<u8> {
    match line.strip_prefix(b"{") {
        Some(rest) => [format!("{{\"service\":\"{service}\",").as_bytes(), rest].concat(),
        None => line.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_names_the_service() {
        assert_eq!(labelled("ingest", b"{\"level\":1}\n"), b"{\"service\":\"ingest\",\"level\":1}\n");
        assert_eq!(labelled("ingest", b"plain\n"), b"plain\n");
    }
}
