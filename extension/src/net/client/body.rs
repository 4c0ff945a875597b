//! The body of a request: bytes, or a file that is read while it is sent.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::net::connections::count_own_file_bytes;
use crate::net::pace::{Pace, Pause};

/// How much of a file is in memory at a time. The extension's memory is part of the function's memory.
pub(crate) const PART_BYTES: usize = 64 * 1024;

/// The body of a request.
pub enum Body {
    /// In memory.
    Bytes(Full<Bytes>),
    /// A file.
    File(FileBody),
}

/// A file of a known length. Its parts are read at the speed of a [`Pace`].
pub struct FileBody {
    file: File,
    left: u64,
    pace: Pace,
    pause: Option<Pause>,
}

impl FileBody {
    /// The rest of `file`, which has `length` bytes.
    pub(crate) const fn new(file: File, length: u64, pace: Pace) -> Self {
        Self { file, left: length, pace, pause: None }
    }

    fn read_part(&mut self) -> io::Result<Bytes> {
        let length = usize::try_from(self.left).unwrap_or(PART_BYTES).min(PART_BYTES);
        let mut part = vec![0; length];
        self.file.read_exact(&mut part)?;
        self.left -= length as u64;
        count_own_file_bytes(length as u64);
        Ok(part.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => Pin::new(bytes).poll_frame(context).map_err(|never| match never {}),
            Self::File(body) => {
                if body.left == 0 {
                    return Poll::Ready(None);
                }
                let pause = body.pause.get_or_insert_with(|| body.pace.pause());
                if pause.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                body.pause = None;
                Poll::Ready(Some(body.read_part().map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_end_stream(),
            Self::File(body) => body.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => bytes.size_hint(),
            Self::File(body) => SizeHint::with_exact(body.left),
        }
    }
}
