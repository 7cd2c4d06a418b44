//! The processor as a process.

use std::time::Duration;

use clap::Parser as _;
use processor::Config;

/// Reading and writing a batch is many short allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long ending may take when MySQL or Kafka hangs. Ending in the middle of anything loses nothing.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    runtime::telemetry::init("processor");
    let shutdown = runtime::shutdown::on_signal();
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(SHUTDOWN_DEADLINE).await;
    };
    tokio::select! {
        ended = processor::run(config, shutdown.clone()) => ended,
        () = overdue => anyhow::bail!("did not end within {SHUTDOWN_DEADLINE:?}; what is left goes on at the next start"),
    }
}
