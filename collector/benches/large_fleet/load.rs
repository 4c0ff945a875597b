//! Reads pages while batches arrive.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailor_collector::clock::now_us;

use super::fill::{environment_batch, function_name};
use crate::{ENVIRONMENTS, Options, Server, quantiles};

/// Connections that send. Each sends one batch at a time, as an environment does.
const SENDERS: u64 = 32;

/// The sequences of the environments continue from one measurement to the next.
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Reads lists and pages for the time of the options, while `rate` batches arrive per second.
pub(crate) fn measure(server: &Server, folder: &Path, options: &Options, rate: u64) -> Value {
    let stop = Arc::new(AtomicBool::new(false));
    let span = Duration::from_secs(if rate == 0 { options.seconds.div_ceil(4) } else { options.seconds });
    let senders = (rate > 0).then(|| send(server, options.functions, rate, &stop));
    let start = Instant::now();
    let mut reads: Vec<(&str, Vec<Duration>, usize)> = vec![];
    let mut round = 0u64;
    while start.elapsed() < span {
        round += 1;
        let hours = [720, 24, 168, 1][usize::try_from(round % 4).unwrap()];
        let function = function_name(round * 7_919 % options.functions);
        for (name, path) in [
            ("fleet page", format!("/?hours={hours}")),
            ("function list", format!("/v1/functions?hours={hours}&sort=cost")),
            ("list filtered", format!("/v1/functions?hours={hours}&region=us-east-1&by=runtime")),
            ("function page", format!("/functions/{function}?hours={hours}")),
        ] {
            let read = Instant::now();
            // A function that sent nothing in a short window has no page for it.
            let request = ureq::get(format!("http://{}{path}", server.address));
            let mut response = request.config().http_status_as_error(false).build().call().unwrap();
            assert!(matches!(response.status().as_u16(), 200 | 404), "{path}: {}", response.status());
            let length = response.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap().len();
            let read = read.elapsed();
            match reads.iter_mut().find(|(other, ..)| *other == name) {
                Some((_, spans, longest)) => {
                    spans.push(read);
                    *longest = length.max(*longest);
                }
                None => reads.push((name, vec![read], length)),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledgements: Option<Vec<(Duration, Duration)>> =
        senders.map(|senders| senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect());
    let mut result = json!({});
    println!("{rate} batches/s:");
    for (name, spans, longest) in reads {
        let mut figures = quantiles(spans);
        figures["largest_bytes"] = longest.into();
        println!("  {name:<16} {figures}");
        result[name] = figures;
    }
    if let Some(mut acknowledgements) = acknowledgements {
        let sent = acknowledgements.len() as f64 / start.elapsed().as_secs_f64();
        acknowledgements.sort_unstable_by_key(|(_, latency)| std::cmp::Reverse(*latency));
        let slowest = acknowledgements.iter().take(6);
        let slowest: Vec<String> =
            slowest.map(|(at, latency)| format!("{latency:.0?} at {:.1} s", at.as_secs_f64())).collect();
        println!("  slowest acknowledgements: {}", slowest.join(", "));
        let figures = quantiles(acknowledgements.into_iter().map(|(_, latency)| latency).collect());
        println!("  acknowledgements {figures}, {sent:.0} batches/s");
        result["acknowledgements"] = figures;
        result["batches_per_second"] = sent.round().into();
    }
    for line in phases(server) {
        println!("  {line}");
    }
    let wal = std::fs::metadata(folder.join("tailor.sqlite-wal")).map_or(0, |metadata| metadata.len());
    println!("  write-ahead log: {} MiB", wal >> 20);
    result["wal_bytes"] = wal.into();
    result
}

/// The time of each phase of the store's writer since the start, from the collector's metrics: count, sum and highest bucket.
fn phases(server: &Server) -> Vec<String> {
    let request = ureq::get(format!("http://{}/metrics", server.address))
        .header("Authorization", format!("Bearer {}", server.admin_key));
    let text = request.call().unwrap().body_mut().read_to_string().unwrap();
    let values = |name: &str| -> Vec<(String, String, f64)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        lines
            .filter_map(|line| line.split_once("} "))
            .map(|(labels, value)| {
                let label = |key: &str| {
                    let after = labels.split_once(&format!("{key}=\""));
                    after.and_then(|(_, rest)| rest.split_once('"')).map_or("", |(value, _)| value).to_owned()
                };
                (label("phase"), label("le"), value.parse().unwrap_or(0.0))
            })
            .collect()
    };
    let (sums, buckets) =
        (values("tailor_store_phase_seconds_sum"), values("tailor_store_phase_seconds_bucket"));
    let counts = values("tailor_store_phase_seconds_count");
    sums.iter()
        .zip(&counts)
        .map(|((phase, _, sum), (_, _, count))| {
            let bound = buckets.iter().find(|(other, _, below)| other == phase && below >= count);
            let bound = bound.map_or("", |(_, bound, _)| bound.as_str());
            format!("{phase:<12} {count:>7} times, {sum:>8.2} s in total, longest up to {bound} s")
        })
        .collect()
}

/// Starts the senders: every environment sends in turn. They return when each batch was sent, since the start, and how long
/// its acknowledgement took.
fn send(
    server: &Server,
    functions: u64,
    rate: u64,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<Vec<(Duration, Duration)>>> {
    let environments = functions * ENVIRONMENTS;
    let round = ROUNDS.fetch_add(1, Ordering::Relaxed);
    (0..SENDERS)
        .map(|sender| {
            let (address, key, stop) = (server.address.clone(), server.key.clone(), Arc::clone(stop));
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream.set_nodelay(true).unwrap();
                let (start, pause) = (Instant::now(), Duration::from_secs_f64(SENDERS as f64 / rate as f64));
                let (mut latencies, mut response) = (vec![], [0; 4_096]);
                for turn in 0u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Neighbours in the order of senders are far apart in the order of keys.
                    let number = (u64::from(turn) * SENDERS + sender) * 7_919 % environments;
                    let sequence = 2 + round * 1_000 + u64::from(turn) * SENDERS / environments;
                    let body = environment_batch(number, sequence, 1, now_us()).encode().unwrap();
                    let due = pause * turn;
                    if let Some(wait) = due.checked_sub(start.elapsed()) {
                        std::thread::sleep(wait);
                    }
                    let head = format!(
                        "POST /v1/batches HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\
                         Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let sent = Instant::now();
                    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
                    let read = stream.read(&mut response).unwrap();
                    let text = String::from_utf8_lossy(&response[..read]);
                    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                    latencies.push((sent.duration_since(start), sent.elapsed()));
                }
                latencies
            })
        })
        .collect()
}
