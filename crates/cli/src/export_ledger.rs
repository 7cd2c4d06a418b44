//! `wired export-ledger`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

use crate::{settings::Settings, verify_ledger};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A new folder, which gets a file for each table.
    folder: PathBuf,
    /// MySQL with a read-only user; WIRED_MYSQL_URL when not given, else the one in .local/env/verifier.env.
    #[arg(long, hide_env_values = true)]
    mysql_url: Option<String>,
}

pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<ExitCode> {
    let pool = verify_ledger::pool(settings, options.mysql_url.as_deref())?;
    let rows = verifier::export(&pool, &options.folder).await.context("the ledger could not be exported")?;
    println!("wrote {rows} rows to {}", options.folder.display());
    Ok(ExitCode::SUCCESS)
}
