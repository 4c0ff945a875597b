//! A handler on AWS's Rust runtime: the same operations as the test handlers in other languages, and the empty handler
//! of the overhead benchmark.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

static INVOCATIONS: AtomicU32 = AtomicU32::new(0);

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let invocations = INVOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let (event, context) = event.into_parts();
    match event["do"].as_str() {
        Some("fail") => return Err("boom".into()),
        Some("sleep") => {
            tokio::time::sleep(Duration::from_secs(event["seconds"].as_u64().unwrap_or_default())).await;
        }
        Some("spin") => {
            let rounds = event["rounds"].as_u64().unwrap_or_default();
            return Ok(json!((0..rounds).fold(1, |sum: u64, round| std::hint::black_box(sum ^ round))));
        }
        Some("memory") => {
            let megabytes = usize::try_from(event["mb"].as_u64().unwrap_or_default())?;
            let held = std::hint::black_box(vec![1_u8; megabytes * 1024 * 1024]);
            return Ok(json!(held.len()));
        }
        _ => {}
    }
    Ok(json!({
        "invocations": invocations, "request_id": context.request_id,
        "memory_mb": context.env_config.memory,
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(handle)).await
}
