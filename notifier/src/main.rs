//! The notifier: see the library.

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = notifier::Config::parse();
    runtime::telemetry::init("notifier");
    notifier::run(config, runtime::shutdown::on_signal()).await?;
    Ok(())
}
