//! Instructions of what happens to every request, counted by callgrind: the same from run to run on a machine that others
//! share, so that a change of one per cent shows. Needs valgrind and gungraun-runner; `make instructions` brings both. Valgrind
//! knows no SHA extensions, so SHA-256 counts for some ten times of what it takes.

#![allow(clippy::unwrap_used, clippy::panic)] // a bench that cannot start has nothing to measure
#![allow(missing_docs)]

mod support;

use std::hint::black_box;

use doorward::admission::Admitted;
use doorward::assertion::SignedHeaders;
use doorward::config::Loaded;
use doorward::request::RequestHead;
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::request::Parts;
use support::{JWT, NOW, SIGNATURES, Site, TARGET};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A request by its caller, and a configuration that has seen some.
fn arrived(caller: usize, schemes: &str) -> (Parts, Loaded) {
    doorward::install_crypto();
    let loaded = Site::new(schemes, 1).load();
    let [anonymous, hmac, jwt] = support::callers().map(|(_, parts)| parts);
    (0..16).for_each(|_| drop(support::decide(&jwt, &loaded)));
    let parts = match caller {
        0 => anonymous,
        1 => hmac,
        _ => jwt,
    };
    (parts, loaded)
}

fn admitted(schemes: &str) -> (Parts, Loaded, Admitted, Vec<u8>) {
    let (parts, loaded) = arrived(2, schemes);
    let admitted = support::decide(&parts, &loaded);
    let mut line = Vec::with_capacity(4096);
    for _ in 0..16 {
        support::signer(&loaded).sign(&admitted, &TARGET, NOW).unwrap();
        support::record(&parts, &loaded, &admitted, &mut line);
    }
    (parts, loaded, admitted, line)
}

#[library_benchmark]
#[bench::jwt(arrived(2, SIGNATURES))]
fn parse((parts, loaded): (Parts, Loaded)) -> (bool, Parts, Loaded) {
    (RequestHead::parse(black_box(&parts)).is_ok(), parts, loaded)
}

#[library_benchmark]
#[bench::anonymous(arrived(0, SIGNATURES))]
#[bench::hmac(arrived(1, SIGNATURES))]
#[bench::jwt_hs256(arrived(2, SIGNATURES))]
fn decide((parts, loaded): (Parts, Loaded)) -> (Admitted, Parts, Loaded) {
    (support::decide(black_box(&parts), &loaded), parts, loaded)
}

#[library_benchmark]
#[bench::http_message_signatures(admitted(SIGNATURES))]
#[bench::jwt(admitted(JWT))]
fn sign(of: (Parts, Loaded, Admitted, Vec<u8>)) -> (SignedHeaders, (Parts, Loaded, Admitted, Vec<u8>)) {
    (support::signer(&of.1).sign(black_box(&of.2), &TARGET, NOW).unwrap(), of)
}

#[library_benchmark]
#[bench::admitted(admitted(SIGNATURES))]
fn record((parts, loaded, admitted, mut line): (Parts, Loaded, Admitted, Vec<u8>)) -> (Parts, Loaded, Admitted, Vec<u8>) {
    support::record(&parts, &loaded, black_box(&admitted), &mut line);
    (parts, loaded, admitted, line)
}

library_benchmark_group!(name = steps, benchmarks = [parse, decide, sign, record]);
main!(library_benchmark_groups = steps);
