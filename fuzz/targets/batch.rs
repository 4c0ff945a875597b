//! Batches as any client may send them: a batch that decodes must encode and decode to the same batch.

#![no_main]

use agent_proto::batch::{Batch, decode_ack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_ack(bytes);
    let Ok(batch) = Batch::decode(bytes) else { return };
    // A decoded batch may be too large to encode: packed zeros are smaller than the names they stand for.
    let Ok(encoded) = batch.encode() else { return };
    assert_eq!(Batch::decode(&encoded).ok().as_ref(), Some(&batch));
});
