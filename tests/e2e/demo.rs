//! `doorward demo` as a newcomer meets it: what it prints is pasted into a shell, and each line shows what it says it shows.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::gateway::{Lines, doorward, keep, until};

/// A demo on ports of the system's choice, with a directory for temporary files of its own.
struct Demo {
    child: Child,
    temporary: tempfile::TempDir,
    out: Lines,
}

impl Demo {
    fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_doorward"))
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--page", "127.0.0.1:0"])
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = keep(child.stdout.take().unwrap());
        let demo = Self { child, temporary, out };
        until("the demo's commands", || demo.printed().contains("Ctrl-C").then_some(()));
        demo
    }

    fn printed(&self) -> String {
        self.out.lock().unwrap().join("\n")
    }

    /// Runs the command under the title that starts so, exactly as printed.
    #[track_caller]
    fn paste(&self, title: &str) -> String {
        let printed = self.printed();
        let (_, rest) = printed.split_once(&format!("# {title}")).unwrap_or_else(|| panic!("no \"{title}\" in {printed}"));
        let (_, command) = rest.split_once('\n').unwrap();
        let (command, _) = command.split_once("\n\n").unwrap();
        let run = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().unwrap();
        assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }

    /// The same, for a command that the agent answers in words: the words, and the level it names at the end.
    #[track_caller]
    fn said(&self, title: &str) -> (String, String) {
        let stream = self.paste(title);
        let (words, level) = stream.split_once("event: done\n").unwrap_or_else(|| panic!("{title}: {stream}"));
        (data(words).concat(), data(level).concat())
    }

    /// The same, for a command that the gateway refuses: status and reason.
    #[track_caller]
    fn refused(&self, title: &str) -> (u64, String) {
        let text = self.paste(title);
        let problem: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{title}: {e}: {text}"));
        (problem["status"].as_u64().unwrap(), problem["reason"].as_str().unwrap().to_owned())
    }

    fn kept(&self) -> usize {
        std::fs::read_dir(self.temporary.path()).unwrap().count()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

fn words(level: &str, greeting: &str) -> (String, String) {
    (format!("{greeting} You said: hi"), level.to_owned())
}

#[test]
fn every_printed_command_shows_what_it_says() {
    let demo = Demo::start();
    assert_eq!(demo.said("Anonymous"), words("anonymous", "Hello stranger (nobody vouches for you)."));
    assert_eq!(demo.said("Verified"), words("verified", "Hello Ada (verified by jwt)."));
    assert_eq!(demo.refused("Forged"), (401, "token_signature_invalid".to_owned()));
    assert_eq!(demo.refused("Expired"), (401, "token_expired".to_owned()));
    assert_eq!(demo.refused("Step-up needed"), (401, "step_up_required".to_owned()));
    assert_eq!(demo.said("Step-up done"), words("stepped_up", "Hello user_123 (verified by karta-v2, stepped up with mfa)."));

    let echoed = demo.paste("Spoofed header");
    let echoed: Value = serde_json::from_str(&echoed).unwrap_or_else(|e| panic!("{e}: {echoed}"));
    assert_eq!((&echoed["level"], &echoed["subject"]), (&"anonymous".into(), &Value::Null));
    assert!(!echoed["headers"].to_string().contains("user_123"), "{echoed}");

    let commands = demo.printed().lines().filter(|line| line.starts_with("curl ")).count();
    assert_eq!(commands, 7, "a command that this test does not know");
    let records = until("an audit record for each", || {
        let printed = demo.printed();
        let (_, records) = printed.split_once("Ctrl-C ends everything.").unwrap();
        (records.lines().filter(|line| line.contains("request_id")).count() == commands).then(|| records.to_owned())
    });
    assert!(!records.contains("eyJ") && !records.contains("v2."), "a token in the log: {records}");
}

#[test]
fn metrics_and_status_are_where_it_says() {
    let demo = Demo::start();
    let printed = demo.printed();
    let line = printed.lines().find_map(|line| line.strip_prefix("Metrics and status: ")).unwrap();
    let shown: Vec<_> = line.split(", ").map(|command| Command::new("sh").args(["-c", command]).output().unwrap().stdout).collect();
    assert!(String::from_utf8_lossy(&shown[0]).contains("doorward_build_info"), "{line}");
    assert_eq!(serde_json::from_slice::<Value>(&shown[1]).unwrap()["tenants"][0]["id"], "acme");
    let page = printed.lines().find_map(|line| line.strip_prefix("Status page: ")).unwrap();
    let page = Command::new("curl").args(["-sf", page]).output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&page).contains("<title>Doorward status</title>"));
}

#[test]
fn ctrl_c_ends_it_and_nothing_is_left() {
    let mut demo = Demo::start();
    assert_eq!(demo.kept(), 1, "its configuration and secrets are somewhere else than in the directory for temporary files");
    let sent = Command::new("kill").args(["-INT", &demo.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = until("the demo to end", || demo.child.try_wait().unwrap());
    assert_eq!((ended.code(), demo.kept()), (Some(0), 0));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let run = doorward(&["demo", "--listen", &address, "--admin", "127.0.0.1:0", "--page", "127.0.0.1:0"], directory.path());
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(1) && error.contains(&format!("cannot listen on {address}")), "{error}");
}
