//! `wired listen`.

use std::{fmt::Write as _, net::SocketAddr, process::ExitCode, time::UNIX_EPOCH};

use anyhow::Context;
use domain::time::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    receiver::{self, Received},
    settings::Settings,
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to listen; WIRED_WEBHOOK_LISTEN when not given.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Print the bodies, too.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(settings: &Settings, options: Options) -> anyhow::Result<ExitCode> {
    let address = match options.listen {
        Some(address) => address,
        None => listen_address(settings)?,
    };
    let shutdown: CancellationToken = runtime::shutdown::on_signal();
    let (mut webhooks, server) = receiver::start(address, settings.webhook_keys()?, shutdown.clone()).await?;
    eprintln!("listening on http://{address}, verifying with WIRED_WEBHOOK_SECRET; Ctrl-C ends");
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            received = webhooks.recv() => match received {
                Some(received) => print!("{}", text(&received, options.verbose)),
                None => break,
            },
        }
    }
    server.await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn listen_address(settings: &Settings) -> anyhow::Result<SocketAddr> {
    let text = settings.need("WIRED_WEBHOOK_LISTEN")?;
    text.parse()
        .with_context(|| format!("WIRED_WEBHOOK_LISTEN `{text}` is no address such as 127.0.0.1:9090"))
}

/// A line for one webhook, and its body when asked for.
fn text(received: &Received, verbose: bool) -> String {
    let micros = received.at_clock.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
    let mut line = format!("{} ", Timestamp::from_micros(micros));
    let body: Option<Value> = serde_json::from_slice(&received.body).ok();
    if let Err(why) = &received.verified {
        let _ = write!(line, "REFUSED {}: {why}", printable(&received.id));
    } else {
        let body = body.as_ref().unwrap_or(&Value::Null);
        let _ = write!(line, "verified {} {}", field(body, "/type"), printable(&received.id));
        for (name, pointer) in [("sequence", "/sequence"), ("epoch", "/epoch")] {
            if !body.pointer(pointer).unwrap_or(&Value::Null).is_null() {
                let _ = write!(line, " {name} {}", field(body, pointer));
            }
        }
        for object in ["payment", "account", "mandate"] {
            let at = |name: &str| field(body, &format!("/data/{object}/{name}"));
            if body.pointer(&format!("/data/{object}")).is_some() {
                let words = [at("id"), at("amount"), at("currency"), at("status"), at("reason")];
                for word in words.iter().filter(|word| *word != "-") {
                    let _ = write!(line, " {word}");
                }
            }
        }
    }
    line.push('\n');
    if verbose {
        let body = match body {
            Some(body) => serde_json::to_string_pretty(&body).unwrap_or_default(),
            None => printable(&String::from_utf8_lossy(&received.body)),
        };
        line.extend([&*body, "\n"]);
    }
    line
}

fn field(body: &Value, pointer: &str) -> String {
    match body.pointer(pointer) {
        Some(Value::String(text)) => printable(text),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// Nothing that a sender writes may move the cursor of who reads it.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests;
