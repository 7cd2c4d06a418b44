//! What all requests share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::ids::UserId;
use domain::seal::KeyEncryptionKeys;
use ipnet::IpNet;
use jiff::tz::TimeZone;
use sqlx::MySqlPool;
use tokio::sync::{Notify, Semaphore};

use crate::bank::Bank;
use crate::calls::Calls;
use crate::jwt::Signer;
use crate::password::Hasher;
use crate::personal::{Index, Keys};
use crate::sessions::Sessions;
use crate::store::mails::MailKind;
use crate::system::Watch;
use crate::throttle::Throttle;
use crate::verification::Published;

/// The state of the API.
pub struct App {
    /// The service's own tables, and the ledger to read.
    pub pool: MySqlPool,
    /// The way to the ledger.
    pub bank: Bank,
    /// Seals and finds personal data.
    pub personal: Keys,
    /// Seals API keys of partners, and whom to reach at them.
    pub partner_kek: KeyEncryptionKeys,
    /// Hashes and checks passwords.
    pub hasher: Hasher,
    /// Signs and verifies access tokens.
    pub signer: Signer,
    /// What is known of sessions.
    pub sessions: Sessions,
    /// Slows down who asks too much or guesses.
    pub throttles: Throttles,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Told when there is a mail to send.
    pub mail_waits: Arc<Notify>,
    /// The bank's time zone, whose days figures count.
    pub bank_time_zone: TimeZone,
    /// How the other parts of the bank are.
    pub system: Watch,
    /// Where checkpoints are published, if any are.
    pub checkpoints: Option<Published>,
    /// Bounds exports of the audit that run at once.
    pub exports: Arc<Semaphore>,
    /// Where calls are reported.
    pub calls: Calls,
    /// The OpenAPI document.
    pub openapi: Bytes,
}

/// Who is slowed down by what.
pub struct Throttles {
    /// Requests of a network.
    pub requests: Throttle<IpAddr>,
    /// Log-ins of one user from one network, also right ones: each costs a hash.
    pub logins: Throttle<(Index, IpAddr)>,
    /// The same from a network, whoever for.
    pub network_logins: Throttle<IpAddr>,
    /// Failed log-ins from a network, whoever for.
    pub network_failures: Throttle<IpAddr>,
    /// Failed log-ins of one user from one network.
    pub pair_failures: Throttle<(Index, IpAddr)>,
    /// Failed log-ins of one user from networks that the user never logged in from: it stops guessing from many
    /// machines, and never the user at home.
    pub user_failures: Throttle<Index>,
    /// Wrong codes of one user. Whoever guesses here has the password already.
    pub code_failures: Throttle<UserId>,
    /// Requests for mandates that a user named and that were none to answer.
    pub request_misses: Throttle<UserId>,
    /// The same from a network, whoever asked.
    pub network_request_misses: Throttle<IpAddr>,
    /// Registrations and resets that a network asks for.
    pub network_mails: Throttle<IpAddr>,
    /// Mails of a kind to one address that anybody asks for: resets for an address that nobody has must not keep it from being
    /// registered.
    pub address_mails: Throttle<(Index, MailKind)>,
}

impl Throttles {
    /// `requests_per_second` of one network; the others follow from what they guard.
    pub fn new(requests_per_second: u32) -> Self {
        let per_second = requests_per_second.max(1);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            requests: Throttle::new(per_second * 2, Duration::from_secs(1) / per_second),
            logins: Throttle::new(30, Duration::from_secs(6)),
            network_logins: Throttle::new(120, Duration::from_secs(1)),
            network_failures: Throttle::new(30, Duration::from_secs(10)),
            pair_failures: Throttle::new(5, Duration::from_secs(30)),
            user_failures: Throttle::new(20, minutes(1)),
            // 1,000,000 codes of which 3 count: 288 tries a day find one in 1,000 days.
            code_failures: Throttle::new(5, minutes(5)),
            // 31^8 codes of which a few thousand count: all customers together find one in years.
            request_misses: Throttle::new(10, minutes(1)),
            network_request_misses: Throttle::new(50, Duration::from_secs(10)),
            network_mails: Throttle::new(20, Duration::from_secs(30)),
            address_mails: Throttle::new(3, minutes(10)),
        }
    }
}
