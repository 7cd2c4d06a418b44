//! Where the services' programs are: beside the running program, as one build makes them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Names another folder, as `deploy/local/wired-local` does.
const BIN_DIR: &str = "WIRED_BIN_DIR";

/// The program `name`, or an error that says how to build it.
pub fn find(name: &str) -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    let path = folder.join(name);
    if !path.is_file() {
        let profile = if folder.ends_with("release") { " --release" } else { "" };
        bail!("{} is missing: run `cargo build --workspace --bins{profile}` first", path.display());
    }
    Ok(path)
}

fn folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os(BIN_DIR) {
        return Ok(folder.into());
    }
    let own = env::current_exe().context("this program does not know where it is")?;
    let folder = own.parent().context("this program is in no folder")?;
    // Tests are one folder deeper than programs.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// The checkout, searched upwards from the working folder and from this program.
pub fn checkout() -> anyhow::Result<PathBuf> {
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    let found =
        starts.iter().flatten().flat_map(|start| start.ancestors()).find(|folder| is_checkout(folder));
    found
        .map(Path::to_owned)
        .context("deploy/local/wired-local is not above the working folder: run this within the checkout")
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("deploy/local/wired-local").is_file()
}
