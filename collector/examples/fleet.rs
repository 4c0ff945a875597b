//! Sends a made-up fleet to a running collector, to look at its pages without any function:
//! `cargo run -p tailor-collector --example fleet -- http://127.0.0.1:8080 KEY`.
//!
//! With a function's name and a memory size after that, sends what this one does now at that size: how a
//! change by the tuner shows.

#[path = "../tests/common/fleet.rs"]
mod fleet;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(key)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: fleet SERVER KEY");
        std::process::exit(2);
    };
    let now = tailor_collector::clock::now_us();
    let send = |kind: &fleet::Kind, id: u64, count: u64, end_us: u64| {
        let bytes = fleet::batch(kind, id, 1, count, end_us).encode().expect("a small batch");
        ureq::post(&format!("{server}{}", agent_proto::BATCHES_PATH))
            .header("Authorization", format!("Bearer {key}"))
            .header("Content-Type", agent_proto::CONTENT_TYPE)
            .send(&bytes[..])
            .expect("the collector takes it");
    };
    if let (Some(name), Some(memory)) = (arguments.next(), arguments.next()) {
        let kind = fleet::KINDS.iter().find(|kind| kind.name == name).expect("a function of the fleet");
        let memory = memory.parse().expect("a memory size in MB");
        // In the near future, so that all of them are after the change.
        send(&fleet::Kind { memory, ..*kind }, now, 120, now + 121_000_000);
        return;
    }
    for (kind, number) in fleet::KINDS.iter().zip(0u64..) {
        let memories = if number % 2 == 0 { vec![kind.memory] } else { vec![kind.memory / 2, kind.memory] };
        for (index, memory) in memories.into_iter().enumerate() {
            let kind = fleet::Kind { memory: memory.max(128), ..*kind };
            for environment in 0..4u64 {
                let id = now ^ (number << 8) ^ ((index as u64) << 4) ^ environment;
                send(&kind, id, 150 + 70 * number, now - (2 - index as u64) * 1_800_000_000 + environment);
            }
        }
    }
}
