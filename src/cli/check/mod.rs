//! `doorward check`: the same load as at start and on reload, without starting anything. Prints what an operator should
//! know and what would run, or every problem; with `--against`, what would change for the requests of an audit log.

mod against;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::config::diagnostic::Look;
use crate::config::{Loaded, load_with};
use crate::policy::{Mode, UpstreamId};
use crate::snapshot::{Listener, Snapshot, Upstream, Upstreams};
use crate::tenant::Tenant;
use crate::upstream::Balance;
use against::Tally;

/// Check a configuration without running it.
///
/// Reads the file and everything it names (tenant files, secrets, keys, revocations) exactly as `doorward run` does.
/// Warnings go to stderr and a summary to stdout, with the fingerprint of every secret: the name by which logs, /status
/// and the revocations file call it. Exit code 0: it would run. 2: it would not, and every problem is on stderr.
///
/// With --against, every record of an audit log is judged again by this configuration: what it would newly deny, newly
/// admit, and what a record does not tell. Exit code 1 then says that it would newly deny something, or that nothing could
/// be judged.
#[derive(Args, Debug)]
pub struct Check {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "doorward.toml")]
    pub config: PathBuf,

    /// Audit records to judge again, one a line; - reads standard input.
    #[arg(long, value_name = "AUDIT.JSONL")]
    pub against: Option<PathBuf>,

    /// Judge them as if every tenant had this mode.
    #[arg(long, value_enum, requires = "against")]
    pub mode: Option<AskedMode>,
}

/// `--mode`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedMode {
    /// Tokens are not looked at.
    Off,
    /// What enforce would deny is counted and forwarded.
    Monitor,
    /// It is denied.
    Enforce,
}

impl From<AskedMode> for Mode {
    fn from(asked: AskedMode) -> Self {
        match asked {
            AskedMode::Off => Self::Off,
            AskedMode::Monitor => Self::Monitor,
            AskedMode::Enforce => Self::Enforce,
        }
    }
}

impl Check {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let look = if io::stderr().is_terminal() { Look::Coloured } else { Look::Plain };
        let mut err = io::stderr().lock();
        match load_with(&self.config, 1, &|_, _| Arc::default(), look) {
            Ok(loaded) => {
                // A closed pipe is no reason to fail: the exit code says what was found.
                loaded.warnings.iter().for_each(|warning| drop(writeln!(err, "{warning}\n")));
                drop(io::stdout().lock().write_all(summary(&loaded).as_bytes()));
                self.against.as_ref().map_or(ExitCode::SUCCESS, |records| against(records, self.mode.map(Mode::from), &loaded.snapshot))
            }
            Err(problems) => {
                let (errors, warnings) = (problems.errors, problems.warnings);
                let besides = if warnings == 0 { String::new() } else { format!(", {}", many(warnings, "warning")) };
                drop(writeln!(err, "{problems}\n\n{}: {}{besides}", self.config.display(), many(errors, "problem")));
                ExitCode::from(2)
            }
        }
    }
}

fn against(records: &Path, mode: Option<Mode>, snapshot: &Snapshot) -> ExitCode {
    let tally = if records == Path::new("-") {
        Tally::of(io::stdin().lock(), snapshot, mode)
    } else {
        File::open(records).and_then(|file| Tally::of(BufReader::new(file), snapshot, mode))
    };
    match tally {
        Ok(tally) => {
            drop(io::stdout().lock().write_all(tally.describe(&records.display().to_string(), mode).as_bytes()));
            if tally.is_safe() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {}: {error}", records.display());
            ExitCode::FAILURE
        }
    }
}

/// What would run: listeners, upstream, keys, tenants.
pub fn summary(loaded: &Loaded) -> String {
    let mut text = String::new();
    let settings = &loaded.snapshot.settings;
    let (server, tenants) = (&settings.server, loaded.snapshot.tenants.all());
    let probes = server.probes.map(|p| format!(", probes {p}")).unwrap_or_default();
    let listeners: Vec<_> = server.listeners.iter().map(listener).collect();
    line(&mut text, format_args!("listen {}, admin {}{probes}", listeners.join(", "), server.admin));
    for upstream in loaded.snapshot.upstreams.all() {
        line(&mut text, format_args!("upstream {}", reached(upstream)));
    }
    for key in loaded.keys.iter().filter(|key| key.tenant.is_none()) {
        line(&mut text, format_args!("key {}  {}  fingerprint {}", key.id, key.what, key.fingerprint));
    }
    let mut keys: HashMap<&str, Vec<_>> = HashMap::new();
    for key in &loaded.keys {
        keys.entry(key.tenant.as_deref().unwrap_or_default()).or_default().push(key);
    }
    for tenant in tenants {
        line(&mut text, format_args!("tenant {}  {}{}", tenant.id, described(tenant), goes_to(tenant, &loaded.snapshot.upstreams)));
        for key in keys.get(tenant.id.as_str()).into_iter().flatten() {
            line(&mut text, format_args!("  secret {}  {}  fingerprint {}", key.id, key.what, key.fingerprint));
        }
        for remote in tenant.keys.remotes() {
            line(&mut text, format_args!("  secret {}  jwt keys of {}, which check does not fetch", remote.id, remote.source.url));
        }
    }
    line(&mut text, format_args!("ok: {}, {}", many(tenants.len(), "tenant"), many(loaded.warnings.len(), "warning")));
    text
}

fn listener(listener: &Listener) -> String {
    let more = match &listener.tls {
        Some(tls) => format!(" (TLS for {})", tls.names().join(" ")),
        None if listener.h2c => " (h2c)".to_owned(),
        None => String::new(),
    };
    let asked = listener.forward_auth.map(|convention| format!(" (forward-auth for {})", convention.as_str())).unwrap_or_default();
    format!("{}{more}{asked}", listener.place)
}

/// Name, addresses and how they are reached; the name of the only one goes without saying.
fn reached(upstream: &Upstream) -> String {
    let settings = &upstream.settings;
    let name = if settings.name == UpstreamId::DEFAULT { String::new() } else { format!("{}  ", settings.name) };
    let backends: Vec<_> = settings.backends.iter().map(ToString::to_string).collect();
    let mut more = Vec::new();
    if let Some(tls) = &settings.tls {
        more.push(tls.server_name().map_or("TLS".to_owned(), |name| format!("TLS as {name}")));
    }
    if backends.len() > 1 || settings.balance != Balance::RoundRobin {
        more.push(settings.balance.as_str().to_owned());
    }
    if settings.health.is_some() {
        more.push("checked".to_owned());
    }
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    format!("{name}{}{more}", backends.join(" "))
}

/// Where a tenant's requests go, where that is not to the default upstream.
fn goes_to(tenant: &Tenant, upstreams: &Upstreams) -> String {
    let default = UpstreamId::of(UpstreamId::DEFAULT);
    let mut names = Vec::new();
    for id in tenant.policy.upstreams() {
        let name = upstreams.get(id).map_or("?", |upstream| &upstream.settings.name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if tenant.policy.upstreams().all(|id| id == default) { String::new() } else { format!(", upstream {}", names.join(" ")) }
}

fn many(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn described(tenant: &Tenant) -> String {
    let (mode, keys, origins, routes) = (tenant.mode.as_str(), tenant.embed_keys.len(), tenant.origins.len(), tenant.policy.routes.len());
    format!("preset {}, mode {mode}, embed keys {keys}, origins {origins}, routes {routes}", tenant.preset)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{arguments}"); // writing to a String cannot fail
}
