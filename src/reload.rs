//! Hot reload. Files are watched (in-place writes, renames, Kubernetes' `..data` symlink swap) and looked at twice a second
//! besides; SIGHUP asks for it too. A configuration is put in force whole or not at all, but for files of a tenant directory:
//! each keeps its own tenant as it was. The last good stays, and a metric and a log line tell. Revocations are read first and on their own, so they apply while the rest is refused.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::clock;
use crate::config::watched::{self, Files};
use crate::config::{self, Loaded};
use crate::jwks::KeySets;
use crate::observe::metrics::{LastReload, Metrics, Reload};
use crate::observe::telemetry::Telemetry;
use crate::revocations::Revocations;
use crate::snapshot::Live;

/// How often files are looked at when no event came: bounds the reload delay on file systems without events.
const LOOK: Duration = Duration::from_millis(500);
/// Two reads this far apart must agree before a file counts as written.
const SETTLE: Duration = Duration::from_millis(30);
/// Longest wait for files that keep changing; then the attempt is made all the same, and again after the next change.
const SETTLE_TRIES: usize = 30;

/// What a reload works on.
#[derive(Debug)]
pub struct Reloader {
    /// The configuration file.
    pub path: PathBuf,
    /// What is in force.
    pub live: Arc<Live>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Issuers' keys are handed to a configuration before it is put in force.
    pub key_sets: Arc<KeySets>,
    /// Where spans go.
    pub telemetry: Arc<Telemetry>,
}

/// Reads the revocations file that a configuration names.
///
/// # Errors
/// A sentence with file and line for each line that is none.
pub fn read_revocations(path: Option<&Path>) -> Result<Revocations, String> {
    let Some(path) = path else { return Ok(Revocations::default()) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Revocations::parse(&text).map_err(|bad| {
        let lines: Vec<_> = bad.iter().map(|b| format!("{}:{}: {}", path.display(), b.line, b.why)).collect();
        lines.join("\n")
    })
}

impl Reloader {
    /// Watches until the channel of SIGHUPs closes; what comes through it is dropped when the reload that it asks for is over.
    /// `files` is what the configuration in force was made of.
    pub async fn run<T>(self, mut files: Files, mut hangups: mpsc::Receiver<T>) {
        let (events, mut changed) = mpsc::channel(1);
        let mut watch = Watch::new(events);
        watch.follow(&files);
        // None yet, so that what changed between loading and watching is seen at the first look.
        let mut stamps = Vec::new();
        let mut refused_revocations = String::new();
        loop {
            let forced = tokio::select! {
                hangup = hangups.recv() => match hangup { Some(asks) => Some(asks), None => return },
                _ = changed.recv() => None,
                () = tokio::time::sleep(LOOK) => {
                    let now = self.stamps(&files);
                    if now == stamps { continue }
                    None
                }
            };
            self.revoke(&mut refused_revocations);
            let now = self.stamps(&files);
            let settled = settle(&files).await;
            stamps = now;
            if settled == files && forced.is_none() {
                continue;
            }
            files = self.reload().await.unwrap_or(settled);
            watch.follow(&files);
            // What changed since it was read is looked at again at once.
            stamps = self.stamps(&files);
            if watched::again(&files) != files {
                stamps.clear();
            }
        }
    }

    /// Where each file really is, its size and its time: cheap to look at twice a second. The revocations in force are looked
    /// at even where a configuration that is refused names none.
    fn stamps(&self, files: &Files) -> Vec<Option<(PathBuf, u64, std::time::SystemTime)>> {
        let stamp = |path: &Path| {
            let real = path.canonicalize().ok()?;
            let data = real.metadata().ok()?;
            Some((real, data.len(), data.modified().ok()?))
        };
        let revocations = self.live.load().0.settings.revocations.clone();
        files.keys().chain(&revocations).map(|path| stamp(path)).collect()
    }

    fn revoke(&self, refused: &mut String) {
        let path = self.live.load().0.settings.revocations.clone();
        match read_revocations(path.as_deref()) {
            Ok(list) => {
                refused.clear();
                if *self.live.load().1 != list {
                    tracing::info!(entries = list.len(), "revocations applied");
                    self.live.revoke(list);
                }
            }
            Err(why) if *refused != why => {
                tracing::error!("revocations refused, the last good ones stay:\n{why}");
                *refused = why;
            }
            Err(_) => {}
        }
    }

    /// One attempt; returns what it read, if it came to that.
    async fn reload(&self) -> Option<Files> {
        let (path, metrics) = (self.path.clone(), Arc::clone(&self.metrics));
        let before = self.live.load().0;
        let usage = move |tenant: &str, secret: &str| metrics.usage(tenant, secret);
        let loading = move || config::reload(&path, before.generation + 1, &usage, &before.tenants);
        let result = tokio::task::spawn_blocking(loading).await;
        let now = clock::read();
        match (result, now) {
            (Ok(Ok(loaded)), Ok(now)) => Some(self.apply(loaded, now).await),
            (Ok(Err(problems)), _) => {
                for problem in &problems.rendered {
                    tracing::error!("configuration refused, the last good one stays:\n{problem}");
                }
                self.refuse(problems.rendered.iter().find(|problem| problem.starts_with("error")).cloned());
                Some(problems.files)
            }
            (Err(_), _) | (_, Err(_)) => {
                let why = "the loader or the clock failed";
                tracing::error!("configuration refused, the last good one stays: {why}");
                self.refuse(Some(why.to_owned()));
                None
            }
        }
    }

    fn refuse(&self, problem: Option<String>) {
        let snapshot = self.live.load().0;
        self.metrics.reloaded(Reload::Refused, snapshot.generation, snapshot.loaded_at);
        self.tried(Reload::Refused, snapshot.generation, problem);
    }

    fn tried(&self, result: Reload, generation: u64, problem: Option<String>) {
        let at = clock::read().unwrap_or(clock::UnixTime::from_millis(0));
        self.metrics.tried(LastReload { result, at, generation, problem });
    }

    async fn apply(&self, loaded: Loaded, now: clock::UnixTime) -> Files {
        let Loaded { snapshot, warnings, files, keys, refused, .. } = loaded;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        for file in &refused {
            let path = file.path.display();
            for problem in &file.problems {
                match &file.kept {
                    Some(tenant) => tracing::error!("{path} refused, tenant {tenant} stays as it was:\n{problem}"),
                    None => tracing::error!("{path} refused, its tenant is not served:\n{problem}"),
                }
            }
        }
        let before = self.live.load().0;
        let left = before.settings.server.with_a_restart(&snapshot.settings.server);
        if left.iter().any(|(_, changed)| *changed) {
            tracing::warn!("addresses and threads change with a restart or an upgrade only; the rest of the new configuration is in force");
        }
        snapshot.upstreams.take_over(&before.upstreams);
        snapshot.upstreams.resolve_soon().await;
        let generation = snapshot.generation;
        self.metrics.prepare(&snapshot.tenants, snapshot.settings.max_tenants);
        self.key_sets.follow(&snapshot.tenants);
        self.telemetry.follow(snapshot.settings.telemetry.as_ref());
        self.live.swap(snapshot);
        let result = if refused.is_empty() { Reload::Applied } else { Reload::Partial };
        self.metrics.reloaded(result, generation, now);
        self.tried(result, generation, refused.iter().find_map(|file| file.problems.first()).cloned());
        keys.iter().for_each(config::KeyInUse::log);
        tracing::info!(generation, refused_files = refused.len(), "configuration applied");
        self.revoke(&mut String::new());
        files
    }
}

/// Reads until two reads agree: a writer caught in the middle is waited for.
async fn settle(files: &Files) -> Files {
    let mut last = watched::again(files);
    for _ in 0..SETTLE_TRIES {
        tokio::time::sleep(SETTLE).await;
        let again = watched::again(files);
        if again == last {
            break;
        }
        last = again;
    }
    last
}

/// The directories of the watched files: a rename or symlink swap shows in the directory, not in the file.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    directories: HashSet<PathBuf>,
    /// The files' own names: others are written beside them, logs among them.
    names: Arc<ArcSwap<HashSet<OsString>>>,
}

impl Watch {
    fn new(events: mpsc::Sender<()>) -> Self {
        let names = Arc::<ArcSwap<HashSet<OsString>>>::default();
        let watched = Arc::clone(&names);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_err() || event.is_ok_and(|event| is_change(&event, &watched.load())) {
                let _ = events.try_send(()); // a full channel already says that something changed
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file events here; files are looked at every 500 ms");
        }
        Self { watcher: watcher.ok(), directories: HashSet::new(), names }
    }

    fn follow(&mut self, files: &Files) {
        let Some(watcher) = &mut self.watcher else { return };
        let of = |path: &PathBuf| if path.is_dir() { Some(path.clone()) } else { path.parent().map(Path::to_path_buf) };
        let real = files.keys().filter_map(|f| f.canonicalize().ok());
        let all: Vec<_> = files.keys().cloned().chain(real).collect();
        // None is forgotten: a configuration that is refused may name fewer than the one in force.
        let names = all.iter().filter_map(|file| file.file_name()).map(OsStr::to_owned);
        self.names.store(Arc::new(self.names.load().iter().cloned().chain(names).collect()));
        for directory in all.iter().filter_map(of) {
            let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
            if self.directories.contains(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.directories.insert(directory)),
                Err(error) => tracing::debug!(%error, directory = %directory.display(), "not watched"),
            }
        }
    }
}

/// Whether an event may be about a watched file. That one was opened or read is no change: we read them ourselves. What is
/// written into another file beside them is none either; where another appears, goes or is renamed, a link may lead elsewhere.
fn is_change(event: &Event, names: &HashSet<OsString>) -> bool {
    let ours = || event.paths.iter().any(|path| path.file_name().is_none_or(|name| names.contains(name)));
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            ours()
        }
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, RemoveKind, RenameMode};

    #[test]
    fn a_change_is_what_may_change_a_watched_file() {
        let names = HashSet::from([OsString::from("doorward.toml")]);
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let (created, removed) = (EventKind::Create(CreateKind::Any), EventKind::Remove(RemoveKind::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for (kind, name, change) in [
            (open, "doorward.toml", false),
            (read, "doorward.toml", false),
            (written, "doorward.toml", true),
            (data, "doorward.toml", true),
            (data, "audit.log", false),
            (written, "audit.log", false),
            (created, "..data", true),
            (renamed, "..data", true),
            (removed, "anything", true),
        ] {
            let event = Event::new(kind).add_path(Path::new("/etc/doorward").join(name));
            assert_eq!(is_change(&event, &names), change, "{event:?}");
        }
    }
}
