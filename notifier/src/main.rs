//! The notifier: see the library.

use clap::Parser;

// Under load a tenth of the time went into glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = notifier::Config::parse();
    runtime::telemetry::init("notifier");
    notifier::run(config, runtime::shutdown::on_signal()).await?;
    Ok(())
}
