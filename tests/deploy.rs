//! What `deploy/` ships, shown by the scripts of `deploy/tests`: one test per script. A script says in its third line whether it
//! fits here (`# In make test: yes`); the others (`# In make test: no, ...` and why) run by `make deploy-test`, and each is at
//! least read by the shell here.

// A test says what it expects by stopping where it is not so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = scripts().into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The scripts of `deploy/tests`, without what they share, in the order of their names.
fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/tests");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("deploy/tests is readable")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "sh") && path.file_name().is_some_and(|n| n != "lib.sh"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "{} holds no script", folder.display());
    scripts
}

/// The test of one script: run whole where it says that it fits, else read.
fn trial(script: PathBuf) -> Trial {
    let name = script.file_stem().expect("a name").to_string_lossy().into_owned();
    Trial::test(name, move || {
        let text = std::fs::read_to_string(&script)?;
        match text.lines().nth(2).and_then(|line| line.strip_prefix("# In make test: ")) {
            Some("yes") => run(Command::new("bash").arg(&script).env("DOORWARD_BINARY", env!("CARGO_BIN_EXE_doorward"))),
            Some(no) if no.starts_with("no, ") => run(Command::new("bash").arg("-n").arg(&script)),
            _ => Err(format!("{}: the third line must be `# In make test: yes`, or `no, ` and why", script.display()).into()),
        }
    })
}

/// Fails with everything that the command printed.
fn run(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{}\n{stdout}\n{stderr}", output.status).into())
}
