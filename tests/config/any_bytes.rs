//! No input panics the loader, and the same input says the same twice: random bytes, and mutations of good files.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::examples::every_key;
use crate::presets::Fixture;

/// What a load says, for comparison.
fn said(fixture: &Fixture, bytes: &[u8]) -> Vec<String> {
    std::fs::write(fixture.path("doorward.toml"), bytes).unwrap();
    match doorward::config::load(&fixture.path("doorward.toml"), 1, &|_, _| Default::default()) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => {
            assert!(!problems.rendered.is_empty(), "refused without a word");
            problems.rendered
        }
    }
}

/// Files that reach deep into every reader. Nothing that they name exists beside them, so no secret is waited for.
fn seeds() -> Vec<Vec<u8>> {
    let annotated = std::fs::read_to_string("conf/doorward.toml").unwrap();
    let mut seeds = vec![every_key(&annotated).into_bytes(), annotated.into_bytes()];
    for entry in std::fs::read_dir("tests/config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            seeds.push(std::fs::read(path).unwrap());
        }
    }
    seeds.sort();
    seeds
}

/// One change: cut a piece out, put another one in.
#[derive(Clone, Debug)]
struct Change {
    at: Index,
    length: usize,
    put: Vec<u8>,
}

fn change() -> impl Strategy<Value = Change> {
    let words = [
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        "[[tenant]]",
        "-1",
        "1e400",
        "99999999999999999999",
        "\"18446744073709551615s 1000000000ns\"",
        "é",
        "\u{202e}",
        "\0",
        "\r",
        "\t",
        "'''",
        "\\u0000",
        "nan",
        "1979-05-27",
        "true",
        "[]",
        "{}",
        "\"\"",
        "\u{feff}",
        "日本",
    ];
    let put = prop_oneof![
        proptest::sample::select(words.to_vec()).prop_map(|w| w.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8)
    ];
    (any::<Index>(), 0usize..24, put).prop_map(|(at, length, put)| Change { at, length, put })
}

fn apply(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for Change { at, length, put } in changes {
        let start = at.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, put.iter().copied());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let fixture = Fixture::new();
        prop_assert_eq!(said(&fixture, &bytes), said(&fixture, &bytes));
    }

    #[test]
    fn mutated_files_never_panic(which in any::<Index>(), changes in proptest::collection::vec(change(), 1..6)) {
        let seeds = seeds();
        let bytes = apply(&seeds[which.index(seeds.len())], &changes);
        let fixture = Fixture::new();
        prop_assert_eq!(said(&fixture, &bytes), said(&fixture, &bytes));
    }
}

/// Deep nesting ends in a syntax error, not in a stack overflow.
#[test]
fn deep_nesting_is_refused() {
    let fixture = Fixture::new();
    for deep in [format!("a = {}", "[".repeat(100_000)), "a.".repeat(100_000) + "b = 1", format!("a = {}", "{a=".repeat(100_000))] {
        assert!(said(&fixture, deep.as_bytes()).iter().any(|text| text.contains("config::")));
    }
}
