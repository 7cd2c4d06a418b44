//! What seeding has made so far, in a file for its owner alone: an interrupted run goes on where it ended.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use domain::ids::{EndpointId, MandateId, derived_uuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::bank_api::LogIn;

/// People and partner, as far as they are there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    #[serde(skip)]
    path: PathBuf,
    /// Makes the idempotency keys of this sample's requests its own.
    run: Uuid,
    pub(crate) people: Vec<LogIn>,
    pub(super) partner: Partner,
}

/// What a partner is made of, in the order in which it is made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Partner {
    pub(super) id: Option<String>,
    pub(super) active: bool,
    /// Where its payments are credited.
    pub(super) account: Option<String>,
    /// How many keys were asked for: a secret is shown once, and an interruption may have seen it.
    pub(super) keys_asked: u32,
    pub(super) key: Option<ApiKey>,
    pub(super) endpoint: Option<Endpoint>,
    /// The account of the customer who pays.
    pub(super) customer_account: Option<String>,
    pub(super) funded: bool,
    pub(super) mandate: Option<MandateId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ApiKey {
    pub(super) id: String,
    pub(super) secret: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) secret: String,
}

impl Sample {
    /// What the file says; nothing when there is none.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let sample = match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).with_context(|| {
                format!("{} is not what `wired seed` wrote; remove it to begin anew", path.display())
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Self { run: Uuid::new_v4(), ..Self::default() }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path: path.to_owned(), ..sample })
    }

    /// Keeps it.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        write_private(&self.path, &json)
    }

    /// Who has this address.
    pub(super) fn person(&self, email: &str) -> Option<&LogIn> {
        self.people.iter().find(|person| person.email == email)
    }

    /// Keeps what is known of somebody now.
    pub(super) fn keep(&mut self, person: LogIn) -> anyhow::Result<()> {
        self.people.retain(|known| known.email != person.email);
        self.people.push(person);
        self.write()
    }

    /// The idempotency key of a request: the same request of the same sample has the same one.
    pub(super) fn key_of(&self, path: &str, body: &Value) -> Uuid {
        derived_uuid(&format!("{} {path} {body}", self.run))
    }
}

/// Replaces a file by another one that nobody else can read, whole or not at all.
pub(super) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let written = (|| {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        // One that an interrupted run left may have other rights.
        if let Err(error) = fs::remove_file(&draft)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}
