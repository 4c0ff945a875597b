//! One Lambda handler with several workloads. The environment variable `WORKLOAD` selects the workload, so all Rust
//! functions of the demo use the same program. Each function below documents its amount of work.

use std::hint::black_box;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let workload = std::env::var("WORKLOAD").unwrap_or_else(|_| "empty".to_owned());
    run(service_fn(move |event: LambdaEvent<Value>| {
        let workload = workload.clone();
        async move { handle(&workload, &event.payload).await }
    }))
    .await
}

async fn handle(workload: &str, event: &Value) -> Result<Value, Error> {
    let size = |name: &str, default: u64| event.get(name).and_then(Value::as_u64).unwrap_or(default);
    Ok(match workload {
        "cpu" => json!({ "checksum": spin(size("rounds", 30_000_000)) }),
        "io" => json!({ "bytes": wait(size("requests", 3), size("delay_ms", 40)).await? }),
        "memory" => json!({ "sum": fill_memory(size("mb", 400)) }),
        "threads" => json!({ "checksum": spin_on_threads(size("threads", 4), size("rounds", 12_000_000)) }),
        "mixed" => {
            let bytes = wait(size("requests", 1), size("delay_ms", 25)).await?;
            json!({ "bytes": bytes, "checksum": spin(size("rounds", 10_000_000)) })
        }
        "chatty" => json!({ "checksum": chat(size("requests", 30), size("rounds", 400_000)).await? }),
        "fail" => return Err("the workload is `fail`".into()),
        _ => json!({}),
    })
}

/// CPU work only: `rounds` steps of xorshift, about a nanosecond each.
fn spin(rounds: u64) -> u64 {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15u64);
    for _ in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state)
}

/// Sends sequential requests to the server at `SERVER`, which delays each response by `delay_ms`.
async fn wait(requests: u64, delay_ms: u64) -> Result<usize, Error> {
    let server = std::env::var("SERVER")?;
    let mut received = 0;
    for _ in 0..requests {
        let mut connection = TcpStream::connect(&server).await?;
        let request = format!("GET /{delay_ms} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        received += connection.read_to_end(&mut answer).await?;
    }
    Ok(received)
}

/// Many short CPU bursts: a request with a delay of 1 ms before each burst.
async fn chat(requests: u64, rounds: u64) -> Result<u64, Error> {
    let mut checksum = 0;
    for _ in 0..requests {
        wait(1, 1).await?;
        checksum ^= spin(rounds);
    }
    Ok(checksum)
}

/// Memory: allocates, writes and reads `mb` MB, then frees it.
fn fill_memory(mb: u64) -> u64 {
    const PAGE: usize = 4_096;
    let bytes = usize::try_from(mb).unwrap_or(0) << 20;
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(PAGE).for_each(|page| *page = 1);
    black_box(&memory).iter().step_by(PAGE).map(|&page| u64::from(page)).sum()
}

/// CPU work on several threads, which exit before the invocation ends.
fn spin_on_threads(threads: u64, rounds: u64) -> u64 {
    let workers: Vec<_> = (0..threads).map(|_| std::thread::spawn(move || spin(rounds))).collect();
    workers.into_iter().map(|worker| worker.join().unwrap_or_default()).fold(0, u64::wrapping_add)
}
