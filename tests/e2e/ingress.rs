//! The ingresses of `deploy/forward-auth`, as shipped but for their addresses: the real programs, with the gateway behind them,
//! a recording backend, and callers who lie about everything that they can lie about.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::gateway::{Gateway, Lines, keep, until};
use crate::http::{self, Connection};

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Traefik,
    Caddy,
    Envoy,
}

impl Program {
    /// As the gateway's configuration calls its convention.
    pub fn convention(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
        }
    }

    /// The files of its configuration.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx.conf"],
            Self::Traefik => &["traefik.yml", "traefik-dynamic.yml"],
            Self::Caddy => &["Caddyfile"],
            Self::Envoy => &["envoy.yaml"],
        }
    }

    fn command(self, directory: &Path) -> Command {
        let mut command = match self {
            Self::Nginx => {
                let debian = Path::new("/usr/sbin/nginx"); // not in everybody's PATH
                let mut command = Command::new(if debian.exists() { debian } else { Path::new("nginx") });
                // One process, which ends when it is killed.
                command.args(["-g", "daemon off; master_process off;", "-c", "nginx.conf", "-p"]).arg(directory);
                command
            }
            Self::Traefik => {
                let mut command = Command::new(installed("bin/traefik"));
                command.arg("--configFile=traefik.yml");
                command
            }
            Self::Caddy => {
                let mut command = Command::new(installed("bin/caddy"));
                command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
                command
            }
            Self::Envoy => {
                let mut command = Command::new(installed("envoy"));
                command.args(["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
                command
            }
        };
        command.current_dir(directory).env("HOME", directory).env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
        command
    }
}

/// A file of `deploy/forward-auth`.
pub fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/forward-auth").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Installs what is pinned, once per process, and finds a program in it.
fn installed(program: &str) -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    let root = INSTALLED.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.join("target/ingress");
        let status = Command::new("sh").arg(here.join("tests/ingress/install.sh")).arg(&root).status().expect("a shell");
        assert!(status.success(), "tests/ingress/install.sh failed: {status}");
        root.join("venv")
    });
    if program != "envoy" {
        return root.join(program);
    }
    // The wheel's own command is a script around the program; the script would be what is killed.
    let versions = std::fs::read_dir(root.join("lib")).expect("the venv's lib");
    let found = versions.flatten().map(|entry| entry.path().join("site-packages/envoy/_bin/envoy")).find(|path| path.exists());
    found.expect("Envoy in the venv")
}

/// A running ingress, killed when dropped.
pub struct Ingress {
    child: Child,
    pub address: SocketAddr,
    log: [Lines; 2],
    _directory: tempfile::TempDir,
}

impl Ingress {
    /// Starts a program with its shipped configuration, and waits until it listens.
    pub fn start(program: Program, gateway: &Gateway, backend: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let address = free();
        for file in program.files() {
            let text = configured(shipped(file), directory.path(), address, gateway, backend);
            std::fs::write(directory.path().join(file), text).expect("write");
        }
        let mut child = program
            .command(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{program:?} (see .ci/deps): {e}"));
        let log = [keep(child.stdout.take().unwrap()), keep(child.stderr.take().unwrap())];
        let mut this = Self { child, address, log, _directory: directory };
        // Traefik listens before it has read its routes, and answers 404 until then; nobody without a key gets further than 403.
        until("the ingress to ask the gateway", || {
            assert!(this.child.try_wait().expect("wait").is_none(), "{program:?} ended: {}", this.log());
            TcpStream::connect(address).ok()?;
            let mut connection = Connection::open(address);
            connection.send(&http::request("GET", "/", &[("Connection", "close")], b"")).ok()?;
            connection.answer("GET").filter(|answer| answer.status == 403)
        });
        this
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        self.log.iter().map(|lines| lines.lock().unwrap().join("\n")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on now: the programs cannot say which port they got for 0. Below those that the system gives to
/// connections, of which other tests have many.
fn free() -> SocketAddr {
    let port = until("a free port", || {
        let port = rand::random_range(20_000..32_000);
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok().map(|_| port)
    });
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The shipped text with this machine's addresses, places to write, and the lines of the mapped header switched on.
fn configured(text: String, directory: &Path, address: SocketAddr, gateway: &Gateway, backend: SocketAddr) -> String {
    let port = address.port();
    let mut text = text
        .replace("127.0.0.1:3000", &backend.to_string())
        .replace("127.0.0.1:8080", &gateway.address.to_string())
        .replace("127.0.0.1:8181", &gateway.last_place().to_string())
        .replace("listen 8000;", &format!("listen {port};"))
        .replace("\":8000\"", &format!("\":{port}\""))
        .replace("\n:8000 {", &format!("\n:{port} {{"))
        .replace("port_value: 8000", &format!("port_value: {port}"))
        .replace("port_value: 3000", &format!("port_value: {}", backend.port()))
        .replace("port_value: 8080", &format!("port_value: {}", gateway.address.port()))
        .replace("port_value: 8181", &format!("port_value: {}", gateway.last_place().port()));
    for line in text.clone().lines() {
        let trimmed = line.trim_start();
        let mapped = trimmed.to_ascii_lowercase().replace('_', "-").contains("user-email");
        if mapped && trimmed.starts_with('#') && !trimmed.starts_with("# ") {
            text = text.replacen(line, &line.replacen('#', "", 1), 1);
        }
    }
    let below = directory.display();
    text = text.replace("pid /run/nginx.pid;", &format!("pid {below}/pid;"));
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {below}/{name};")).concat();
    text.replace("access_log off;", &format!("access_log off; {temp}"))
}
