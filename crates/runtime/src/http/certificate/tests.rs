//! What files may hold, and what becomes of a change.

use testkit::certificates::{Authority, CertificateFiles, replace};

use super::*;

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * 86_400)
}

fn read(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    Certificate::read(&files.chain(), &files.key())
}

fn shown(certificate: &Certificate) -> Vec<u8> {
    certificate.shown.load().key.cert[0].to_vec()
}

#[test]
fn a_chain_tells_when_its_first_certificate_expires() {
    let authority = Authority::new();
    let files = authority.files(&["bank.test"]);
    let (late, key) = authority.issue(&["bank.test"], 40);
    let (early, _) = authority.issue(&["intermediate.test"], 20);
    files.write(&format!("# a comment\n{late}\n{early}"), &key);
    let expires_at = read(&files).unwrap().expires_at();
    assert!(expires_at > in_days(19) && expires_at <= in_days(20), "{expires_at:?}");
}

#[test]
fn what_cannot_be_shown_is_refused_with_what_is_wrong_and_nothing_of_the_key() {
    let authority = Authority::new();
    let files = authority.files(&["bank.test"]);
    let (chain, key) = authority.issue(&["bank.test"], 1);
    let (_, other_key) = authority.issue(&["bank.test"], 1);
    let (expired, expired_key) = authority.issue(&["bank.test"], -1);
    let half_chain = &chain[..chain.len() / 2];
    let half_key = &key[..key.len() / 2];
    let garbled = chain.replace("MII", "MIA");
    for (chain, key, word) in [
        (chain.as_str(), other_key.as_str(), "is not that of the first certificate"),
        (&expired, &expired_key, "has expired"),
        ("", &key, "there is none"),
        (&key, &key, "there is none"),
        ("no certificate", &key, "there is none"),
        (half_chain, &key, "no certificate chain"),
        (&garbled, &key, "no certificate chain"),
        (&chain, "", "no unencrypted private key"),
        (&chain, half_key, "no unencrypted private key"),
        (&chain, &chain, "no unencrypted private key"),
        (&chain, &key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "no unencrypted private key"),
    ] {
        files.write(chain, key);
        let error = read(&files).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        let secret = key.lines().nth(1).unwrap_or("no second line");
        assert!(!error.contains(secret), "{error}");
    }
    std::fs::remove_file(files.key()).unwrap();
    let error = read(&files).unwrap_err().to_string();
    assert!(error.contains("key.pem") && error.contains("cannot be read"), "{error}");
}

#[test]
fn what_does_not_count_yet_is_refused_until_it_does() {
    let authority = Authority::new();
    let files = authority.files(&["bank.test"]);
    let certificate = read(&files).unwrap();
    let content = certificate.files.read().unwrap();
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let error = certificate.files.pair(&content, yesterday).unwrap_err().to_string();
    assert!(error.contains("only counts from second 1"), "{error}");
    certificate.files.pair(&content, SystemTime::now()).unwrap();
}

#[test]
fn a_bad_pair_is_kept_out_and_said_once_and_the_next_good_one_is_shown() {
    let authority = Authority::new();
    let files = authority.files(&["bank.test"]);
    let certificate = read(&files).unwrap();
    let first = shown(&certificate);
    let mut follower = Follower::default();
    let (chain, key) = authority.issue(&["bank.test"], 30);
    let (_, other_key) = authority.issue(&["bank.test"], 30);
    for (bad_chain, bad_key) in [(chain.as_str(), other_key.as_str()), ("", &key), (&chain, "nothing")] {
        files.write(bad_chain, bad_key);
        follower.look(&certificate);
        follower.look(&certificate);
        assert!(follower.refused.is_some(), "{bad_chain} {bad_key}");
        assert_eq!(shown(&certificate), first);
    }
    std::fs::remove_file(files.chain()).unwrap();
    follower.look(&certificate);
    assert!(follower.refused.as_ref().unwrap().contains("cannot be read"), "{:?}", follower.refused);
    assert_eq!(shown(&certificate), first);

    files.write(&chain, &key);
    follower.look(&certificate);
    assert_eq!(follower.refused, None);
    assert_ne!(shown(&certificate), first);
    assert!(certificate.expires_at() > in_days(29));
}

#[test]
fn a_pair_in_the_middle_of_its_replacement_is_looked_at_again_before_anybody_is_called() {
    let authority = Authority::new();
    let files = authority.files(&["bank.test"]);
    let certificate = read(&files).unwrap();
    let first = shown(&certificate);
    let mut follower = Follower::default();
    follower.look(&certificate);
    let (chain, key) = authority.issue(&["bank.test"], 30);
    replace(&files.chain(), &chain);
    follower.look(&certificate);
    assert_eq!((shown(&certificate), follower.refused.clone()), (first.clone(), None));
    replace(&files.key(), &key);
    follower.look(&certificate);
    assert_ne!(shown(&certificate), first);
    assert_eq!(follower.refused, None);
}
