//! The vendors' clients as the manual plays them: the scripts that it prints are those that lie beside it, and print what it
//! says. Only ports differ. `UPDATE_GOLDEN=1` writes scripts and output into the manual.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use crate::gateway::until;
use crate::readme::{Block, Shell, blocks, free, read, root};

/// The page with what they share, and each vendor's.
const PAGES: [&str; 5] = [
    "src/manual/vendors.md",
    "src/manual/vendors/karta.md",
    "src/manual/vendors/agentic-trust.md",
    "src/manual/vendors/halo.md",
    "src/manual/vendors/widgent.md",
];
const FOLDER: &str = "src/manual/vendors";

/// Set by whoever means to change the manual.
fn updating() -> bool {
    #[allow(clippy::disallowed_methods)] // a switch of the test run, not of the program
    std::env::var("UPDATE_GOLDEN").is_ok()
}

/// The file that a block shows: its first line says which.
fn file_of(block: &Block) -> Option<String> {
    let words = block.text.lines().next()?.strip_prefix("# ")?;
    Some(words.split([':', ' ']).next()?.to_owned())
}

/// Compares each block with what it should be, where `wanted` (given the block and the file shown last) says so.
#[track_caller]
fn compare(wanted: impl Fn(&Block, &str) -> Option<String>) {
    PAGES.iter().for_each(|page| compare_page(page, &wanted));
}

#[track_caller]
fn compare_page(name: &str, wanted: &impl Fn(&Block, &str) -> Option<String>) {
    static ONE_WRITER: Mutex<()> = Mutex::new(());
    let _one = ONE_WRITER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let page = read(name);
    let (mut rewritten, mut rest, mut last) = (String::new(), page.as_str(), String::new());
    for block in blocks(&page) {
        let fence = format!("```{}\n", block.language);
        let start = rest.find(&fence).unwrap() + fence.len();
        rewritten.push_str(&rest[..start]);
        last = file_of(&block).unwrap_or(last);
        let wanted = wanted(&block, &last).unwrap_or_else(|| block.text.clone());
        if !updating() {
            assert_eq!(block.text, wanted, "UPDATE_GOLDEN=1 writes this into {name}");
        }
        rewritten.push_str(&wanted);
        rest = &rest[start + block.text.len()..];
    }
    if updating() {
        std::fs::write(root().join(name), rewritten + rest).unwrap();
    }
}

#[test]
fn the_manual_shows_every_script_as_it_is() {
    compare(|block, file| (block.language != "text").then(|| read(&format!("{FOLDER}/{file}"))));
    let shown: BTreeSet<_> = shown().iter().filter_map(file_of).collect();
    let there: BTreeSet<_> = played().into_iter().collect();
    assert_eq!(shown, there);
}

/// Every block of the pages.
fn shown() -> Vec<Block> {
    PAGES.iter().flat_map(|page| blocks(&read(page))).collect()
}

/// The files beside the pages.
fn played() -> Vec<String> {
    let entries = std::fs::read_dir(root().join(FOLDER)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| !name.ends_with(".md")).collect()
}

/// Runs a script in front of a real gateway and compares what it prints.
#[track_caller]
fn plays(script: &str) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join(FOLDER);
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(root().join("deploy"), directory.path().join("deploy")).unwrap();
    let ports: [SocketAddr; 3] = [free(), free(), free()];
    for name in played() {
        let marks = [(":8080", ports[0]), (":9090", ports[1]), (":3000", ports[2]), (" 3000", ports[2])];
        let text = marks.iter().fold(read(&format!("{FOLDER}/{name}")), |text, (port, address)| {
            text.replace(port, &format!("{}{}", &port[..1], address.port()))
        });
        std::fs::write(folder.join(name), text).unwrap();
    }
    let mut shell = Shell::start(&folder);
    shell.paste(". ./start.sh");
    for address in [ports[0], ports[2]] {
        until("gateway and agent to listen", || TcpStream::connect(address).ok());
    }
    let printed = shell.paste(&format!("sh {script}")) + "\n";
    compare(|block, file| (block.language == "text" && file == script).then(|| printed.clone()));
    assert!(shown().iter().any(|block| block.text == printed), "the manual does not show what {script} prints");
}

#[test]
fn karta() {
    plays("karta.sh");
}

#[test]
fn agentic_trust() {
    plays("agentic-trust.sh");
}

#[test]
fn halo() {
    plays("halo.sh");
}

#[test]
fn widgent() {
    plays("widgent.sh");
}
