//! The objects that a command reads, one after the other.

use std::collections::VecDeque;

use anyhow::Context;
use aws_sdk_s3::primitives::ByteStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{BlockingReader, Location, Object, S3};

/// How many objects are requested at a time where they are small, as logs that Firehose delivers: each request waits for S3.
pub const MANY: usize = 8;

/// The same where an object is read for so long that a connection that waits could be closed.
pub const ONE: usize = 1;

/// The objects under some addresses, in order of names.
#[derive(Default)]
pub struct Objects {
    s3: Option<S3>,
    /// With their buckets.
    left: VecDeque<(String, Object)>,
    requested: VecDeque<(String, u64, JoinHandle<anyhow::Result<ByteStream>>)>,
    at_a_time: usize,
}

impl Objects {
    /// Lists the objects, of which `at_a_time` are requested at a time. Empty ones, such as the markers of folders, are left out.
    ///
    /// # Errors
    /// When an address is not valid, or S3 refuses or cannot be reached.
    pub async fn find(
        client: impl Future<Output = S3>,
        addresses: &[&String],
        at_a_time: usize,
    ) -> anyhow::Result<Self> {
        let s3 = client.await;
        let mut left = VecDeque::new();
        for address in addresses {
            let location: Location = address
                .parse()
                .map_err(|error: String| anyhow::anyhow!(error))
                .with_context(|| format!("cannot read {address}"))?;
            let objects = s3.list(&location).await?;
            let objects = objects.into_iter().filter(|object| object.bytes > 0);
            left.extend(objects.map(|object| (location.bucket.clone(), object)));
        }
        anyhow::ensure!(!left.is_empty(), "there is no object at the given addresses of S3");
        Ok(Self { s3: Some(s3), left, requested: VecDeque::new(), at_a_time })
    }

    /// Leaves out the objects whose names `is_kept` does not accept.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.left.retain(|(_, object)| is_kept(&object.key));
    }

    /// Whether all objects were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.requested.is_empty()
    }

    /// The size of all objects, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.left.iter().map(|(_, object)| object.bytes).sum()
    }

    /// The next object: its address, when it was changed (microseconds since the Unix epoch), and its content.
    pub fn next(&mut self, runtime: &Handle) -> Option<(String, u64, anyhow::Result<BlockingReader>)> {
        while self.requested.len() < self.at_a_time
            && let (Some(s3), Some((bucket, object))) = (&self.s3, self.left.pop_front())
        {
            let (s3, key) = (s3.clone(), object.key.clone());
            let name = format!("s3://{bucket}/{key}");
            let request = runtime.spawn(async move { s3.open(&bucket, &key).await });
            self.requested.push_back((name, object.changed_us, request));
        }
        let (name, changed_us, request) = self.requested.pop_front()?;
        let object = runtime.block_on(request).context("the request panicked").and_then(|object| object);
        Some((name, changed_us, object.map(|body| BlockingReader::new(runtime.clone(), body))))
    }
}
