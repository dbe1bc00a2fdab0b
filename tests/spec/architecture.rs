//! The shape of the source tree: who may import whom, who may name the framework, how files open and how long they get.

use libtest_mimic::Trial;

use crate::{files, trial};

/// A module imports modules of smaller rows only; siblings do not import each other. `config` stands above `tenant` because
/// it builds tenants (decision record 0001).
const LAYERS: [&[&str]; 16] = [
    &["client", "clock", "json", "manual", "outbound", "reason", "secret"],
    &["request", "tls"],
    &["policy", "revocations", "token"],
    &["limits"],
    &["tenant"],
    &["cors", "upstream"],
    &["admission"],
    &["assertion"],
    &["snapshot"],
    &["config", "observe"],
    &["jwks"],
    &["reload", "status"],
    &["server"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// Longest file, in lines: one sitting.
const LONGEST: usize = 600;

/// One test per rule.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("architecture::imports_go_down", imports_go_down),
        trial("architecture::only_the_server_names_pingora", only_the_server_names_pingora),
        trial("architecture::files_open_with_their_purpose", files_open_with_their_purpose),
        trial("architecture::files_are_short", files_are_short),
        trial("architecture::dependencies_say_why", dependencies_say_why),
        trial("architecture::banned_crates_are_absent", banned_crates_are_absent),
    ]
}

/// Every source file: its path below `src`, the module it belongs to, and its text.
fn sources() -> Vec<(String, String, String)> {
    let read = |path: std::path::PathBuf| {
        let module = path.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let path = path.to_string_lossy().into_owned();
        let text = files::read(format!("src/{path}"));
        (path, module, text)
    };
    files::below("src", "rs").into_iter().map(read).collect()
}

/// Lines with their numbers, without comments and string literals.
fn code(text: &str) -> impl Iterator<Item = (usize, String)> {
    let lines = text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"));
    lines.map(|(number, line)| (number, line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn none(wrong: Vec<String>) -> Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn imports_go_down() -> Result<(), String> {
    let mut wrong = Vec::new();
    for (path, module, text) in sources() {
        if module == "lib" {
            continue; // the module map itself
        }
        let Some(mine) = layer(&module) else {
            wrong.push(format!("src/{path}: {module} has no row in the table"));
            continue;
        };
        for (line, text) in code(&text) {
            for imported in named(&text, "crate::").chain(named(&text, "doorward::")) {
                match layer(imported) {
                    _ if imported == module => {}
                    Some(theirs) if theirs < mine => {}
                    Some(_) => wrong.push(format!("src/{path}:{line}: {module} imports {imported}, which is not below it")),
                    // A function at the root; a module without a row is reported for its own files.
                    None => {}
                }
            }
        }
    }
    none(wrong)
}

/// The modules that a line names right after a prefix, in `crate::{a, b::c}` too.
fn named<'t>(line: &'t str, prefix: &'t str) -> impl Iterator<Item = &'t str> {
    let word = |text: &'t str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    line.match_indices(prefix).flat_map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        let before = line[..at].chars().next_back();
        let names: Vec<_> = match rest.strip_prefix('{') {
            _ if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') => Vec::new(),
            Some(list) => list.split(',').map(|item| word(item.trim_start())).collect(),
            None => vec![word(rest)],
        };
        // Macros and re-exports at the root would be upper case or followed by `!`.
        names.into_iter().filter(|n| !n.is_empty() && n.chars().next().is_some_and(|c| c.is_ascii_lowercase()))
    })
}

fn only_the_server_names_pingora() -> Result<(), String> {
    let outside = sources().into_iter().filter(|(path, _, _)| !path.starts_with("server/"));
    let named = |(path, _, text): (String, String, String)| {
        let lines: Vec<_> = code(&text).filter(|(_, l)| l.contains("pingora")).map(|(n, l)| format!("src/{path}:{n}: {l}")).collect();
        lines
    };
    none(outside.flat_map(named).collect())
}

fn files_open_with_their_purpose() -> Result<(), String> {
    let silent = sources().into_iter().filter(|(_, _, text)| !text.starts_with("//! "));
    let tests = files::below("tests", "rs").into_iter().map(|p| format!("tests/{}", p.display()));
    let silent_tests = tests.filter(|path| !files::read(path).starts_with("//! "));
    none(silent.map(|(path, _, _)| format!("src/{path}")).chain(silent_tests).collect())
}

fn files_are_short() -> Result<(), String> {
    let long = sources().into_iter().map(|(path, _, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > LONGEST);
    none(long.map(|(path, lines)| format!("src/{path} has {lines} lines, more than {LONGEST}")).collect())
}

/// Every dependency carries one line that says what it is for.
fn dependencies_say_why() -> Result<(), String> {
    let manifest = files::read("Cargo.toml");
    let mut inside = false;
    let mut wrong = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]");
        } else if inside && line.contains(" = ") && !line.contains(" # ") {
            wrong.push(format!("Cargo.toml:{}: {line}", number + 1));
        }
    }
    none(wrong)
}

/// The bans of `deny.toml` hold without the tool that reads it, which takes long to compile.
fn banned_crates_are_absent() -> Result<(), String> {
    let policy: toml::Table = files::read("deny.toml").parse().map_err(|e| format!("deny.toml: {e}"))?;
    let banned = policy["bans"]["deny"].as_array().ok_or("deny.toml has no bans")?;
    let banned: Vec<_> = banned.iter().filter_map(|b| b["crate"].as_str()).collect();
    let lock: toml::Table = files::read("Cargo.lock").parse().map_err(|e| format!("Cargo.lock: {e}"))?;
    let packages = lock["package"].as_array().ok_or("Cargo.lock has no packages")?;
    let names = packages.iter().filter_map(|p| p["name"].as_str());
    if banned.is_empty() || !banned.contains(&"rsa") {
        return Err("deny.toml does not ban rsa (RUSTSEC-2023-0071)".to_owned());
    }
    none(names.filter(|n| banned.contains(n)).map(|n| format!("{n} is banned and built in: cargo tree -i {n}")).collect())
}
