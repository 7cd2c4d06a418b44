//! The public listener: an address, and TLS unless that address is loopback and somebody said that plain HTTP will do.
//!
//! What it bears of its clients stands in [`crate::http`], how its certificate is kept in [`Certificate`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::ConfigError;
use crate::http::{self, Certificate, HttpLimits, Tls};

/// How often the certificate's files are looked at: they are some kilobytes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Where clients reach a service, and what that bears.
#[derive(Debug, Clone, clap::Args)]
pub struct PublicListenConfig {
    /// Address of the API. Without TLS only a loopback address is accepted.
    #[arg(long, env = "WIRED_LISTEN")]
    pub listen: SocketAddr,
    /// File with the certificate chain in PEM, the server's own first. Read anew within some seconds when it changes.
    #[arg(long, env = "WIRED_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// File with the private key of the first certificate in PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    #[arg(long, env = "WIRED_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Serve plain HTTP although secrets would travel readable; accepted on loopback only.
    #[arg(long, env = "WIRED_INSECURE_HTTP", default_value_t = false, action = clap::ArgAction::Set)]
    pub insecure_http: bool,
    /// What the listener bears.
    #[command(flatten)]
    pub http: HttpLimits,
}

impl PublicListenConfig {
    /// Refuses to carry secrets over a network without TLS. Reads no file.
    pub fn check(&self) -> Result<(), ConfigError> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => Err(ConfigError::TlsIncomplete("WIRED_TLS_KEY_FILE")),
            (None, Some(_)) => Err(ConfigError::TlsIncomplete("WIRED_TLS_CERT_FILE")),
            (Some(_), Some(_)) if self.insecure_http => Err(ConfigError::TlsAndInsecureHttp),
            (None, None) if !self.listen.ip().is_loopback() => {
                Err(ConfigError::PublicWithoutTls(self.listen))
            }
            (None, None) if !self.insecure_http => Err(ConfigError::InsecureHttpNotAllowed(self.listen)),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    /// Checks, reads the certificate and takes the address.
    pub async fn bind(&self) -> Result<PublicListener, ConfigError> {
        self.check()?;
        let tls = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(chain), Some(key)) => Some(Tls::new(Certificate::read(chain, key)?, &self.http)?),
            _ => None,
        };
        let address = self.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| ConfigError::Listen {
            variable: "WIRED_LISTEN",
            address,
            source,
        })?;
        Ok(PublicListener { listener, tls, limits: self.http.clone() })
    }
}

/// An address that was taken; clients wait until it is served.
pub struct PublicListener {
    listener: TcpListener,
    tls: Option<Tls>,
    limits: HttpLimits,
}

impl PublicListener {
    /// What clients are shown; `None` without TLS.
    pub fn certificate(&self) -> Option<Certificate> {
        self.tls.as_ref().map(|tls| tls.certificate().clone())
    }

    /// Serves until `shutdown`, then lets requests in progress finish within the drain's deadline.
    pub async fn serve(self, app: Router, shutdown: CancellationToken) {
        let Self { listener, tls, limits } = self;
        match tls {
            None => http::serve(listener, app, limits, shutdown).await,
            Some(tls) => http::serve_tls(listener, tls, RELOAD_INTERVAL, app, limits, shutdown).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use testkit::certificates::Authority;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        public: PublicListenConfig,
    }

    fn config(arguments: &[&str]) -> PublicListenConfig {
        Cli::parse_from([&["service"], arguments].concat()).public
    }

    #[test]
    fn plain_http_stays_on_loopback_and_is_asked_for() {
        let said = |arguments: &[&str]| config(arguments).check().err().map(|error| error.to_string());
        let tls = ["--tls-cert-file", "chain.pem", "--tls-key-file", "key.pem"];
        for listen in ["127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(said(&["--listen", listen, "--insecure-http", "true"]), None);
            let refused = said(&["--listen", listen]).unwrap();
            assert!(refused.contains("WIRED_INSECURE_HTTP=true"), "{refused}");
        }
        for listen in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:1"] {
            for insecure in ["true", "false"] {
                let refused = said(&["--listen", listen, "--insecure-http", insecure]).unwrap();
                assert!(refused.contains("can be reached from outside"), "{refused}");
            }
            assert_eq!(said(&[&["--listen", listen][..], &tls].concat()), None);
        }
        let both =
            said(&[&["--listen", "127.0.0.1:1", "--insecure-http", "true"][..], &tls].concat()).unwrap();
        assert!(both.contains("contradict"), "{both}");
        for (half, missing) in [(&tls[..2], "WIRED_TLS_KEY_FILE"), (&tls[2..], "WIRED_TLS_CERT_FILE")] {
            for insecure in ["true", "false"] {
                let listen = ["--listen", "127.0.0.1:1", "--insecure-http", insecure];
                let refused = said(&[&listen[..], half].concat()).unwrap();
                assert!(refused.contains(&format!("{missing} is not set")), "{refused}");
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_that_cannot_be_shown_keeps_the_service_from_listening() {
        let files = Authority::new().files(&["bank.test"]);
        let mut config = config(&["--listen", "0.0.0.0:0"]);
        config.tls_cert_file = Some(files.chain());
        config.tls_key_file = Some(files.key());
        assert!(config.bind().await.unwrap().certificate().is_some());
        std::fs::write(files.key(), "").unwrap();
        let error = config.bind().await.err().unwrap().to_string();
        assert!(error.contains("WIRED_TLS_KEY_FILE") && error.contains("key.pem"), "{error}");
    }
}
