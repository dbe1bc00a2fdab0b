//! The proxies that are compared: how each is started, from which configuration, and what of the job it leaves out.

use std::path::{Path, PathBuf};

use crate::Options;

/// One proxy.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Its configuration's name and text, with `@PLACES@` to fill.
    pub(crate) config: (&'static str, &'static str),
    /// The program and its arguments; `@CONFIG@` is the filled file.
    pub(crate) command: Vec<String>,
    /// What it cannot do, or does not.
    pub(crate) leaves_out: &'static str,
    /// Whether it looks at keys, origins and tokens at all.
    pub(crate) judges: bool,
}

/// Every peer that this machine has.
pub(crate) fn all(options: &Options) -> Vec<Peer> {
    let this = std::env::current_exe().unwrap();
    let words = |program: &Path, rest: &[&str]| {
        let program = program.display().to_string();
        [program].into_iter().chain(rest.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>()
    };
    let mut peers = vec![Peer {
        name: "doorward",
        config: ("doorward.toml", include_str!("doorward.toml")),
        command: words(&options.doorward, &["run", "-c", "@CONFIG@"]),
        leaves_out: "the whole job; audit and metrics on",
        judges: true,
    }];
    peers.push(Peer {
        name: "bare",
        config: ("none", ""),
        command: words(&this, &["--bare", "@PORT@", "@UPSTREAM@"]),
        leaves_out: "Pingora alone: no identity work, no log",
        judges: false,
    });
    let mut found = |name, program: Option<PathBuf>, config, rest: &[&str], leaves_out| match program {
        Some(program) => peers.push(Peer { name, config, command: words(&program, rest), leaves_out, judges: true }),
        None => println!("{name}: not on this machine, left out"),
    };
    found(
        "haproxy",
        on_path("haproxy"),
        ("haproxy.cfg", include_str!("haproxy.cfg")),
        &["-db", "-f", "@CONFIG@"],
        "leaves out nonce and RFC 9421 form, strict JSON, metrics by tenant",
    );
    found(
        "nginx",
        on_path("nginx").filter(|_| Path::new("/usr/lib/nginx/modules/ngx_http_lua_module.so").exists()),
        ("nginx.conf", include_str!("nginx.conf")),
        &["-c", "@CONFIG@"],
        "leaves out nonce and RFC 9421 form, strict JSON, metrics by tenant",
    );
    found(
        "envoy",
        options.envoy.clone(),
        ("envoy.yaml", include_str!("envoy.yaml")),
        &["-c", "@CONFIG@", "--concurrency", "1", "-l", "error"],
        "leaves out the signature, strict JSON, metrics by tenant",
    );
    peers
}

/// Where a program is.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place| place.join(program)).find(|file| file.is_file())
}
