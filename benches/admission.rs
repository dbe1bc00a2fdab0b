//! Criterion figures of what happens to every request: parse, decide, sign, record; of a decision among 100,000 tenants; and of
//! what a reload reads.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a bench that cannot start has nothing to measure
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use doorward::request::RequestHead;
use support::{JWT, NOW, SIGNATURES, Site, TARGET, callers, decide, record, signer};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A large installation.
const MANY: usize = 100_000;

fn requests(c: &mut Criterion) {
    doorward::install_crypto();
    let callers = callers();
    let loaded = Site::new(SIGNATURES, 1).load();
    let [.., (_, jwt)] = &callers;
    c.bench_function("parse", |b| b.iter(|| RequestHead::parse(black_box(jwt)).is_ok()));

    let mut group = c.benchmark_group("decide");
    for (name, parts) in &callers {
        group.bench_function(*name, |b| b.iter(|| decide(black_box(parts), &loaded)));
    }
    group.finish();

    let mut group = c.benchmark_group("sign");
    let by_jwt = Site::new(JWT, 1).load();
    for (scheme, loaded) in [("http_message_signatures", &loaded), ("jwt", &by_jwt)] {
        for (name, parts) in &callers {
            let admitted = decide(parts, loaded);
            group.bench_function(format!("{scheme}/{name}"), |b| {
                b.iter(|| signer(loaded).sign(black_box(&admitted), &TARGET, NOW).unwrap())
            });
        }
    }
    group.finish();

    let (admitted, mut line) = (decide(jwt, &loaded), Vec::new());
    c.bench_function("record", |b| b.iter(|| record(jwt, &loaded, black_box(&admitted), &mut line)));
}

fn tenants(c: &mut Criterion) {
    let callers = callers();
    let mut group = c.benchmark_group("tenants");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for tenants in [1, 1_000, MANY] {
        let site = Site::new(SIGNATURES, tenants);
        let loaded = site.load();
        group.bench_function(BenchmarkId::new("reload", tenants), |b| b.iter(|| site.reload(&loaded)));
        group.bench_function(BenchmarkId::new("decide", tenants), |b| b.iter(|| decide(black_box(&callers[2].1), &loaded)));
    }
    group.finish();
}

criterion_group!(benches, requests, tenants);
criterion_main!(benches);
