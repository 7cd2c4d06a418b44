use super::*;

fn ssl_mode(url: &str) -> String {
    let options = MysqlConfig { mysql_url: url.to_owned() }.options().unwrap();
    let url = options.to_url_lossy();
    url.query_pairs().find(|(key, _)| key == "ssl-mode").unwrap().1.into_owned()
}

#[test]
fn tls_is_left_out_on_loopback_alone() {
    for (url, mode) in [
        ("mysql://u:p@127.0.0.1:1/d", "DISABLED"),
        ("mysql://u:p@localhost/d", "DISABLED"),
        ("mysql://u:p@[::1]/d", "DISABLED"),
        ("mysql://u:p@db.internal/d", "VERIFY_IDENTITY"),
        ("mysql://u:p@10.0.0.1/d", "VERIFY_IDENTITY"),
        ("mysql://u:p@localhost.evil.example/d", "VERIFY_IDENTITY"),
        ("mysql://u:p@db/d?ssl-mode=REQUIRED", "REQUIRED"),
        ("mysql://u:p@127.0.0.1/d?ssl-mode=VERIFY_CA", "VERIFY_CA"),
    ] {
        assert_eq!(ssl_mode(url), mode, "{url}");
    }
}

#[test]
fn a_url_that_cannot_serve_is_named_without_its_password() {
    for url in [
        "",
        "postgres://u:geheim@h/d",
        "mysql:// geheim",
        "mysql://u:geheim@h:99999/d",
        "mysql://u:geheim@h/d?ssl-mode=geheim",
    ] {
        let config = MysqlConfig { mysql_url: url.to_owned() };
        let message = config.options().unwrap_err().to_string();
        assert!(message.contains("WIRED_MYSQL_URL") && !message.contains("geheim"), "{message}");
        assert!(!format!("{config:?}").contains("geheim"));
    }
}
