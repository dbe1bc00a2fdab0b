//! Picking, failing, resolving and taking over, without a socket.

use std::collections::HashMap;

use super::super::{Health, HostPolicy, Timeouts};
use super::*;
use crate::upstream::rewrite::Rewrite;
use crate::upstream::stable_hash;

const SECOND: Duration = Duration::from_secs(1);

fn settings(backends: &[&str], balance: Balance) -> UpstreamSettings {
    let backend = |text: &&str| {
        let (host, port) = text.rsplit_once(':').unwrap();
        Backend::Tcp { host: host.to_owned(), port: port.parse().unwrap() }
    };
    UpstreamSettings {
        name: "test".to_owned(),
        backends: backends.iter().map(backend).collect(),
        balance,
        timeouts: Timeouts { connect: SECOND, first_byte: SECOND, read: SECOND, write: SECOND, total: SECOND, idle: SECOND },
        retries: 2,
        host: HostPolicy::Preserve,
        path: Rewrite::default(),
        tls: None,
        health: None,
        ejection: Ejection { failures: 1, period: 10 * SECOND, longest: 10 * SECOND, statuses: vec![503] },
    }
}

const THREE: [&str; 3] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];

fn pool(balance: Balance) -> Pool {
    Pool::new(&settings(&THREE, balance))
}

fn picked(pool: &Pool, conversation: Option<u64>, now: Instant) -> String {
    pool.pick(conversation, &[], now).unwrap().address().at().to_string()
}

fn at(pool: &Pool, index: usize) -> Arc<Address> {
    Arc::clone(&pool.addresses()[index])
}

#[test]
fn round_robin_is_fair_with_one_out_as_well() {
    let (pool, now) = (pool(Balance::RoundRobin), Instant::now());
    let count = |rounds: usize| {
        let mut counted = HashMap::new();
        (0..rounds).for_each(|_| *counted.entry(picked(&pool, None, now)).or_insert(0) += 1);
        let mut counts: Vec<_> = counted.into_values().collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(count(30), [10, 10, 10]);
    pool.failed(&at(&pool, 1), "refused", now);
    assert_eq!(count(30), [15, 15]);
}

#[test]
fn least_connections_goes_where_the_fewest_are() {
    let (pool, now) = (pool(Balance::LeastConnections), Instant::now());
    let held: Vec<_> = (0..6).map(|_| pool.pick(None, &[], now).unwrap()).collect();
    assert!(pool.addresses().iter().all(|address| address.in_flight() == 2));
    let busy = held[0].address().at().to_string();
    let _busy: Vec<_> = held.into_iter().filter(|lease| lease.address().at().to_string() == busy).collect(); // drops the others
    assert!((0..20).all(|_| picked(&pool, None, now) != busy));
}

#[test]
fn a_conversation_stays_and_few_move() {
    let hashed = || Balance::ConsistentHash(Vec::new());
    let (pool, now) = (pool(hashed()), Instant::now());
    let conversations: Vec<_> = (0..3000).map(|n| stable_hash(format!("conversation-{n}").as_bytes())).collect();
    let all = |pool: &Pool| conversations.iter().map(|c| picked(pool, Some(*c), now)).collect::<Vec<_>>();
    let before = all(&pool);
    assert_eq!(before, all(&pool));
    for address in THREE {
        let share = before.iter().filter(|at| *at == address).count();
        assert!((800..1200).contains(&share), "{address} has {share} of 3000");
    }
    pool.failed(&at(&pool, 0), "refused", now);
    let without = all(&pool);
    let moved = before.iter().zip(&without).filter(|(a, b)| a != b).count();
    assert_eq!(moved, before.iter().filter(|at| *at == THREE[0]).count(), "only those of the one that went");
    assert_eq!(conversations.iter().map(|c| picked(&pool, Some(*c), now + 11 * SECOND)).collect::<Vec<_>>(), before, "and they come back");
    let four = Pool::new(&settings(&[THREE[0], THREE[1], THREE[2], "10.0.0.4:1"], hashed()));
    assert!(before.iter().zip(all(&four)).all(|(a, b)| *a == b || b == "10.0.0.4:1"), "a new one takes its share and moves no other");
    let turns: HashSet<_> = (0..3).map(|_| picked(&pool, None, now + 11 * SECOND)).collect();
    assert_eq!(turns.len(), 3, "what belongs to no conversation takes turns");
}

#[test]
fn tried_addresses_are_left_out_and_nothing_is_left_at_the_end() {
    let (pool, now) = (pool(Balance::RoundRobin), Instant::now());
    let mut tried = Vec::new();
    while let Some(lease) = pool.pick(None, &tried, now) {
        assert!(tried.len() < 3);
        tried.push(Arc::clone(lease.address()));
    }
    assert_eq!(tried.len(), 3);
    assert!(pool.addresses().iter().all(|address| address.in_flight() == 0), "leases are given back");
}

#[test]
fn one_address_is_always_left() {
    let (pool, now) = (pool(Balance::RoundRobin), Instant::now());
    for index in [0, 1, 2] {
        pool.failed(&at(&pool, index), "refused", now);
    }
    assert!((0..10).all(|_| picked(&pool, None, now) == THREE[2]));
    assert_eq!(pool.counters().ejections(), 2);
    assert!(pool.is_failure(503) && !pool.is_failure(500));
}

#[test]
fn where_all_are_out_all_are_in() {
    let mut settings = settings(&THREE, Balance::RoundRobin);
    let rule = Health { path: None, interval: SECOND, timeout: SECOND, healthy_after: 1, unhealthy_after: 1, statuses: Vec::new() };
    settings.health = Some(rule.clone());
    let (pool, now) = (Pool::new(&settings), Instant::now());
    let check = |index: usize, passed: bool| at(&pool, index).checked(&rule, if passed { Ok(()) } else { Err("503".to_owned()) });
    (0..3).for_each(|index| assert!(check(index, false)));
    assert_eq!((0..3).map(|_| picked(&pool, None, now)).collect::<HashSet<_>>().len(), 3);
    assert!(check(1, true));
    assert!((0..10).all(|_| picked(&pool, None, now) == THREE[1]));
    let status = pool.status(now);
    assert_eq!(status.iter().map(|s| s.standing).collect::<Vec<_>>(), [Standing::Unhealthy, Standing::Available, Standing::Unhealthy]);
    assert_eq!((status[0].address.as_str(), status[0].trouble.as_ref().unwrap().what.as_str()), (THREE[0], "503"));
}

#[tokio::test]
async fn a_name_is_all_its_addresses_and_the_last_good_answer_stays() {
    let pool = Pool::new(&settings(&["agent.internal:80", "10.0.0.9:1"], Balance::RoundRobin));
    let shown = |pool: &Pool| pool.status(Instant::now()).into_iter().map(|s| s.address).collect::<Vec<_>>();
    assert_eq!(shown(&pool), ["10.0.0.9:1"], "what needs no lookup is there at once");
    let answers = |found: &'static [&str]| {
        async move |host: &str, port: u16| {
            assert_eq!((host, port), ("agent.internal", 80));
            if found.is_empty() {
                Err(std::io::Error::other("no such name"))
            } else {
                Ok(found.iter().map(|a| a.parse().unwrap()).collect())
            }
        }
    };
    assert!(pool.resolve_by(answers(&["10.0.0.2:80", "10.0.0.1:80"])).await.is_empty());
    assert_eq!(shown(&pool), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:1"]);
    let held = pool.pick(None, &[], Instant::now()).unwrap();
    assert_eq!(held.address().at().to_string(), "10.0.0.1:80");
    let failed = pool.resolve_by(answers(&[])).await;
    assert_eq!((failed.len(), failed[0].0.as_str()), (1, "agent.internal:80"));
    assert_eq!(shown(&pool), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:1"]);
    assert!(pool.resolve_by(answers(&["10.0.0.1:80", "[::1]:80"])).await.is_empty());
    assert_eq!(shown(&pool), ["10.0.0.1:80", "[::1]:80", "10.0.0.9:1"]);
    assert_eq!(pool.status(Instant::now())[0].in_flight, 1, "an address that stays goes on as it is");
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_what_stays() {
    let before = Pool::new(&settings(&["agent.internal:80", THREE[0], THREE[1]], Balance::RoundRobin));
    assert!(before.resolve_by(async |_, _| Ok(vec!["10.1.1.1:80".parse().unwrap()])).await.is_empty());
    let now = Instant::now();
    before.failed(&at(&before, 1), "refused", now);
    before.retried();
    let after = Pool::new(&settings(&["agent.internal:80", THREE[0], THREE[2]], Balance::LeastConnections));
    after.take_over(&before);
    let shown: Vec<_> = after.status(now).into_iter().map(|s| (s.address, s.standing)).collect();
    let expected = [("10.1.1.1:80", Standing::Available), (THREE[0], Standing::Ejected), (THREE[2], Standing::Available)];
    assert_eq!(shown, expected.map(|(address, standing)| (address.to_owned(), standing)));
    assert_eq!((after.counters().retries(), after.counters().ejections()), (1, 1));
    assert!(Arc::ptr_eq(&at(&before, 0), &at(&after, 0)));
}

#[test]
fn no_name_can_fill_the_pool() {
    let many: Vec<_> = (0..300).map(|n| format!("10.0.{}.{}:1", n / 250, n % 250)).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(Pool::new(&settings(&many, Balance::RoundRobin)).addresses().len(), MOST_ADDRESSES);
}
