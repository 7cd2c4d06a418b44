//! Where the values come from that a partner does not want to type: the environment, or a file.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use client::{Client, Options};
use domain::webhook::{Secret, VerifyingKeys};

/// What `make demo` leaves behind.
pub(crate) const DEFAULT_FILE: &str = ".local/partner.env";

pub(crate) struct Settings {
    file: HashMap<String, String>,
    /// Named on the command line, so that it wins.
    is_explicit: bool,
    /// Named on the command line, too.
    ca_file: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn read(explicit: Option<PathBuf>, ca_file: Option<PathBuf>) -> anyhow::Result<Self> {
        let is_explicit = explicit.is_some();
        let path = explicit.unwrap_or_else(|| DEFAULT_FILE.into());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { file: parse(&text), is_explicit, ca_file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_explicit => {
                Ok(Self { file: HashMap::new(), is_explicit, ca_file })
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let from_file = || self.file.get(name).cloned();
        let from_environment = || std::env::var(name).ok().filter(|value| !value.is_empty());
        if self.is_explicit {
            from_file().or_else(from_environment)
        } else {
            from_environment().or_else(from_file)
        }
    }

    pub(crate) fn need(&self, name: &str) -> anyhow::Result<String> {
        match self.get(name) {
            Some(value) => Ok(value),
            None if self.is_explicit => bail!("{name} is neither in the file nor in the environment"),
            None => bail!(
                "{name} is not set and {DEFAULT_FILE} does not say it: run `make demo` once, or set it, or use --env-file"
            ),
        }
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let (url, key) = (self.need("WIRED_URL")?, self.need("WIRED_KEY_ID")?);
        let options = Options { authorities_pem: self.authorities()?, ..Options::default() };
        Ok(Client::with_options(&url, &key, &self.need("WIRED_KEY_SECRET")?, options)?)
    }

    /// Who may vouch for the bank, when it is not whom this machine trusts.
    pub(crate) fn authorities(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(path) = self.ca_file.clone().or_else(|| self.get("WIRED_CA_FILE").map(PathBuf::from)) else {
            return Ok(None);
        };
        let pem = fs::read(&path).with_context(|| format!("cannot read {} (--ca-file)", path.display()))?;
        Ok(Some(pem))
    }

    pub(crate) fn webhook_keys(&self) -> anyhow::Result<VerifyingKeys> {
        let text = self.need("WIRED_WEBHOOK_SECRET")?;
        Ok(VerifyingKeys::new(Secret::parse(&text).context("WIRED_WEBHOOK_SECRET")?))
    }
}

fn parse(text: &str) -> HashMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), unquoted(value.trim()).to_owned())).collect()
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('\'').or_else(|| inside('"')).unwrap_or(value)
}

/// One value of a file of such lines, or nothing when it is not there.
pub(crate) fn from_file(path: &Path, name: &str) -> Option<String> {
    parse(&fs::read_to_string(path).ok()?).remove(name)
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now_seconds() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |elapsed| elapsed.as_secs() as i64)
}

/// What to do when the bank does not answer, added to the error.
pub(crate) fn explain(error: client::Error) -> anyhow::Error {
    let hint = match &error {
        client::Error::Unreachable { reason, .. } if reason.contains("certificate") => {
            "who vouches for the bank's certificate? Name the file of that authority with --ca-file or WIRED_CA_FILE"
        }
        client::Error::Unreachable { .. } => "is ingest running? `make up` starts it, `make status` looks",
        client::Error::Problem(problem) if problem.code == "signature_invalid" => {
            "is this the newest key? A new one is known within 5 s; `make demo` renews .local/partner.env"
        }
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_shell_is_read() {
        let read = parse("# no\n\nexport A='x=y'\nB=\"z\"\n C = plain \nnot a line\n");
        let get = |name: &str| read.get(name).map(String::as_str);
        assert_eq!((get("A"), get("B"), get("C")), (Some("x=y"), Some("z"), Some("plain")));
        assert_eq!(read.len(), 3);
    }
}
