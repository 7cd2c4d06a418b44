//! The processor as a process.

use clap::Parser as _;
use processor::Config;

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    runtime::telemetry::init("processor");
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async { processor::run(config, runtime::shutdown::on_signal()).await })
}
