//! Name resolution for webhooks: the guard's check of addresses at the moment of connecting.
//!
//! A connection is only ever made to addresses that went through here (IP literals are checked with their URL). A
//! name with both public and other addresses keeps the public ones.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use domain::endpoint_url::{Loopback, Refusal, address_is_allowed};

/// Look-ups at a time. The system's resolver blocks a thread each and cannot be cancelled, so names whose servers
/// never answer must not use up all threads.
const LOOKUPS_MAX: usize = 64;

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync {
    /// The addresses of `host`, which is no IP literal.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
#[derive(Debug, Clone)]
pub struct SystemLookup(Arc<Semaphore>);

impl Default for SystemLookup {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let lookups = Arc::clone(&self.0);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
            // A task of its own: a caller that gives up must not give the permit back while the thread is blocked.
            let found = tokio::spawn(async move {
                let found = tokio::net::lookup_host((host, 0)).await;
                drop(permit);
                found.map(|addresses| addresses.map(|address| address.ip()).collect())
            });
            found.await.map_err(io::Error::other)?
        })
    }
}

/// Why a name gave no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The look-up failed or found nothing.
    #[error("the name cannot be resolved")]
    Lookup(#[source] io::Error),
    /// All its addresses are refused.
    #[error("the name leads to no allowed address")]
    Refused(#[source] Refusal),
}

/// Hands only allowed addresses to the HTTP client.
pub struct GuardedResolver {
    lookup: Arc<dyn Lookup>,
    loopback: Loopback,
}

impl GuardedResolver {
    /// Guards what `lookup` finds.
    pub fn new(lookup: Arc<dyn Lookup>, loopback: Loopback) -> Self {
        Self { lookup, loopback }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.lookup.lookup(host.clone());
        let loopback = self.loopback;
        Box::pin(async move {
            let found = found.await.map_err(ResolveError::Lookup)?;
            if found.is_empty() {
                return Err(ResolveError::Lookup(io::ErrorKind::NotFound.into()).into());
            }
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|ip| address_is_allowed(&host, *ip, loopback))
                .map(|ip| SocketAddr::new(ip, 0))
                .collect();
            if allowed.is_empty() {
                return Err(ResolveError::Refused(Refusal::Address).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
