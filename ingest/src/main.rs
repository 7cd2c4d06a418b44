//! The ingest service.

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ingest::Config::parse();
    runtime::telemetry::init("ingest");
    ingest::run(config, runtime::shutdown::on_signal()).await?;
    Ok(())
}
