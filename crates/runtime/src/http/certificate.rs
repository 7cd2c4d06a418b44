//! The certificate that a listener shows, read anew when its files change.
//!
//! Chain and key are read and checked as a pair, also at the start: a pair that does not belong together, cannot be
//! read, has expired or does not count yet is never shown. While the files hold such a pair the one before stays; that is logged once, as
//! an error, and is a metric. A pair seen in the middle of its replacement is no error: it is looked at again first.
//!
//! The content is compared, not the time of the change, so links that are switched over (as Kubernetes does) count as
//! well as files that are replaced. Connections keep the certificate of their handshake.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode as _, Reader, SliceReader, Tag};
use metrics::{counter, gauge};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// A chain and a key have some kilobytes; more is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate cannot be shown. Never tells anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificate file holds something else.
    #[error("{path:?} holds no certificate chain in PEM: {why}")]
    Chain {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key file holds something else.
    #[error("{0:?} holds no unencrypted private key in PEM that TLS can use (RSA, ECDSA or Ed25519)")]
    Key(PathBuf),
    /// The one is not the other's.
    #[error("the key in {key:?} is not that of the first certificate in {chain:?}: {source}")]
    Pair {
        /// The certificate file.
        chain: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What does not fit.
        source: rustls::Error,
    },
    /// Nobody would accept it.
    #[error("a certificate in {path:?} has expired, at second {since} since 1970")]
    Expired {
        /// Its path.
        path: PathBuf,
        /// When.
        since: u64,
    },
    /// Nobody would accept it yet.
    #[error("a certificate in {path:?} only counts from second {from} since 1970 on")]
    NotYetValid {
        /// Its path.
        path: PathBuf,
        /// When.
        from: u64,
    },
}

/// What is shown, and until when it counts.
#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    expires_at: SystemTime,
}

/// The content of both files.
#[derive(PartialEq, Eq)]
struct Content {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// A listener's certificate; clones are the same one.
#[derive(Clone)]
pub struct Certificate {
    files: Files,
    shown: Arc<ArcSwap<Shown>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads both files. Blocks for as long as the disk does.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        metrics::describe_gauge!(
            "wired_tls_certificate_expires_timestamp_seconds",
            "When the first certificate of the chain that is shown expires"
        );
        metrics::describe_counter!(
            "wired_tls_certificate_reloads_total",
            "Changes of the certificate's files, loaded or refused"
        );
        metrics::describe_gauge!(
            "wired_tls_certificate_files_refused",
            "1 while the files hold something that cannot be shown, and the certificate before it is shown"
        );
        let files = Files { chain: chain.to_path_buf(), key: key.to_path_buf() };
        let shown = files.pair(&files.read()?, SystemTime::now())?;
        gauge!("wired_tls_certificate_files_refused").set(0.0);
        let certificate = Self { files, shown: Arc::new(ArcSwap::from_pointee(shown)) };
        certificate.tell_expiry();
        Ok(certificate)
    }

    /// When the first certificate of the chain expires.
    pub fn expires_at(&self) -> SystemTime {
        self.shown.load().expires_at
    }

    fn tell_expiry(&self) {
        let since_1970 = self.expires_at().duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!("wired_tls_certificate_expires_timestamp_seconds").set(since_1970.as_secs_f64());
    }

    /// Looks at the files every `interval` until `stop`, and shows what they hold from then on.
    pub(super) async fn follow(self, interval: Duration, stop: CancellationToken) {
        let mut follower = Follower::default();
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let certificate = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                follower.look(&certificate);
                follower
            });
            // Nothing in there panics; if it did, the next look begins anew.
            follower = looked.await.unwrap_or_default();
        }
    }
}

/// What was seen of the files before.
#[derive(Default)]
struct Follower {
    seen: Option<Content>,
    /// The last look found something that cannot be shown.
    doubtful: bool,
    /// Why, as it was logged.
    refused: Option<String>,
}

impl Follower {
    fn look(&mut self, certificate: &Certificate) {
        let read = certificate.files.read();
        if let Ok(content) = &read
            && self.seen.as_ref() == Some(content)
            && !self.doubtful
        {
            return;
        }
        let paired = read.and_then(|content| {
            let paired = certificate.files.pair(&content, SystemTime::now());
            self.seen = Some(content);
            paired
        });
        match paired {
            Ok(shown) => {
                self.doubtful = false;
                self.refused = None;
                gauge!("wired_tls_certificate_files_refused").set(0.0);
                // At the first look, and when a bad pair was taken back, it is the one that is shown already.
                if certificate.shown.load().key.cert != shown.key.cert {
                    certificate.shown.store(Arc::new(shown));
                    certificate.tell_expiry();
                    counter!("wired_tls_certificate_reloads_total", "outcome" => "loaded").increment(1);
                    tracing::info!(path = %certificate.files.chain.display(), "certificate loaded");
                }
            }
            Err(error) if !self.doubtful => {
                tracing::debug!(error = %error, "certificate doubtful");
                self.doubtful = true;
            }
            Err(error) => self.refuse(error.to_string()),
        }
    }

    /// Says so once for each reason.
    fn refuse(&mut self, why: String) {
        if self.refused.as_ref() != Some(&why) {
            gauge!("wired_tls_certificate_files_refused").set(1.0);
            counter!("wired_tls_certificate_reloads_total", "outcome" => "refused").increment(1);
            tracing::error!(error = why, "certificate refused, the one before is shown");
            self.refused = Some(why);
        }
    }
}

impl ResolvesServerCert for Certificate {
    /// The same for every name: a client that asks for another one refuses it by itself.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load().key.clone())
    }
}

impl Files {
    fn read(&self) -> Result<Content, CertificateError> {
        let read = |path: &Path| -> Result<Zeroizing<Vec<u8>>, CertificateError> {
            let failed = |source| CertificateError::Read { path: path.to_path_buf(), source };
            let mut bytes = Zeroizing::new(Vec::new());
            let file = File::open(path).map_err(failed)?;
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        };
        Ok(Content { chain: read(&self.chain)?.to_vec(), key: read(&self.key)? })
    }

    fn pair(&self, content: &Content, now: SystemTime) -> Result<Shown, CertificateError> {
        let no_chain = |why: &dyn fmt::Display| CertificateError::Chain {
            path: self.chain.clone(),
            why: why.to_string(),
        };
        let chain = CertificateDer::pem_slice_iter(&content.chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| no_chain(&error))?;
        let validities = chain.iter().map(|certificate| validity_of(certificate));
        let validities = validities.collect::<der::Result<Vec<_>>>().map_err(|error| no_chain(&error))?;
        let counts_from = validities.iter().map(|(from, _)| *from).max();
        let expires_at = validities.iter().map(|(_, until)| *until).min();
        let (Some(counts_from), Some(expires_at)) = (counts_from, expires_at) else {
            return Err(no_chain(&"there is none"));
        };
        let second = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if expires_at <= now {
            return Err(CertificateError::Expired { path: self.chain.clone(), since: second(expires_at) });
        }
        if counts_from > now {
            return Err(CertificateError::NotYetValid {
                path: self.chain.clone(),
                from: second(counts_from),
            });
        }
        let no_key = || CertificateError::Key(self.key.clone());
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|_| no_key())?;
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| no_key())?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|source| CertificateError::Pair {
            chain: self.chain.clone(),
            key: self.key.clone(),
            source,
        })?;
        Ok(Shown { key: Arc::new(key), expires_at })
    }
}

/// `notBefore` and `notAfter` of a certificate (RFC 5280, section 4.1); everything else is skipped, since rustls reads it.
fn validity_of(certificate: &[u8]) -> der::Result<(SystemTime, SystemTime)> {
    SliceReader::new(certificate)?.sequence(|certificate| {
        let validity = certificate.sequence(|signed| {
            let has_version = signed.peek_tag()?.is_context_specific();
            // The version, the serial number, the algorithm and the issuer.
            for _ in 0..if has_version { 4 } else { 3 } {
                AnyRef::decode(signed)?;
            }
            let validity = signed.sequence(|validity| Ok((time(validity)?, time(validity)?)))?;
            skip_rest(signed)?;
            Ok(validity)
        })?;
        skip_rest(certificate)?;
        Ok(validity)
    })
}

fn time<'a>(reader: &mut impl Reader<'a>) -> der::Result<SystemTime> {
    let since_1970 = match reader.peek_tag()? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
    };
    Ok(UNIX_EPOCH + since_1970)
}

fn skip_rest<'a>(reader: &mut impl Reader<'a>) -> der::Result<()> {
    while !reader.is_finished() {
        AnyRef::decode(reader)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
