//! What an alert goes by before something ends or stays broken: ends of secrets and certificates, whether the configuration on
//! disk is the one in force, and counters that begin at 0.

use crate::gateway::{Gateway, halo, until};
use crate::pki::Authority;
use crate::upstream::Upstream;

/// 2036-01-01T00:00:00Z, and a year later.
const ENDS: (f64, f64) = (2_082_758_400.0, 2_114_380_800.0);

#[test]
fn what_ends_says_when() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let named = ["a.example", "www.a.example"];
    let (first, later) = (authority.server_until(&named, 2036), authority.server_until(&named, 2037));
    let own = authority.server_until(&["gateway.internal"], 2037);
    let tls = r#"[[server.listener]]
address = "127.0.0.1:0"
tls.certificates = [{ certificate = "later.pem", key = "later.key" }, { certificate = "a.pem", key = "a.key" }]

[upstreams.batch]
address = "127.0.0.1:1"
tls = { client_certificate = "own.pem", client_key = "own.key" }
assertion = { audience = "batch", keys = [{ id = "b1", file = "batch.key" }] }

[upstream]"#;
    let secrets = "secrets = [{ id = \"next\", file = \"next.key\", not_after = 2036-01-01T00:00:00Z }, {";
    let config = halo(upstream.address(), "").replace("[upstream]", tls).replace("secrets = [{", secrets);
    let files = [
        ("a.pem", first.certificate.as_str()),
        ("a.key", first.key.as_str()),
        ("later.pem", later.certificate.as_str()),
        ("later.key", later.key.as_str()),
        ("own.pem", own.certificate.as_str()),
        ("own.key", own.key.as_str()),
        ("next.key", "next_secret_0123456789abcdef0123"),
        ("batch.key", "batch_key_0123456789abcdef012345"),
    ];
    let gateway = Gateway::start_with(&config, &files);
    let secret = |id: &str| gateway.metric(&format!("doorward_secret_expires_timestamp_seconds{{secret=\"{id}\",tenant=\"acme\"}}"));
    assert_eq!(secret("next"), ENDS.0);
    assert!(secret("s1").is_nan(), "no end, no series");
    let certificate = |name: &str, listener: &str, upstream: &str| {
        let labels = format!("listener=\"{listener}\",name=\"{name}\",upstream=\"{upstream}\"");
        gateway.metric(&format!("doorward_certificate_expires_timestamp_seconds{{{labels}}}"))
    };
    assert_eq!(certificate("a.example", "127.0.0.1:0", ""), ENDS.0, "of two with one name, the first to end");
    assert_eq!(certificate("gateway.internal", "", "batch"), ENDS.1);
    // Renewed in place, key first: a pair that does not fit is refused, and tried again with the next change.
    gateway.write("a.key", &later.key);
    gateway.write("a.pem", &later.certificate);
    until("the renewed certificate", || (certificate("a.example", "127.0.0.1:0", "") == ENDS.1).then_some(()));
}

#[test]
fn a_configuration_that_was_refused_is_told_until_another_is_taken() {
    let upstream = Upstream::plain();
    let config = halo(upstream.address(), "");
    let gateway = Gateway::start(&config);
    let successful = |value: f64| gateway.counted("doorward_config_last_reload_successful", value);
    assert_eq!(gateway.metric("doorward_config_last_reload_successful"), 1.0, "from the start");
    gateway.write("doorward.toml", "[server\n");
    successful(0.0);
    gateway.write("doorward.toml", &config);
    successful(1.0);
}

/// Prometheus sees no increase in a series that begins with its first failure.
#[test]
fn failures_of_upstreams_are_counted_from_0() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for reason in ["upstream_unreachable", "upstream_timeout", "upstream_protocol", "upstream_tls", "client_disconnected"] {
        for level in ["anonymous", "claimed", "verified", "stepped_up"] {
            let labels = format!("level=\"{level}\",outcome=\"failed\",reason=\"{reason}\",tenant=\"acme\"");
            assert_eq!(gateway.metric(&format!("doorward_requests_total{{{labels}}}")), 0.0, "{labels}");
        }
    }
}
