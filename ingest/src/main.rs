//! The ingest service.

use clap::Parser;

/// Requests are many short allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ingest::Config::parse();
    runtime::telemetry::init("ingest");
    ingest::run(config, runtime::shutdown::on_signal()).await?;
    Ok(())
}
