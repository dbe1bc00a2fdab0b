//! The pages as a whole: no block of commands that nothing runs, no page outside of the summary, no link that leads nowhere.

use std::collections::BTreeSet;

use libtest_mimic::Trial;

use crate::{files, trial};

const SUMMARY: &str = "src/manual/SUMMARY.md";
const ABOUT: &str = "src/manual/book.md";
/// Pages whose blocks have a test of their own.
const OWN: [(&str, &str); 2] = [("README.md", "tests/e2e/readme.rs"), ("src/manual/vendors", "tests/e2e/vendors.rs")];

/// One test per rule.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("manual::every_command_is_run_or_says_why_not", every_command_is_run_or_says_why_not),
        trial("manual::every_page_is_in_the_summary_and_in_rustdoc", every_page_is_in_the_summary_and_in_rustdoc),
        trial("manual::links_lead_somewhere", links_lead_somewhere),
        trial("manual::the_decision_table_is_the_same_everywhere", the_decision_table_is_the_same_everywhere),
    ]
}

/// Every page that a reader may meet.
fn pages() -> Vec<String> {
    let below = |folder: &str| files::below(folder, "md").into_iter().map(move |p| format!("{folder}/{}", p.display())).collect::<Vec<_>>();
    let own = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned);
    own.into_iter().chain(below("src/manual")).chain(below("deploy")).collect()
}

fn every_command_is_run_or_says_why_not() -> Result<(), String> {
    let about = files::read(ABOUT);
    let kinds: Vec<_> =
        about.split_once("| kind |").expect("the kinds").1.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let mut wrong = Vec::new();
    if kinds.is_empty() || kinds.len() > 5 {
        wrong.push(format!("{ABOUT} lists {} kinds of commands that are not run; at most five", kinds.len()));
    }
    for page in pages() {
        let text = files::read(&page);
        let own = OWN.iter().any(|(start, _)| page.starts_with(start));
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            let (language, marks) = info.split_once(' ').unwrap_or((info, ""));
            let mut say = |what: String| wrong.push(format!("{page}:{}: {what}", index + 1));
            match language {
                "sh" => marks.split(' ').filter(|mark| !mark.is_empty()).for_each(|mark| {
                    if let Err(why) = mark_holds(mark, &page, &block, &kinds) {
                        say(why);
                    }
                }),
                "bash" | "shell" | "console" => say(format!("write sh, not {language}")),
                "toml" if !own && is_file(&block) && !text.contains("acme.sh") && !text.contains("doorward check") => {
                    say("this block is a file, on a page that neither checks nor runs it".to_owned());
                }
                _ => {}
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Whether a block's first line names a file of configuration.
fn is_file(block: &[&str]) -> bool {
    block.first().is_some_and(|first| first.starts_with("# ") && first.ends_with(".toml"))
}

fn mark_holds(mark: &str, page: &str, block: &[&str], kinds: &[&str]) -> Result<(), String> {
    let mut commands = block.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match mark.split_once(':') {
        None if matches!(mark, "until" | "fails") => Ok(()),
        Some(("run-by", script)) => {
            let path = files::root().join(script);
            let text = std::fs::read_to_string(path).map_err(|e| format!("{script}: {e}"))?;
            // Some take the block from the page itself.
            let (folder, name) = page.rsplit_once('/').unwrap_or(("", page));
            if text.contains(page) && script.ends_with(".rs") || text.contains(folder) && text.contains(&format!("/{name}\"")) {
                return Ok(());
            }
            let known: BTreeSet<_> = text.lines().map(str::trim).collect();
            let missing: Vec<_> = commands.filter(|line| !known.contains(line)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{script} has no line\n{}", missing.join("\n"))) }
        }
        Some(("not-run", "make")) => commands.try_for_each(exists),
        Some(("not-run", kind)) if kinds.contains(&kind) => Ok(()),
        Some(("not-run", kind)) => Err(format!("{ABOUT} has no kind {kind}")),
        _ => Err(format!("{mark} is no mark: {ABOUT} lists them")),
    }
}

/// A line of `make` or `cargo`: what it names is there.
fn exists(line: &str) -> Result<(), String> {
    let words: Vec<_> = line.split_whitespace().skip_while(|word| word.contains('=')).collect();
    match words[..] {
        ["make", target, ..] if files::read("Makefile").lines().any(|l| l.starts_with(&format!("{target}:"))) => Ok(()),
        ["cargo", "build", ..] => Ok(()),
        ["cargo", "test", "--test", name, ..]
            if ["", "/main"].iter().any(|end| files::root().join(format!("tests/{name}{end}.rs")).is_file()) =>
        {
            Ok(())
        }
        _ => Err(format!("no target or test: {line}")),
    }
}

fn every_page_is_in_the_summary_and_in_rustdoc() -> Result<(), String> {
    let summary = files::read(SUMMARY);
    let listed: Vec<_> = links(&summary).into_iter().filter(|link| !link.is_empty()).collect();
    let rustdoc = files::read("src/manual/mod.rs");
    let mut wrong = Vec::new();
    for page in files::below("src/manual", "md").into_iter().map(|p| p.display().to_string()).filter(|page| page != "SUMMARY.md") {
        match listed.iter().filter(|link| **link == page).count() {
            1 => {}
            0 => wrong.push(format!("{SUMMARY} does not list {page}")),
            more => wrong.push(format!("{SUMMARY} lists {page} {more} times")),
        }
        if !rustdoc.contains(&format!("include_str!(\"{page}\")")) {
            wrong.push(format!("src/manual/mod.rs does not include {page}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// What stands behind `](` of a text, outside of code, without what follows a `#`.
fn links(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let lines = text.lines().filter(move |line| {
        fenced ^= line.starts_with("```");
        !fenced
    });
    let links = lines.flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split_once(')')));
    links.map(|(link, _)| link.split('#').next().unwrap_or_default()).collect()
}

fn links_lead_somewhere() -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let folder = files::root().join(&page).parent().unwrap().to_owned();
        let text = files::read(&page);
        for link in links(&text).into_iter().filter(|link| !link.is_empty() && !link.contains("://")) {
            seen += 1;
            if !folder.join(link).exists() {
                wrong.push(format!("{page}: {link} leads nowhere"));
            }
        }
    }
    assert!(seen > 100, "{seen} links");
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn the_decision_table_is_the_same_everywhere() -> Result<(), String> {
    let rows = |page: &str| {
        let text = files::read(page);
        text.lines()
            .skip_while(|l| !l.starts_with("| caller sends |"))
            .take_while(|l| l.starts_with('|'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (short, long) = (rows("README.md"), rows("src/manual/concepts.md"));
    if short.len() > 7 && short == long {
        Ok(())
    } else {
        Err("README.md and src/manual/concepts.md differ in the decision table".to_owned())
    }
}
