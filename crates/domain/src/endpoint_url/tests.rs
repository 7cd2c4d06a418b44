//! Tables of addresses and URLs.

use super::*;

#[test]
fn only_public_addresses_are_public() {
    let refused = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::a00:1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ];
    for ip in refused {
        assert!(!is_public(ip.parse().unwrap()), "{ip} must be refused");
    }
    let public = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.0.0.1",
        "128.0.0.1",
        "169.253.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.0.1",
        "192.169.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00:1450::1",
    ];
    for ip in public {
        assert!(is_public(ip.parse().unwrap()), "{ip} must be allowed");
    }
}

#[test]
fn urls_are_checked_in_every_notation() {
    use Refusal::{Address, Credentials, Malformed, Name, Port, Scheme, TooLong};
    let long = format!("https://shop.example/{}", "x".repeat(URL_BYTES_MAX));
    let cases = [
        (long.as_str(), Some(TooLong)),
        ("https://shop.example/hook", None),
        ("https://shop.example:8443/hook?a=b", None),
        ("https://shop.example:10443/", None),
        ("https://8.8.8.8/", None),
        ("https://[2606:4700::1111]/", None),
        ("http://shop.example/", Some(Scheme)),
        ("ftp://shop.example/", Some(Scheme)),
        ("file:///etc/passwd", Some(Malformed)),
        ("shop.example", Some(Malformed)),
        ("https://", Some(Malformed)),
        ("https://user@shop.example/", Some(Credentials)),
        ("https://:secret@shop.example/", Some(Credentials)),
        ("https://shop.example:22/", Some(Port)),
        ("https://shop.example:80/", Some(Port)),
        ("https://shop.example:6379/", Some(Port)),
        ("https://127.0.0.1/", Some(Address)),
        ("https://10.1.2.3/", Some(Address)),
        ("https://169.254.169.254/latest/meta-data/", Some(Address)),
        ("https://2130706433/", Some(Address)),
        ("https://0x7f.1/", Some(Address)),
        ("https://0x7f000001/", Some(Address)),
        ("https://0177.0.0.1/", Some(Address)),
        ("https://012.1.2.3/", Some(Address)),
        ("https://127.1/", Some(Address)),
        ("https://0/", Some(Address)),
        ("https://１２７.０.０.１/", Some(Address)),
        ("https://[::1]/", Some(Address)),
        ("https://[::]/", Some(Address)),
        ("https://[::ffff:127.0.0.1]/", Some(Address)),
        ("https://[::ffff:a00:1]/", Some(Address)),
        ("https://[64:ff9b::a00:1]/", Some(Address)),
        ("https://[fd00::1]/", Some(Address)),
        ("https://[fe80::1]/", Some(Address)),
        ("https://[::127.0.0.1]/", Some(Address)),
        ("https://[0:0:0:0:0:ffff:127.0.0.1]/", Some(Address)),
        ("https://[64:ff9b:1::7f00:1]/", Some(Address)),
        ("https://[2002:7f00:1::]/", Some(Address)),
        ("https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", Some(Address)),
        ("https://[::ffff:8.8.8.8]/", Some(Address)),
        ("https://[fe80::1%25eth0]/", Some(Malformed)),
        ("https://127.0.0.1./", Some(Address)),
        ("https://0x7f.0x0.0x0.0x1/", Some(Address)),
        ("https://0177.0.0.01/", Some(Address)),
        ("https://017700000001/", Some(Address)),
        ("https://0xA9FEA9FE/", Some(Address)),
        ("https://%31%32%37.0.0.1/", Some(Address)),
        ("https://①②⑦.0.0.1/", Some(Address)),
        ("https://127。0。0。1/", Some(Address)),
        ("https://256.1.1.1/", Some(Malformed)),
        ("https://1.2.3.4.5/", Some(Malformed)),
        ("https://127.0.0.1\\@shop.example/", Some(Address)),
        ("https://shop.example@127.0.0.1/", Some(Address)),
        ("https:\\\\10.0.0.1\\x", Some(Address)),
        ("https:10.0.0.1", Some(Address)),
        ("https:///10.0.0.1/", Some(Address)),
        ("https://shop\t.example/", Some(Malformed)),
        ("https://shop.example/\r\nHost: x", Some(Malformed)),
        (" https://shop.example/", Some(Malformed)),
        ("https://shop\u{a0}.example/", Some(Malformed)),
        ("https://localhost/", Some(Name)),
        ("https://LOCALHOST./", Some(Name)),
        ("https://x.localhost/", Some(Name)),
        ("https://localhost.localdomain/", Some(Name)),
        ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", Some(Name)),
        ("https://loc\u{ad}alhost/", Some(Name)),
        ("https://metadata/", Some(Name)),
        ("https://metadata./", Some(Name)),
        ("https://metadata.google.internal/", Some(Name)),
        ("https://printer.local./", Some(Name)),
        ("https://1.0.0.127.in-addr.arpa/", Some(Name)),
        ("https://./", Some(Name)),
        ("https://.com/", Some(Name)),
        ("https://shop..example/", None),
        ("https://bücher.example/", None),
        ("https://shop.example./", None),
        ("https://shop.example:0/", Some(Port)),
        ("https://shop.example:65536/", Some(Malformed)),
        ("gopher://shop.example/", Some(Scheme)),
        ("wss://shop.example/", Some(Scheme)),
        ("javascript:alert(1)", Some(Malformed)),
        ("", Some(Malformed)),
    ];
    for (url, refusal) in cases {
        assert_eq!(check_url(url, Loopback::Refused).err(), refusal, "{url:?}");
    }
}

#[test]
fn the_local_exception_is_for_loopback_alone() {
    for url in ["http://127.0.0.1:80/", "http://[::1]:9092/", "http://localhost:22/x", "https://127.0.0.1:3/"]
    {
        assert!(check_url(url, Loopback::Allowed).is_ok(), "{url}");
        assert!(check_url(url, Loopback::Refused).is_err(), "{url}");
    }
    for url in
        ["http://shop.example/", "http://10.0.0.1/", "https://10.0.0.1/", "https://[::ffff:127.0.0.1]/"]
    {
        assert!(check_url(url, Loopback::Allowed).is_err(), "{url}");
    }
}

#[test]
fn what_a_name_resolves_to_is_checked() {
    let (loopback, private, public) =
        ["127.0.0.1", "10.0.0.1", "8.8.8.8"].map(|ip| ip.parse::<IpAddr>().unwrap()).into();
    for (name, ip, refused, allowed) in [
        ("shop.example", public, true, true),
        ("shop.example", private, false, false),
        ("shop.example", loopback, false, true),
        ("localhost", loopback, false, true),
        ("a.localhost.", loopback, false, true),
        // http is allowed to this name, so it must not lead anywhere else.
        ("localhost", public, false, false),
    ] {
        assert_eq!(address_is_allowed(name, ip, Loopback::Refused), refused, "{name} {ip}");
        assert_eq!(address_is_allowed(name, ip, Loopback::Allowed), allowed, "{name} {ip}");
    }
}
