//! `loadtest bare-202`: ingest's HTTP server with nothing behind it. It reads the body and answers 202 with as many
//! bytes as ingest does; it verifies nothing and produces nothing.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use runtime::http::HttpLimits;

use crate::loopback;

/// As long as ingest's answer to a payment.
const ANSWER: &str = r#"{"id":"pay_01h455vb4pex5vsknk084sn02q","kind":"payment","root":"pay_01h455vb4pex5vsknk084sn02q","status":"pending","under_review":false,"version":0,"amount":"12.50","currency":"EUR","amount_captured":"0.00","amount_refunded":"0.00","mandate":"mdt_01h455vb4pex5vsknk084sn02q","reference":"order-4711","livemode":true,"created_at":"2026-01-31T12:00:00.000000Z","status_url":"/v1/payments/pay_01h455vb4pex5vsknk084sn02q?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","request_id":"00000000-0000-0000-0000-000000000000","expected_wait_ms":10}"#;

/// The settings of `loadtest bare-202`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where to listen; loopback only.
    #[arg(long)]
    pub listen: SocketAddr,
}

/// Serves until SIGTERM.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    loopback::check(&config.listen.to_string())?;
    let listener =
        tokio::net::TcpListener::bind(config.listen).await.context("the bare server cannot listen")?;
    let app = Router::new().route("/v1/payments", post(accept));
    runtime::http::serve(listener, app, HttpLimits::default(), runtime::shutdown::on_signal()).await;
    Ok(())
}

async fn accept(body: Bytes) -> impl IntoResponse {
    // The body is read and let go.
    drop(body);
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], ANSWER)
}
