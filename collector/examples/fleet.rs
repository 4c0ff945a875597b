//! Sends a made-up fleet to a running collector, to look at its pages without any function:
//! `cargo run -p tailor-collector --example fleet -- http://127.0.0.1:8080 KEY`.

#[path = "../tests/common/fleet.rs"]
mod fleet;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(key)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: fleet SERVER KEY");
        std::process::exit(2);
    };
    let now = tailor_collector::clock::now_us();
    for (kind, number) in fleet::KINDS.iter().zip(0u64..) {
        let memories = if number % 2 == 0 { vec![kind.memory] } else { vec![kind.memory / 2, kind.memory] };
        for (index, memory) in memories.into_iter().enumerate() {
            let kind = fleet::Kind { memory: memory.max(128), ..*kind };
            for environment in 0..4u64 {
                let id = now ^ (number << 8) ^ ((index as u64) << 4) ^ environment;
                let end = now - (2 - index as u64) * 1_800_000_000 + environment;
                let bytes =
                    fleet::batch(&kind, id, 1, 150 + 70 * number, end).encode().expect("a small batch");
                ureq::post(&format!("{server}{}", agent_proto::BATCHES_PATH))
                    .header("Authorization", format!("Bearer {key}"))
                    .header("Content-Type", agent_proto::CONTENT_TYPE)
                    .send(&bytes[..])
                    .expect("the collector takes it");
            }
        }
    }
}
