//! Reads the lines that processes write, for telemetry, log files and log tails.

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot};

/// Maximum length of one line (Lambda splits log events at 256 KB).
const MAX_LINE: usize = 256 * 1024;

/// Capacity of a pipe, unless a process has changed it.
const PIPE_BYTES: usize = 64 * 1024;

/// Called with every line, without its newline.
pub type OnLine = Arc<dyn Fn(String) + Send + Sync>;

/// A running reader of one pipe.
#[derive(Clone)]
pub struct LogReader {
    barriers: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl LogReader {
    /// Reads `pipe` until all its writers have closed it.
    pub fn start(pipe: PipeReader, on_line: OnLine) -> std::io::Result<LogReader> {
        let receiver = Receiver::from_owned_fd(OwnedFd::from(pipe))?;
        let (barriers, requests) = mpsc::unbounded_channel();
        tokio::spawn(read(receiver, requests, on_line));
        Ok(LogReader { barriers })
    }

    /// Returns when everything written so far has been passed on.
    pub async fn barrier(&self) {
        let (done, wait) = oneshot::channel();
        if self.barriers.send(done).is_ok() {
            // A request that is sent while the reader ends can stay in the channel, neither received nor dropped. The
            // channel closes after the last line.
            tokio::select! {
                _ = wait => {}
                () = self.barriers.closed() => {}
            }
        }
    }
}

async fn read(
    mut receiver: Receiver,
    mut barriers: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    on_line: OnLine,
) {
    let mut chunk = vec![0; 64 * 1024];
    let mut pending = Vec::new();
    loop {
        tokio::select! {
            // Barriers first: a process that writes all the time must not keep them waiting.
            biased;
            Some(done) = barriers.recv() => {
                // Not more than the pipe can contain, which is all that was written before.
                let mut left = PIPE_BYTES;
                // Reads the pipe directly: the readiness that tokio has cached may be out of date.
                while left > 0 && let Ok(length @ 1..) = rustix::io::read(&receiver, &mut chunk) {
                    split(&mut pending, &chunk[..length], &on_line);
                    left = left.saturating_sub(length);
                }
                let _ = done.send(());
            }
            read = receiver.read(&mut chunk) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => split(&mut pending, &chunk[..length], &on_line),
            },
        }
    }
    if !pending.is_empty() {
        on_line(String::from_utf8_lossy(&pending).into_owned());
    }
}

fn split(pending: &mut Vec<u8>, chunk: &[u8], on_line: &OnLine) {
    for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
        pending.extend_from_slice(piece);
        let complete = pending.last() == Some(&b'\n');
        if complete || pending.len() >= MAX_LINE {
            if complete {
                pending.pop();
            }
            on_line(String::from_utf8_lossy(pending).into_owned());
            pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Mutex;

    #[tokio::test]
    async fn a_barrier_waits_for_what_was_written() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let reader = LogReader::start(reader, Arc::new(move |line| sink.lock().unwrap().push(line))).unwrap();
        writer.write_all(b"one\ntwo\nthr").unwrap();
        reader.barrier().await;
        assert_eq!(*lines.lock().unwrap(), ["one", "two"]);
        writer.write_all(b"ee\n").unwrap();
        reader.barrier().await;
        assert_eq!(lines.lock().unwrap().last().unwrap(), "three");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_barrier_ends_when_the_pipe_closes_at_the_same_time() {
        for round in 0..20_000 {
            let (reader, writer) = std::io::pipe().unwrap();
            let reader = LogReader::start(reader, Arc::new(|_| {})).unwrap();
            let close = tokio::task::spawn_blocking(move || drop(writer));
            let ended = tokio::time::timeout(std::time::Duration::from_secs(5), reader.barrier()).await;
            assert!(ended.is_ok(), "the barrier of round {round} did not end");
            close.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_barrier_ends_while_a_process_writes_all_the_time() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = LogReader::start(reader, Arc::new(|_| {})).unwrap();
        let flood = std::thread::spawn(move || while writer.write_all(&[b'\n'; 4096]).is_ok() {});
        tokio::time::timeout(std::time::Duration::from_secs(20), reader.barrier()).await.unwrap();
        drop(reader);
        // The reading end is dropped with the runtime of this test, which ends the thread.
        drop(flood);
    }
}
