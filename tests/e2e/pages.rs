//! Pages of commands, run: each in a directory and a shell of its own, block by block in the order of the page, its files written
//! where they stand, its output compared. Ports are other ones; what differs from run to run is not compared. The manual's
//! page on itself says what marks there are; `tests/spec/commands.rs` sees to it that no block escapes.

use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::gateway::until;
use crate::readme::{Block, HIDDEN, Shell, blocks, free, read, root, settled};

/// Pages that have a test of their own.
const ELSEWHERE: [&str; 2] = ["README.md", "src/manual/vendors"];
/// Where clients, operators, probes and the backend are on every page.
const PORTS: [&str; 4] = ["8080", "9090", "9091", "3000"];

#[test]
fn every_page_runs_as_printed() {
    let pages: Vec<_> = pages().into_iter().filter(|page| runs(&blocks(&read(page)))).collect();
    assert!(pages.len() >= 4, "{pages:?}");
    let failed: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = pages.iter().map(|page| (page, scope.spawn(|| catch_unwind(AssertUnwindSafe(|| run(page)))))).collect();
        let ended = running.into_iter().map(|(page, thread)| (page, thread.join()));
        ended.filter(|(_, how)| !matches!(how, Ok(Ok(())))).map(|(page, _)| page).collect()
    });
    assert!(failed.is_empty(), "what went wrong stands above: {failed:?}");
}

/// Every page of the repository, but those that have a test of their own.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![root().join("src/manual"), root().join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
                pages.extend(Some(name.to_owned()).filter(|name| !ELSEWHERE.iter().any(|other| name.starts_with(other))));
            }
        }
    }
    pages.sort();
    pages
}

fn here(block: &Block) -> bool {
    block.language == HIDDEN || block.language == "sh" && !block.marks.iter().any(|mark| mark.contains(':'))
}

fn runs(blocks: &[Block]) -> bool {
    blocks.iter().any(here)
}

/// The file that a block is: its first line says which.
fn file_of(block: &Block) -> Option<&str> {
    let name = block.text.lines().next()?.strip_prefix("# ")?;
    Some(name).filter(|name| name.contains('.') && !name.contains(' '))
}

fn run(page: &str) {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("deploy"), directory.path().join("deploy")).unwrap();
    let addresses: Vec<(&str, SocketAddr)> = PORTS.into_iter().map(|port| (port, free())).collect();
    let ported = |text: &str| addresses.iter().fold(text.to_owned(), |text, (port, address)| moved(&text, port, address.port()));
    for entry in std::fs::read_dir(root().join("tests/e2e/pages")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        std::fs::write(directory.path().join(&name), ported(&read(&format!("tests/e2e/pages/{name}")))).unwrap();
    }
    let mut shell = Shell::start(directory.path());
    let mut asked: Option<(Block, String)> = None;
    for block in blocks(&read(page)) {
        if block.language != "text" {
            asked = None;
        }
        match block.language.as_str() {
            "toml" => {
                if let Some(name) = file_of(&block) {
                    let path = directory.path().join(name);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    replace(&path, &ported(&block.text));
                }
            }
            "text" => {
                let Some((question, printed)) = asked.take() else { continue };
                let wanted = settled(&ported(block.text.trim_end()));
                let mut last = printed;
                let again = question.marks.iter().any(|mark| mark == "until");
                if settled(&last) != wanted && again {
                    until(&format!("{page}: what stands below\n{}\nlast: {last}", question.text), || {
                        last = paste(page, &mut shell, &question, &ported(&question.text));
                        (settled(&last) == wanted).then_some(())
                    });
                }
                assert_eq!(settled(&last), wanted, "{page}: below\n{}printed:\n{last}", question.text);
            }
            _ if here(&block) => {
                let script = ported(&block.text);
                let printed = paste(page, &mut shell, &block, &script);
                if script.contains("doorward run") || script.contains("acme.sh") {
                    for port in ["8080", "3000"] {
                        let address = addresses.iter().find(|(known, _)| *known == port).unwrap().1;
                        until("gateway and agent to listen", || TcpStream::connect(address).ok());
                    }
                }
                asked = Some((block, printed));
            }
            _ => {}
        }
    }
}

/// Runs a block, which succeeds unless it says otherwise, and returns what it printed.
#[track_caller]
fn paste(page: &str, shell: &mut Shell, block: &Block, script: &str) -> String {
    let printed = shell.paste(&format!("{}\nstatus=$?", script.trim_end()));
    let status = shell.paste("echo $status");
    let marked = |mark: &str| block.marks.iter().any(|m| m == mark);
    // What is asked again may fail until there is something to find.
    if !marked("until") {
        assert_eq!(status != "0", marked("fails"), "{page}: exit code {status} of\n{script}\nwhich printed:\n{printed}");
    }
    printed
}

/// A text with another port.
fn moved(text: &str, port: &str, to: u16) -> String {
    let mut moved = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(port) {
        let (before, after) = (&rest[..at], &rest[at + port.len()..]);
        let alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric()) && !after.starts_with(|c: char| c.is_ascii_alphanumeric());
        moved.push_str(before);
        moved.push_str(&if alone { to.to_string() } else { port.to_owned() });
        rest = after;
    }
    moved + rest
}

/// Writes a file as an editor does, in one step: the gateway watches it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[test]
fn ports_are_moved_where_they_stand_alone() {
    assert_eq!(moved("127.0.0.1:8080 id=80801 x8080 8080", "8080", 1), "127.0.0.1:1 id=80801 x8080 1");
}
