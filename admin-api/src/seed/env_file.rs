//! The file with what a partner needs: lines `NAME='value'` that a shell can read, mode 0600.
//!
//! It is replaced as a whole, so a reader sees the old file or the new one, and never a readable one.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::Error;

const HEADER: &str =
    "# A sample partner, made by `admin-api seed`. Holds secrets: for this partner's eyes only.\n";

/// The variables of one partner.
#[derive(Debug)]
pub(super) struct EnvFile {
    path: PathBuf,
    variables: BTreeMap<String, String>,
}

impl EnvFile {
    /// What an earlier run wrote, or nothing.
    pub(super) fn read(path: PathBuf) -> Result<Self, Error> {
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, variables: parse(&text) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path, variables: BTreeMap::new() })
            }
            Err(source) => Err(Error::File { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub(super) fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }

    /// Writes the variables.
    pub(super) fn write(&self) -> Result<(), Error> {
        let mut text = HEADER.to_owned();
        for (name, value) in &self.variables {
            if value.contains(['\'', '\n', '\0']) {
                return Err(Error::Option(format!("{name} must hold no quote and no line break")));
            }
            text.extend([name, "='", value, "'\n"]);
        }
        replace(&self.path, |file| file.write_all(text.as_bytes()))
    }

    /// Writes one item a line into a file beside this one; gives its path.
    pub(super) fn write_beside<T: Display>(&self, suffix: &str, items: &[T]) -> Result<PathBuf, Error> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{suffix}"));
        let path = PathBuf::from(path);
        replace(&path, |file| {
            let mut buffered = io::BufWriter::new(file);
            items.iter().try_for_each(|item| writeln!(buffered, "{item}"))?;
            buffered.flush()
        })?;
        // The reader may stand in another folder.
        Ok(fs::canonicalize(&path).unwrap_or(path))
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('\'').to_owned()))
        .collect()
}

fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = (|| {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.map_err(|source| {
        // Best effort: the cause is what counts.
        let _ = fs::remove_file(&draft);
        failed(source)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_reads_back_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/partner.env");
        let mut file = EnvFile::read(path.clone()).unwrap();
        assert_eq!(file.get("WIRED_URL"), None);
        file.set("WIRED_URL", "http://127.0.0.1:1".into());
        file.set("WIRED_KEY_SECRET", "ab+/=".into());
        file.write().unwrap();
        file.write().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = EnvFile::read(path.clone()).unwrap();
        assert_eq!(again.get("WIRED_URL"), Some("http://127.0.0.1:1"));
        assert_eq!(again.get("WIRED_KEY_SECRET"), Some("ab+/="));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left over");
    }

    #[test]
    fn a_value_that_a_shell_would_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EnvFile::read(folder.path().join("partner.env")).unwrap();
        file.set("WIRED_URL", "x'; rm -rf ~; '".into());
        assert!(file.write().is_err());
    }
}
