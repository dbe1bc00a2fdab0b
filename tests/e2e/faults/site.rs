//! One configuration in a directory of its own, on addresses that stay the same while processes come and go.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::gateway::{ASSERTION_KEY, Lines, SECRET, halo, keep, until};

/// The directory, and where its processes listen.
pub struct Site {
    pub directory: tempfile::TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// A running gateway; ended when dropped.
pub struct Process {
    child: Child,
    log: Lines,
    audit: Lines,
}

impl Site {
    /// One Halo tenant, `acme`; lines are added to `[server]`, and to the tenant's table.
    pub fn new(upstream: SocketAddr, server: &str, tenant: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // A loopback address of its own: nobody takes its ports while no process listens.
        let [_, b, c, d] = (std::process::id() * 64 + NEXT.fetch_add(1, Ordering::SeqCst)).to_be_bytes();
        let own = Ipv4Addr::new(127, 64 | b, c, d.max(1));
        let free = |_| TcpListener::bind((own, 0)).expect("bind");
        let [address, admin] = [0, 1].map(free).map(|socket| socket.local_addr().expect("address"));
        let directory = tempfile::tempdir().expect("directory");
        let site = Self { directory, address, admin };
        let named = |name: &str, address: SocketAddr| (format!("{name} = \"127.0.0.1:0\""), format!("{name} = \"{address}\""));
        let mut config = halo(upstream, tenant);
        for (before, after) in [named("listen", address), named("admin", admin)] {
            config = config.replace(&before, &after);
        }
        config = config.replace("threads = 2\n", &format!("threads = 2\nupgrade_socket = \"upgrade/socket\"\n{server}\n"));
        for (name, text) in [("doorward.toml", config.as_str()), ("identity.key", SECRET), ("assertion.key", ASSERTION_KEY)] {
            site.write(name, text);
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("write");
    }

    /// Changes the configuration's text.
    pub fn change(&self, from: &str, to: &str) {
        let before = std::fs::read_to_string(self.path("doorward.toml")).expect("read");
        assert!(before.contains(from), "{from:?} is not in\n{before}");
        self.write("doorward.toml", &before.replace(from, to));
    }

    /// The command that runs the gateway here.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::gateway::binary());
        command.arg("run").arg("-c").arg(self.path("doorward.toml")).args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a process and waits until it serves.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Process {
        let process = Process::of(self.command(arguments));
        process.serving();
        process
    }

    /// A configuration with a Unix listener and probes beside the rest.
    pub fn everywhere(upstream: SocketAddr) -> Self {
        let site = Self::new(upstream, "grace = \"20s\"", "");
        site.change("[upstream]\n", "[[server.listener]]\nunix = \"clients.sock\"\n\n[upstream]\n");
        site
    }
}

impl Process {
    /// Starts it; it may end by itself.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let (log, audit) = (keep(child.stderr.take().expect("stderr")), keep(child.stdout.take().expect("stdout")));
        Self { child, log, audit }
    }

    #[track_caller]
    pub fn serving(&self) {
        self.says("serving");
    }

    /// Waits until it logs this.
    #[track_caller]
    pub fn says(&self, what: &str) {
        let deadline = std::time::Instant::now() + crate::http::PATIENCE;
        while !self.log().contains(what) {
            assert!(std::time::Instant::now() < deadline, "{what:?} is not in\n{}", self.log());
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("log").join("\n")
    }

    pub fn audit_text(&self) -> String {
        self.audit.lock().expect("audit").join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// The exit code, once it ended; -1 for a signal.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        until("the process to end", || self.child.try_wait().expect("wait")).code().unwrap_or(-1)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name.
/// Stops a process, and waits until each of its threads stands still: on a busy machine some go on for a while.
pub fn freeze(pid: u32) {
    signal(pid, "STOP");
    until("every thread to stand still", || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
        tasks.all(|task| std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))).then_some(())
    });
}

pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill").success());
}
