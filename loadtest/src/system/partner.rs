//! A seeded partner: everything that its developer has in hand.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use client::{Client, Options};
use domain::ids::{MandateId, PartnerId};

use super::env_file;

/// What a partner needs to post payments and to verify webhooks.
#[derive(Debug, Clone)]
pub struct Partner {
    /// The partner.
    pub id: PartnerId,
    /// Its API key.
    pub key_id: String,
    /// The key's secret, base64.
    pub key_secret: String,
    /// `whsec_…` of its endpoint.
    pub webhook_secret: String,
    /// Where its endpoint is to listen.
    pub webhook_listen: SocketAddr,
    /// One standing mandate for each customer.
    pub mandates: Vec<MandateId>,
}

impl Partner {
    /// Reads the file that `admin-api seed` wrote.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let variables = env_file::parse(&text);
        let get =
            |name: &str| variables.get(name).with_context(|| format!("{} has no {name}", path.display()));
        let mandates = match variables.get("WIRED_MANDATES_FILE") {
            Some(file) => std::fs::read_to_string(file)?.lines().map(str::parse).collect::<Result<_, _>>()?,
            None => vec![get("WIRED_MANDATE")?.parse()?],
        };
        Ok(Self {
            id: get("WIRED_PARTNER")?.parse()?,
            key_id: get("WIRED_KEY_ID")?.clone(),
            key_secret: get("WIRED_KEY_SECRET")?.clone(),
            webhook_secret: get("WIRED_WEBHOOK_SECRET")?.clone(),
            webhook_listen: get("WIRED_WEBHOOK_LISTEN")?.parse()?,
            mandates,
        })
    }

    /// A client of this partner for an ingest at `url`.
    pub fn client(&self, url: &str, options: Options) -> anyhow::Result<Client> {
        Ok(Client::with_options(url, &self.key_id, &self.key_secret, options)?)
    }
}
