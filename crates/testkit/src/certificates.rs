//! A certificate authority of a test's own, and what it issues, as files. Made by openssl, which every machine has that
//! has certificates to trust.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority that nobody but the test trusts.
pub struct Authority {
    folder: tempfile::TempDir,
    pem: String,
}

/// A chain and its key in a folder that goes away with this.
pub struct CertificateFiles {
    folder: tempfile::TempDir,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        openssl(
            folder.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test -keyout ca.key -out ca.pem",
        );
        let pem = std::fs::read_to_string(folder.path().join("ca.pem")).unwrap();
        Self { folder, pem }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and its key for these names and addresses, in PEM. With a negative number of days it has expired.
    pub fn issue(&self, names: &[&str], days: i32) -> (String, String) {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let path = folder.path();
        let kind = |name: &str| if name.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
        let names: Vec<_> = names.iter().map(|name| format!("{}:{name}", kind(name))).collect();
        let extension =
            if names.is_empty() { String::new() } else { format!("subjectAltName={}", names.join(",")) };
        std::fs::write(path.join("extensions"), format!("basicConstraints=CA:FALSE\n{extension}\n")).unwrap();
        openssl(
            path,
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test -keyout key -out csr",
        );
        openssl(
            path,
            &format!(
                "x509 -req -in csr -CA ../ca.pem -CAkey ../ca.key -CAcreateserial -CAserial serial -days {days} -extfile extensions -out pem"
            ),
        );
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        (read("pem"), read("key"))
    }

    /// The same in files, valid for another day.
    pub fn files(&self, names: &[&str]) -> CertificateFiles {
        let files = CertificateFiles { folder: tempfile::tempdir().unwrap() };
        let (chain, key) = self.issue(names, 1);
        files.write(&chain, &key);
        std::fs::write(files.authority(), self.pem()).unwrap();
        files
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl CertificateFiles {
    /// The certificate's file.
    pub fn chain(&self) -> PathBuf {
        self.path("chain.pem")
    }

    /// The key's file.
    pub fn key(&self) -> PathBuf {
        self.path("key.pem")
    }

    /// The file with the authority's own certificate.
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// Replaces both, each in one step.
    pub fn write(&self, chain: &str, key: &str) {
        replace(&self.chain(), chain);
        replace(&self.key(), key);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Replaces a file in one step.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}
