//! Verifiers that nobody here wrote (and our examples for backends), asked about captured requests. Installed once under
//! `target/verifiers`; one process judges a whole list. Used by every test binary that has bytes an upstream got.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the answer
#![allow(dead_code)] // each test binary uses its part

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

/// A request as an upstream got it, and what its backend is configured with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Captured {
    pub(crate) method: String,
    /// Path and query as in the request line.
    pub(crate) target: String,
    pub(crate) host: String,
    /// All header fields in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body_b64: String,
    pub(crate) key_id: String,
    /// The shared secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_b64: Option<String>,
    /// The published keys, where the key is asymmetric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jwks: Option<Value>,
    /// `HS256`, `ES256` or `EdDSA`: for the JWT verifiers.
    pub(crate) algorithm: String,
}

impl Captured {
    pub(crate) fn with_body(mut self, body: &[u8]) -> Self {
        self.body_b64 = STANDARD.encode(body);
        self
    }

    pub(crate) fn with_secret(mut self, secret: &[u8]) -> Self {
        self.key_b64 = Some(STANDARD.encode(secret));
        self
    }
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verifier {
    /// PyPI `http-message-signatures`.
    HmsPython,
    /// npm `http-message-signatures`.
    HmsNode,
    /// PyPI `PyJWT`.
    JwtPython,
    /// npm `jose`.
    JwtNode,
    /// `deploy/examples/python`.
    ExamplePython,
    /// `deploy/examples/node`.
    ExampleNode,
}

impl Verifier {
    pub(crate) const SIGNATURES: [Self; 4] = [Self::HmsPython, Self::HmsNode, Self::ExamplePython, Self::ExampleNode];
    pub(crate) const JWTS: [Self; 2] = [Self::JwtPython, Self::JwtNode];
    /// Those that look for identity headers nobody signed.
    pub(crate) const EXAMPLES: [Self; 2] = [Self::ExamplePython, Self::ExampleNode];

    fn command(self) -> Command {
        match self {
            Self::HmsPython => python("verify_hms.py"),
            Self::HmsNode => node("verify_hms.mjs"),
            Self::JwtPython => python("verify_jwt.py"),
            Self::JwtNode => node("verify_jwt.mjs"),
            Self::ExamplePython => python("verify_example.py"),
            Self::ExampleNode => node("verify_example.mjs"),
        }
    }
}

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/verifiers")
}

/// Installs what is pinned, once per process; at once where it is there.
pub(crate) fn ensure_installed() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let status = Command::new("sh").arg(here().join("install.sh")).arg(root()).status().expect("a shell");
        assert!(status.success(), "tests/verifiers/install.sh failed: {status}");
    });
}

/// One answer per request: `Err` says why it was refused.
pub(crate) fn verify_all(verifier: Verifier, requests: &[Captured]) -> Vec<Result<(), String>> {
    ensure_installed();
    let mut process =
        verifier.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{verifier:?}: {e}"));
    let mut stdin = process.stdin.take().expect("a pipe");
    stdin.write_all(&serde_json::to_vec(requests).expect("JSON")).expect("the verifier reads all before it answers");
    drop(stdin);
    let output = process.wait_with_output().expect("an exit status");
    assert!(output.status.success(), "{verifier:?} failed: {}", output.status);
    let answers: Vec<Option<String>> = serde_json::from_slice(&output.stdout).expect("a list of answers");
    assert_eq!(answers.len(), requests.len(), "{verifier:?} did not answer for every request");
    answers.into_iter().map(|why| why.map_or(Ok(()), Err)).collect()
}

/// One request, one answer.
pub(crate) fn verify(verifier: Verifier, request: &Captured) -> Result<(), String> {
    verify_all(verifier, std::slice::from_ref(request)).pop().expect("one answer")
}

/// Fails unless every verifier takes the request and refuses each of its changed copies.
pub(crate) fn assert_bound(verifiers: &[Verifier], request: &Captured, changed: &[(String, Captured)]) {
    assert!(!changed.is_empty());
    let all: Vec<_> = std::iter::once(request.clone()).chain(changed.iter().map(|(_, c)| c.clone())).collect();
    for verifier in verifiers {
        let mut answers = verify_all(*verifier, &all).into_iter();
        assert_eq!(answers.next(), Some(Ok(())), "{verifier:?} refused {request:?}");
        for (answer, (what, changed)) in answers.zip(changed) {
            assert!(answer.is_err(), "{verifier:?} took a request with {what}: {changed:?}");
        }
    }
}

/// Copies with one change each: every byte of every header in `names`, each of them gone, another method, path and query.
pub(crate) fn changes(request: &Captured, names: &[String]) -> Vec<(String, Captured)> {
    let mut all = Vec::new();
    let mut change = |what: String, edit: &dyn Fn(&mut Captured)| {
        let mut changed = request.clone();
        edit(&mut changed);
        all.push((what, changed));
    };
    for (index, (name, value)) in request.headers.iter().enumerate().filter(|(_, (name, _))| names.contains(name)) {
        change(format!("{name} gone"), &|c| drop(c.headers.remove(index)));
        for at in 0..value.len() {
            change(format!("{name} changed at {at}"), &|c| {
                let mut bytes = value.clone().into_bytes();
                bytes[at] = other(bytes[at]);
                c.headers[index].1 = String::from_utf8(bytes).expect("visible ASCII");
            });
        }
    }
    let (path, query) = request.target.split_once('?').map_or((request.target.as_str(), None), |(p, q)| (p, Some(q)));
    change("another method".to_owned(), &|c| c.method = if c.method == "PUT" { "POST" } else { "PUT" }.to_owned());
    change("a longer path".to_owned(), &|c| c.target = format!("{path}x{}", query.map(|q| format!("?{q}")).unwrap_or_default()));
    change("a longer query".to_owned(), &|c| c.target = format!("{path}?{}x=1", query.unwrap_or_default()));
    if query.is_some() {
        change("no query".to_owned(), &|c| c.target = path.to_owned());
    }
    all
}

/// The names that a request's `Signature-Input` covers, and the two fields of the signature itself.
pub(crate) fn covered(request: &Captured) -> Vec<String> {
    let input = request.headers.iter().find(|(name, _)| name == "signature-input").map(|(_, value)| value.as_str()).expect("signed");
    let list = input.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
    let names = list.split(' ').map(|name| name.trim_matches('"').to_owned()).filter(|name| !name.starts_with('@'));
    names.chain(["signature-input", "signature"].map(str::to_owned)).collect()
}

/// Another visible byte. In base64 its high bit differs, so that not even the spare bits of a last digit hide the change.
fn other(byte: u8) -> u8 {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    DIGITS.iter().position(|d| *d == digit).map_or(b'x', |at| DIGITS[(at + 32) % 64])
}

/// Who makes keys and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// npm `jose`.
    Node,
    /// PyPI `PyJWT` and `cryptography`.
    Python,
}

/// Keys that nobody here made, and tokens that nobody here signed: see `issue.mjs`.
pub(crate) fn issue(maker: Maker, asked: &Value) -> Value {
    ensure_installed();
    converse(
        match maker {
            Maker::Node => node("issue.mjs"),
            Maker::Python => python("issue.py"),
        },
        asked,
    )
}

/// The spans in OTLP requests, as PyPI's `opentelemetry-proto` reads them.
pub(crate) fn spans(requests: &[Vec<u8>]) -> Vec<Value> {
    ensure_installed();
    let encoded: Vec<_> = requests.iter().map(|body| STANDARD.encode(body)).collect();
    let spans = converse(python("decode_otlp.py"), &serde_json::json!(encoded));
    spans.as_array().expect("a list").clone()
}

fn python(script: &str) -> Command {
    let mut command = Command::new(root().join("venv/bin/python"));
    command.arg("-B").arg(here().join(script)); // -B: leaves no cache beside the sources
    command
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(root().join("node").join(script));
    command
}

/// Gives a program one JSON value, and reads one.
fn converse(mut command: Command, given: &Value) -> Value {
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = process.stdin.take().expect("a pipe");
    stdin.write_all(given.to_string().as_bytes()).expect("it reads all before it answers");
    drop(stdin);
    let output = process.wait_with_output().expect("an exit status");
    assert!(output.status.success(), "{command:?} failed: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}
