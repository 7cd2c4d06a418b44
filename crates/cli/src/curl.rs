//! `wired curl`: any request, signed.

use std::{
    io::{Read, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use client::SendOptions;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::settings::{Settings, explain};

/// The largest body that ingest takes is 1 MiB.
const BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// GET, POST, PATCH or DELETE.
    method: String,
    /// Path with query, such as /v1/balances; or a URL of the bank.
    path: String,
    /// The body; `@file` reads it from a file, `@-` from standard input.
    #[arg(short, long)]
    data: Option<String>,
    /// Print status and header fields, too.
    #[arg(short, long)]
    include: bool,
    /// A header field, such as 'If-Match: "3"'. May be repeated.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The key of a writing request; a random one when not given.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// `Prefer: wait`, in seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10))]
    wait: Option<u64>,
}

pub(crate) async fn run(settings: &Settings, options: Options) -> anyhow::Result<ExitCode> {
    let method = options.method.to_ascii_uppercase();
    let method: Method = method.parse().with_context(|| format!("`{method}` is no method"))?;
    let body = options.data.as_deref().map(body).transpose()?;
    let sending = SendOptions {
        idempotency_key: options.idempotency_key,
        wait: options.wait.map(Duration::from_secs),
        headers: headers(&options.headers)?,
    };
    let sent = settings.client()?.request(method, &options.path, body.map(Into::into), sending).await;
    let answer = sent.map_err(explain)?;
    let mut out = std::io::stdout().lock();
    if options.include {
        writeln!(out, "HTTP/1.1 {}", answer.status)?;
        for (name, value) in &answer.headers {
            writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        writeln!(out)?;
    }
    out.write_all(&answer.body)?;
    if !answer.body.is_empty() && !answer.body.ends_with(b"\n") {
        writeln!(out)?;
    }
    Ok(ExitCode::from(u8::from(!(200..300).contains(&answer.status))))
}

fn body(data: &str) -> anyhow::Result<Vec<u8>> {
    let Some(path) = data.strip_prefix('@') else { return Ok(data.into()) };
    read(path)
}

/// A file, or standard input for `-`.
pub(crate) fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if path == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {path}"))?)
    };
    source.take(BODY_BYTES_MAX).read_to_end(&mut bytes).with_context(|| format!("cannot read {path}"))?;
    Ok(bytes)
}

fn headers(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            bail!("`{line}` is no header field such as 'If-Match: \"3\"'")
        };
        let name: HeaderName = name.trim().parse().with_context(|| format!("`{name}` is no header name"))?;
        let value: HeaderValue = value.trim().parse().with_context(|| format!("the value of {name}"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}
