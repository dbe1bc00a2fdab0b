//! One process follows another: which sockets it takes, what becomes of the others, and what happens when it does not get that
//! far. Under load: [`crate::faults::upgrade`].

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::faults::site::{Process, Site, signal};
use crate::gateway::{KEY, ORIGIN, in_seconds, until};
use crate::http;
use crate::issuer::{Issuer, Reply, set};
use crate::life::{Manager, agent, ask, refused, visit};
use crate::pki::{Authority, connect, der, shown};
use crate::upstream::Upstream;
use crate::verifiers::{Maker, issue};

#[track_caller]
fn serves(address: SocketAddr) {
    assert_eq!(ask(address, "GET", "/").answer("GET").expect("an answer").status, 200);
}

#[track_caller]
fn serves_unix(path: &Path) {
    let mut stream = UnixStream::connect(path).expect("connect");
    stream.write_all(&visit("GET", "/", &[("Connection", "close")])).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The process that answers on the admin listener, by its configuration's tenant.
fn tenant(site: &Site) -> Option<String> {
    TcpStream::connect(site.admin).ok()?;
    let answer = http::get(site.admin, "/status");
    Some(answer.json()["tenants"][0]["id"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_taken_added_and_removed() {
    let upstream = Upstream::plain();
    let authority = Authority::new("test");
    let pairs = [authority.server(&["a.example"]), authority.server(&["a.example"])];
    let site = Site::new(upstream.address(), "probes = \"127.0.0.1:0\"", "");
    let show = |pair: &crate::pki::Pair| {
        site.write("a.pem", &pair.certificate);
        site.write("a.key", &pair.key);
    };
    show(&pairs[0]);
    let unix = |name: &str| format!("[[server.listener]]\nunix = \"{name}\"\n");
    let tls = "[[server.listener]]\naddress = \"127.0.0.1:0\"\ntls.certificates = [{ certificate = \"a.pem\", key = \"a.key\" }]\n";
    let more = format!("[[server.listener]]\naddress = \"127.0.0.1:0\"\n{tls}{}{}", unix("stays.sock"), unix("goes.sock"));
    site.change("[upstream]\n", &format!("{more}[upstream]\n"));
    let mut first = site.start(&[]);
    let places = |process: &Process| -> Vec<SocketAddr> {
        let of = |line: &str| line.split("listening address=").nth(1)?.split_whitespace().next()?.parse().ok();
        process.log().lines().filter_map(of).collect()
    };
    let [_, plain, secure] = places(&first)[..] else { panic!("{}", first.log()) };
    serves(plain);

    show(&pairs[1]);
    site.change(&format!("[[server.listener]]\naddress = \"127.0.0.1:0\"\n{tls}"), &format!("{}{tls}", unix("comes.sock")));
    site.change(&unix("goes.sock"), "");
    site.change("unix = \"stays.sock\"", "unix = \"stays.sock\"\nmode = \"0600\"");
    site.change("id = \"acme\"", "id = \"second\"");
    let _second = site.start(&["--upgrade"]);
    assert_eq!(first.wait(), 0, "{}", first.log());
    serves(site.address);
    assert_eq!(tenant(&site).as_deref(), Some("second"), "the admin listener is its own");
    for name in ["stays.sock", "comes.sock"] {
        serves_unix(&site.path(name));
    }
    assert_eq!(site.path("stays.sock").metadata().unwrap().permissions().mode() & 0o777, 0o600, "its mode is the new one's");
    assert!(!site.path("goes.sock").exists() && refused(secure).is_some(), "what is not listed any more is gone");
    // The configuration has one listener with port 0 where it had two: the first of the places goes on.
    let client = authority.client_config(&["http/1.1"]);
    let stream = connect(plain, "a.example", &client).await.expect("TLS by the new configuration");
    assert_eq!(shown(&stream), der(&pairs[1]), "the new certificate");
}

#[test]
fn a_process_that_does_not_get_ready_leaves_the_first_alone() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let good = std::fs::read_to_string(site.path("doorward.toml")).unwrap();
    let mut first = site.start(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("[[server.listener]]\naddress = \"{}\"\n\n[upstream]\n", taken.local_addr().unwrap());
    for (from, to, code) in [("[upstream]\n", "[upstreams]\n", 2), ("[upstream]\n", in_use.as_str(), 1)] {
        site.change(from, to);
        let mut next = Process::of(site.command(&["--upgrade"]));
        assert_eq!(next.wait(), code, "{}", next.log());
        site.write("doorward.toml", &good);
    }
    first.says("did not get ready");
    // One that has the sockets and dies without a word; and one that talks nonsense.
    for said in ["", "{\"took\":true}\n", "ready\n"] {
        let mut stranger = UnixStream::connect(site.path("upgrade/socket")).unwrap();
        stranger.write_all(said.as_bytes()).unwrap();
    }
    until("three more", || (first.log().matches("did not get ready").count() >= 4).then_some(()));
    serves(site.address);
    assert!(first.is_running());
    let _next = site.start(&["--upgrade"]);
    assert_eq!(first.wait(), 0);
    serves(site.address);
}

#[test]
fn an_upgrade_needs_a_running_process_and_a_directory_of_its_own() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let mut alone = Process::of(site.command(&["--upgrade"]));
    assert_eq!(alone.wait(), 1);
    alone.says("no running process hands over its sockets");
    std::fs::create_dir(site.path("upgrade")).unwrap();
    std::fs::set_permissions(site.path("upgrade"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut open = Process::of(site.command(&[]));
    assert_eq!(open.wait(), 1);
    open.says("closed to everybody else");
    site.change("upgrade_socket", "#upgrade_socket");
    let mut without = Process::of(site.command(&["--upgrade"]));
    assert_eq!(without.wait(), 1);
    without.says("needs [server] upgrade_socket");
}

#[test]
fn streams_stay_with_the_first_process_and_new_requests_go_to_the_second() {
    let upstream = agent(Duration::from_millis(100), 30);
    let site = Site::new(upstream.address(), "grace = \"20s\"", "");
    let mut first = site.start(&[]);
    let mut answer = ask(site.address, "POST", "/answer");
    let mut subscription = ask(site.address, "GET", "/events");
    assert!(answer.until(b"data: first\n\n").is_some() && subscription.until(b"data: first\n\n").is_some());
    site.change("id = \"acme\"", "id = \"second\"");
    let second = site.start(&["--upgrade"]);
    assert_eq!(tenant(&site).as_deref(), Some("second"), "at once");
    assert!(subscription.until(b"doorward-restart").is_some(), "a subscription is told");
    let mut again = ask(site.address, "GET", "/events");
    assert!(again.until(b"data: first\n\n").is_some(), "and connects again");
    let all = String::from_utf8(answer.until(b"0\r\n\r\n").expect("a proper end")).unwrap();
    assert_eq!(all.matches("data: word").count(), 29, "{all}");
    assert_eq!(first.wait(), 0);
    until("its record", || first.audit_text().contains("acme").then_some(()));
    assert!(!second.audit_text().contains("acme"));
}

#[test]
fn the_next_process_knows_the_issuers_keys_before_it_takes_over() {
    let upstream = Upstream::plain();
    let claims = serde_json::json!({ "sub": "ann", "exp": in_seconds(600) });
    let keys = [serde_json::json!({ "kid": "k", "alg": "ES256" })];
    let made = issue(Maker::Node, &serde_json::json!({ "keys": keys, "tokens": [{ "kid": "k", "claims": claims }] }));
    let published = || set(&[&made["keys"]["k"]]);
    let issuer = Issuer::start(published());
    let site = Site::new(upstream.address(), "", "");
    site.write("ca.pem", &issuer.authority.pem());
    site.change("preset = \"halo\"", "preset = \"none\"");
    site.change(
        "{ id = \"s1\", file = \"identity.key\" }",
        &format!("{{ id = \"idp\", jwks_url = \"{}\", ca = \"ca.pem\" }}", issuer.url()),
    );
    let mut first = site.start(&[]);
    let asked = || {
        let bearer = format!("Bearer {}", made["tokens"][0].as_str().unwrap());
        let headers = [("X-Embed-Key", KEY), ("Origin", ORIGIN), ("Authorization", bearer.as_str()), ("Connection", "close")];
        http::send(site.address, http::request("GET", "/", &headers, b"")).status
    };
    until("the keys", || (asked() == 200).then_some(()));
    issuer.say(Reply::Later);
    let fetches = issuer.fetches();
    let next = Process::of(site.command(&["--upgrade"]));
    until("the next process to ask the issuer", || (issuer.fetches() > fetches).then_some(()));
    assert_eq!((asked(), first.is_running(), next.log().contains(" serving ")), (200, true, false), "the first goes on meanwhile");
    issuer.say(published());
    next.serving();
    assert_eq!(first.wait(), 0);
    assert_eq!(asked(), 200);
}

/// The number of the process that a process started.
fn started(process: &Process) -> u32 {
    process.says("started the next process");
    let log = process.log();
    let line = log.lines().find(|line| line.contains("started the next process")).unwrap();
    line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn sigusr2_starts_the_next_process_and_systemd_is_told_which_it_is() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let manager = Manager::new(&site);
    let mut first = Manager::start(&site);
    assert_eq!(manager.hears(), "READY=1\nSTATUS=serving\n");
    site.change("id = \"acme\"", "id = \"second\"");
    first.signal("USR2");
    let next = started(&first);
    let heard = [manager.hears(), manager.hears()];
    assert!(heard.contains(&format!("MAINPID={next}\n")) && heard.contains(&"READY=1\nSTATUS=serving\n".to_owned()), "{heard:?}");
    assert_eq!(first.wait(), 0);
    assert_eq!(tenant(&site).as_deref(), Some("second"));
    signal(next, "TERM");
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=draining\n", "from the second only");
    until("it to end", || refused(site.admin));
}

/// Starts the gateway as systemd does: a socket stands at descriptor 3, and stays with whoever made it.
fn activated(site: &Site, socket: &TcpListener) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null", env!("CARGO_BIN_EXE_doorward"), "run", "-c"]);
    command.arg(site.path("doorward.toml")).stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    Process::of(command)
}

#[test]
fn with_a_socket_of_systemds_nobody_is_refused_between_two_processes() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let socket = TcpListener::bind(site.address).unwrap();
    let mut first = activated(&site, &socket);
    first.serving();
    serves(site.address);
    first.signal("TERM");
    assert_eq!(first.wait(), 0);
    let mut waiting = ask(site.address, "GET", "/"); // nobody serves
    let mut second = activated(&site, &socket);
    assert_eq!(waiting.answer("GET").expect("an answer").status, 200);
    // It can be followed too, and the next one knows whose socket it is.
    let mut third = site.start(&["--upgrade"]);
    assert_eq!(second.wait(), 0);
    third.signal("TERM");
    assert_eq!(third.wait(), 0);
    let _waits = ask(site.address, "GET", "/");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    drop(socket);
    let mut wrong = activated(&site, &other);
    assert_eq!(wrong.wait(), 1);
    wrong.says("no listener of the configuration is there");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

#[test]
fn the_script_for_an_upgrade_by_hand_works_and_fails_aloud() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let mut first = site.start(&[]);
    let upgrade = || {
        let mut command = Command::new("sh");
        command.arg(script("upgrade.sh")).arg(env!("CARGO_BIN_EXE_doorward")).arg(site.path("doorward.toml")).arg(site.path("log"));
        command.output().expect("sh")
    };
    let good = std::fs::read_to_string(site.path("doorward.toml")).unwrap();
    site.change("[upstream]\n", "[upstreams]\n");
    let refused_upgrade = upgrade();
    assert!(!refused_upgrade.status.success() && first.is_running(), "{refused_upgrade:?}");
    site.write("doorward.toml", &good);
    site.change("id = \"acme\"", "id = \"second\"");
    let done = upgrade();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(first.wait(), 0);
    assert_eq!(tenant(&site).as_deref(), Some("second"));
    let next = said.split("process ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect(&said);
    signal(next, "TERM");
    until("it to end", || refused(site.admin));
}

#[test]
fn the_script_for_systemd_waits_for_the_next_main_process() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let manager = Manager::new(&site);
    let mut first = Manager::start(&site);
    assert!(manager.hears().starts_with("READY=1"));
    // systemd's part: `systemctl show` says which process is the main one.
    let bin = site.path("bin");
    std::fs::create_dir(&bin).unwrap();
    site.write("bin/systemctl", &format!("#!/bin/sh\n[ \"$1\" = show ] && cat '{}'\n", site.path("main").display()));
    std::fs::set_permissions(site.path("bin/systemctl"), PermissionsExt::from_mode(0o755)).unwrap();
    site.write("main", &format!("{}\n", first.pid()));
    let mut command = Command::new("sh");
    command.arg(script("systemd/upgrade")).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let mut upgrading = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let next = started(&first);
    until("the new main process", || manager.hears().strip_prefix("MAINPID=").map(|pid| site.write("main", pid)));
    assert!(upgrading.wait().unwrap().success());
    assert_eq!(first.wait(), 0);
    signal(next, "TERM");
    until("it to end", || refused(site.admin));
}
