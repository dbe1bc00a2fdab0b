//! The README, run as printed: its configuration, its commands in one shell, and the output that it shows. Only ports and
//! paths are other ones, and what differs from run to run (ids, times, signatures) is not compared.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::gateway::{Gateway, until};
use crate::http::{self, PATIENCE};

/// Printed after each piece of script, on a line of its own.
const MARK: &str = "--- end of output ---";
/// What anybody who pastes builds first; the test has built it already.
const BUILD: &str = r#"cargo build --locked && PATH="$PWD/target/debug:$PATH""#;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A fenced block: its language, what else stands behind the fence, and its text.
#[derive(Clone, Debug)]
pub struct Block {
    pub language: String,
    pub marks: Vec<String>,
    pub text: String,
}

/// The language of what a page has done out of its reader's sight: a comment that begins with `run`.
pub const HIDDEN: &str = "(hidden)";

/// The fenced blocks of a document.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    let block = |info: &str| {
        let mut words = info.split_whitespace().map(str::to_owned);
        Block { language: words.next().unwrap_or_default(), marks: words.collect(), text: String::new() }
    };
    for line in markdown.lines() {
        let fence = line.strip_prefix("```").or_else(|| (line == "<!-- run" && !inside).then_some(HIDDEN));
        match fence.or_else(|| (line == "-->" && inside).then_some("")) {
            Some(info) => {
                if !inside {
                    blocks.push(block(info));
                }
                inside = !inside;
            }
            None if inside => {
                let text = &mut blocks.last_mut().unwrap().text;
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    assert!(!inside, "a block without an end");
    blocks
}

/// One POSIX shell that scripts are pasted into. Everything it started ends with it.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    errors: PathBuf,
}

impl Shell {
    /// A shell in a directory, where `doorward` is this build's.
    pub fn start(directory: &Path) -> Self {
        let errors = directory.join("shell.stderr");
        let bin = Path::new(env!("CARGO_BIN_EXE_doorward")).parent().unwrap();
        let mut child = Command::new("sh")
            .current_dir(directory)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let (lines, output) = channel();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let input = child.stdin.take().unwrap();
        let mut shell = Self { child, input, output, errors };
        shell.paste(&format!("PATH='{}':\"$PATH\"", bin.display()));
        shell
    }

    /// Pastes a script and returns what it printed.
    #[track_caller]
    pub fn paste(&mut self, script: &str) -> String {
        write!(self.input, "{script}\nprintf '\\n%s\\n' '{MARK}'\n").unwrap();
        let mut printed = String::new();
        loop {
            let Ok(line) = self.output.recv_timeout(PATIENCE) else {
                panic!("{script}\nprinted {printed}\nand {}", std::fs::read_to_string(&self.errors).unwrap());
            };
            if line == MARK {
                return printed.trim_end().to_owned();
            }
            printed.push_str(&line);
            printed.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Not kill(1): some versions read `-KILL -123` as "every process there is".
        let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on, for a process that is told where to. Below the ports that the system hands out by itself:
/// one of those could be another test's by the time that the process binds it.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = 20_000 + u16::try_from(std::process::id() % 500).unwrap() * 20;
    let candidates = std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], own + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000)));
    candidates.take(2_000).find(|address| TcpListener::bind(address).is_ok()).expect("a free port")
}

#[test]
fn its_example_runs_as_printed() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("deploy"), directory.path().join("deploy")).unwrap();
    let [gateway, admin, upstream] = [free(), free(), free()];
    let ported = |text: &str| {
        let other = |text: String, (port, address): (&str, &SocketAddr)| text.replace(port, &address.port().to_string());
        [("8080", &gateway), ("9090", &admin), ("3000", &upstream)].into_iter().fold(text.to_owned(), other)
    };
    let mut shell = Shell::start(directory.path());
    let (mut compared, mut printed) = (0, None);
    for block in blocks(&read("README.md")) {
        match block.language.as_str() {
            "toml" => {
                let name = block.text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a block that says its file's name");
                std::fs::write(directory.path().join(name), ported(&block.text)).unwrap();
            }
            "sh" if block.text.starts_with("cargo ") => assert_eq!(block.text.trim_end(), BUILD),
            "sh" if !block.marks.is_empty() => {} // tests/spec/commands.rs
            "sh" => {
                printed = Some(shell.paste(&ported(&block.text)));
                if block.text.contains("doorward run") {
                    for address in [gateway, upstream] {
                        until("the example to listen", || TcpStream::connect(address).ok());
                    }
                }
            }
            "text" => {
                if let Some(printed) = printed.take() {
                    assert_eq!(settled(&printed), settled(block.text.trim_end()), "printed:\n{printed}");
                    compared += 1;
                }
            }
            "python" => {
                let example = read("deploy/examples/python/agent.py");
                block.text.lines().for_each(|line| assert!(example.contains(line), "agent.py has no {line}"));
            }
            "html" | "yaml" => {} // `the_page_…` and `the_sidecar_…` below
            language => panic!("a block of {language} that nothing runs"),
        }
    }
    assert_eq!(compared, 3, "outputs that are shown");
}

/// A text in which everything that differs from run to run is one sign.
pub fn settled(text: &str) -> String {
    let text = text.lines().map(|line| if line.starts_with("Date: ") { "Date: *" } else { line.trim_end() }).collect::<Vec<_>>().join("\n");
    let pairs = [("created=", ";"), ("expires=", ";"), ("nonce=\"", "\""), ("=:", ":"), ("fingerprint ", "\n")];
    let text = pairs.into_iter().fold(text, |text, (start, end)| masked(&text, start, end));
    // Request ids: 32 hex digits.
    let word = |c: char| c.is_ascii_alphanumeric();
    let words = text.split_inclusive(|c| !word(c)).map(|piece| {
        let digits = piece.trim_end_matches(|c| !word(c));
        let id = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if id { piece.replace(digits, "*") } else { piece.to_owned() }
    });
    words.collect()
}

/// Replaces what stands between each `start` and the next `end`.
fn masked(text: &str, start: &str, end: &str) -> String {
    let mut pieces = text.split(start);
    let mut masked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        masked.push_str(start);
        masked.push('*');
        masked.push_str(piece.find(end).map_or("", |at| &piece[at..]));
    }
    masked
}

#[test]
fn what_is_not_compared_is_only_what_differs() {
    let one = "Date: now\nx-request-id: 0123456789abcdef0123456789abcdef\nsignature: doorward=:AAAA:\nstatus 403";
    assert_eq!(settled(one), "Date: *\nx-request-id: *\nsignature: doorward=:*:\nstatus 403");
    assert_eq!(settled("created=1;expires=2;nonce=\"x\";keyid=\"a1\""), "created=*;expires=*;nonce=\"*\";keyid=\"a1\"");
}

#[test]
fn the_page_uses_what_the_script_has() {
    let page = blocks(&read("README.md")).into_iter().find(|block| block.language == "html").expect("a page").text;
    assert!(page.lines().count() <= 8);
    let path = page.split_once("from \"https://chat.example.com").and_then(|(_, rest)| rest.split('"').next()).expect("an import");
    assert!(doorward::client::at(path).is_some(), "{path}");
    let types = read("src/client/doorward.d.ts");
    let declared = |name: &str| ["(", ": "].iter().any(|next| types.contains(&format!("  {name}{next}")));
    for name in page.split("doorward.").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap()) {
        assert!(name == "mjs" || declared(name), "{name}");
    }
    for option in ["gateway", "embedKey"] {
        assert!(page.contains(&format!("{option}: \"")) && declared(option), "{option}");
    }
}

#[test]
fn the_sidecar_fits_its_configuration() {
    let config = read("conf/sidecar.toml");
    let pod = blocks(&read("README.md")).into_iter().find(|block| block.language == "yaml").expect("a pod").text;
    let address = |key: &str| {
        let line = config.lines().find_map(|line| line.strip_prefix(&format!("{key} = \""))).unwrap_or_else(|| panic!("{key}"));
        line.trim_end_matches('"').rsplit_once(':').unwrap().1
    };
    let (listen, probes, upstream) = (address("listen"), address("probes"), address("address"));
    assert!(
        pod.contains(&format!("name: http, containerPort: {listen} }}")) && pod.contains(&format!("127.0.0.1:{upstream} only")),
        "{pod}"
    );
    assert!(pod.contains(&format!("containerPort: {probes} }}")) && pod.matches(&format!(" port: {probes} }}")).count() == 2, "{pod}");

    let secrets = "/etc/doorward/secrets";
    assert!(pod.contains(&format!("name: secrets, mountPath: {secrets} }}")), "{pod}");
    let keys = pod.lines().find_map(|line| line.split_once("# keys: ")).expect("the secret's keys").1;
    let directory = tempfile::tempdir().unwrap();
    for (index, key) in keys.split(", ").enumerate() {
        assert!(config.contains(&format!("{secrets}/{key}\"")), "{key}");
        std::fs::write(directory.path().join(key), format!("{index}_0123456789abcdef0123456789abcdef")).unwrap();
    }
    let free = free();
    let config = config
        .replace(secrets, &directory.path().display().to_string())
        .replace(&format!("0.0.0.0:{listen}"), "127.0.0.1:0")
        .replace("127.0.0.1:9090", "127.0.0.1:0")
        .replace(&format!("0.0.0.0:{probes}"), &free.to_string());
    let _gateway = Gateway::start(&config);
    for probe in ["livenessProbe", "readinessProbe"] {
        let path = pod.split_once(probe).and_then(|(_, rest)| rest.split_once("path: ")?.1.split(',').next()).unwrap();
        assert_eq!(http::send(free, http::request("GET", path, &[("Connection", "close")], b"")).status, 200, "{probe}");
    }
}

#[test]
fn it_is_short_and_its_links_lead_somewhere() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 200);
    let mut seen = 0;
    for path in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/examples/README.md"] {
        let folder = root().join(path).parent().unwrap().to_owned();
        let text = read(path);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).filter(|link| !link.contains("://")) {
            assert!(folder.join(link.split('#').next().unwrap()).exists(), "{path}: {link}");
            seen += 1;
        }
    }
    assert!(seen > 15);
}
