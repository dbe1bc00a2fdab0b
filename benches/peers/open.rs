//! The open loop: a request starts when its time has come, whether or not others have ended, and its latency counts from
//! then on, so a proxy that stalls cannot hide it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::scenario;
use crate::stand::Stand;

/// Most connections; a request that finds none free waits for one, and the wait counts.
const CONNECTIONS: usize = 256;

type Connection = SendRequest<Full<Bytes>>;

/// Latencies in microseconds.
pub(crate) type Latencies = Histogram<u64>;

/// Measures POSTs at this rate.
pub(crate) fn run(stand: &Stand, port: u16, rate: u64, length: Duration) -> Latencies {
    let requests = Arc::new(stand.requests(&scenario::ALL[0]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // One thread, kept off the proxy's processor.
    stand.pin_this_thread();
    let latencies = runtime.block_on(offer(port, rate, length, requests));
    stand.unpin_this_thread();
    latencies
}

async fn offer(port: u16, rate: u64, length: Duration, requests: Arc<Vec<String>>) -> Latencies {
    let idle = Arc::new(Mutex::new(VecDeque::<Connection>::new()));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let latencies = Arc::new(Mutex::new(Latencies::new_with_max(60_000_000, 3).unwrap()));
    let begin = Instant::now();
    let (mut sent, mut asked) = (0_u64, JoinSet::new());
    let mut ticks = interval(Duration::from_millis(1));
    while begin.elapsed() < length {
        ticks.tick().await;
        let due = u64::try_from(begin.elapsed().as_micros()).unwrap() * rate / 1_000_000;
        while sent < due {
            let planned = begin + Duration::from_micros(sent * 1_000_000 / rate);
            let (idle, places, latencies) = (Arc::clone(&idle), Arc::clone(&places), Arc::clone(&latencies));
            let request = parse(&requests[sent as usize % requests.len()]);
            asked.spawn(async move {
                let _place = places.acquire().await.unwrap();
                let kept = idle.lock().pop_front();
                let mut connection = match kept {
                    Some(kept) if !kept.is_closed() => kept,
                    _ => connect(port).await,
                };
                let answer = match connection.send_request(request.clone()).await {
                    Ok(answer) => answer,
                    Err(error) if error.is_canceled() || error.is_incomplete_message() => {
                        connection = connect(port).await; // it was closed while it was idle
                        connection.send_request(request).await.unwrap()
                    }
                    Err(error) => panic!("{error}"),
                };
                assert!(answer.status().is_success(), "{}", answer.status());
                answer.into_body().collect().await.unwrap();
                latencies.lock().record(u64::try_from(planned.elapsed().as_micros()).unwrap()).unwrap();
                if connection.ready().await.is_ok() {
                    idle.lock().push_front(connection);
                }
            });
            sent += 1;
        }
        while let Some(done) = asked.try_join_next() {
            done.unwrap();
        }
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
    drop(idle);
    Arc::try_unwrap(latencies).unwrap().into_inner()
}

async fn connect(port: u16) -> Connection {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The closed loop's request for hyper.
fn parse(text: &str) -> Request<Full<Bytes>> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut start = lines.next().unwrap().split(' ');
    let mut request = Request::builder().method(start.next().unwrap()).uri(start.next().unwrap());
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}
