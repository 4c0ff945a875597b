//! Profiles that the function leaves in a folder, and their way to S3.
//!
//! A file that is complete at an INVOKE belongs to the invocation before it. It is uploaded through a presigned URL of the
//! collector, beside the running handler and at the speed of a [`Pace`], or at SHUTDOWN. Nothing waits for an upload. What
//! exceeds a limit is deleted, because files that are not taken fill `/tmp`.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use agent_proto::batch::Environment;
use tokio::task::AbortHandle;

use crate::deliver::backoff::Backoff;
use crate::deliver::shipper::Shipper;
use crate::net::pace::Pace;

mod folder;
mod upload;

use folder::Found;
use upload::{Invocation, Outcome};

/// The largest profile. It is read in parts, so that it needs disk space and no memory.
pub(crate) const MAX_BYTES: u64 = 16 << 20;

/// The most profiles that one environment uploads. The storage has a price, and each profile uses CPU time.
const MAX_PROFILES: u32 = 20;

/// The most invocations whose profiles are not taken yet.
const MAX_ENDED: usize = 16;

/// How often an upload is tried. A freeze breaks the connection of an upload.
const MAX_TRIES: u8 = 3;

/// The uploads of one environment.
#[derive(Debug)]
pub(crate) struct Profiles {
    folder: PathBuf,
    environment: Environment,
    waiting: RefCell<Vec<Waiting>>,
    /// Files that could not be deleted. They are not uploaded again.
    kept: RefCell<Vec<Found>>,
    /// The invocations whose profiles are not taken yet, the oldest first. A freeze may delay the task that takes them.
    ended: RefCell<Vec<Ended>>,
    /// The request of the running invocation, or of the last one; empty before the first.
    request_id: RefCell<String>,
    /// The profiles taken so far.
    taken: Cell<u32>,
    dropped: Cell<u32>,
    /// The collector takes no profiles of this environment.
    is_rejected: Cell<bool>,
    /// The last task that uploads.
    task: RefCell<Option<AbortHandle>>,
    backoff: Backoff,
}

/// An invocation that ended.
#[derive(Debug)]
struct Ended {
    /// Empty for Init.
    request_id: String,
    /// When the next one began, microseconds since the Unix epoch.
    until_us: u64,
}

/// A profile that is not uploaded yet.
#[derive(Debug, Clone)]
struct Waiting {
    found: Found,
    /// The request that it belongs to; empty when it was made in Init.
    request_id: String,
    tries: u8,
}

impl Profiles {
    /// Of the environment.
    pub(crate) fn new(environment: Environment) -> Self {
        Self::in_folder(folder::FOLDER.into(), environment)
    }

    fn in_folder(folder: PathBuf, environment: Environment) -> Self {
        Self {
            folder,
            environment,
            waiting: RefCell::default(),
            kept: RefCell::default(),
            ended: RefCell::default(),
            request_id: RefCell::default(),
            taken: Cell::new(0),
            dropped: Cell::new(0),
            is_rejected: Cell::new(false),
            task: RefCell::default(),
            backoff: Backoff::default(),
        }
    }

    /// Another invocation begins at `now_us`, microseconds since the Unix epoch. What is complete belongs to the one before it.
    pub(crate) fn on_invoke(&self, request_id: &str, now_us: u64) {
        let request_id = self.request_id.replace(request_id.to_owned());
        let mut ended = self.ended.borrow_mut();
        // The profiles of an invocation that is not kept belong to the next.
        if ended.len() == MAX_ENDED {
            ended.remove(0);
        }
        ended.push(Ended { request_id, until_us: now_us });
    }

    /// Whether a task uploads. There is one at a time.
    pub(crate) fn is_uploading(&self) -> bool {
        self.task.borrow().as_ref().is_some_and(|task| !task.is_finished())
    }

    /// This task uploads.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        self.task.replace(Some(task));
    }

    /// Stops the upload in progress. Its profile still waits.
    pub(crate) fn abort(&self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Takes the profiles of the invocations that ended.
    pub(crate) fn collect(&self) {
        let ended = self.ended.take();
        for found in folder::scan(&self.folder) {
            let of = ended.iter().find(|ended| found.completed_at_us <= ended.until_us);
            let Some(Ended { request_id, .. }) = of else { continue };
            let is_known = self.waiting.borrow().iter().any(|waiting| waiting.found == found)
                || self.kept.borrow().contains(&found);
            if is_known {
                continue;
            }
            if let Err(reason) = self.check(&found) {
                self.drop_profile(&found, reason);
                continue;
            }
            self.taken.set(self.taken.get() + 1);
            let waiting = Waiting { found, request_id: request_id.clone(), tries: 0 };
            self.waiting.borrow_mut().push(waiting);
        }
    }

    /// Takes the profiles that are left. The last invocation has ended.
    pub(crate) fn collect_last(&self) {
        self.on_invoke("", u64::MAX);
        self.collect();
    }

    fn check(&self, found: &Found) -> Result<(), &'static str> {
        if self.is_rejected.get() {
            Err("the collector takes no profiles")
        } else if found.bytes == 0 || found.bytes > MAX_BYTES {
            Err("its size is not from 1 byte to 16 MB")
        } else if self.taken.get() >= MAX_PROFILES {
            Err("this environment has uploaded 20 profiles")
        } else {
            Ok(())
        }
    }

    /// Uploads what waits, until there is a failure. Must not run twice at the same time.
    pub(crate) async fn upload(&self, shipper: &Shipper, mut pace: impl FnMut() -> Pace) {
        while self.backoff.is_ready() {
            let Some(waiting) = self.waiting.borrow().first().cloned() else { break };
            let invocation = Invocation { environment: &self.environment, request_id: &waiting.request_id };
            let outcome = upload::upload(shipper, &self.folder, &waiting.found, &invocation, pace()).await;
            match outcome {
                Outcome::Uploaded => {
                    self.backoff.record_success();
                    tracing::info!(
                        name = waiting.found.name,
                        bytes = waiting.found.bytes,
                        "profile uploaded"
                    );
                    self.take_first();
                    self.remove(&waiting.found);
                }
                Outcome::Failed(reason) => {
                    self.backoff.record_failure(None);
                    let tries = waiting.tries + 1;
                    if tries < MAX_TRIES {
                        self.waiting.borrow_mut().iter_mut().take(1).for_each(|first| first.tries = tries);
                    } else {
                        self.drop_first(&reason);
                    }
                    break;
                }
                Outcome::FileChanged => drop(self.take_first()),
                Outcome::Rejected(reason) => self.drop_first(&reason),
                Outcome::AllRejected(reason) => {
                    self.is_rejected.set(true);
                    while !self.waiting.borrow().is_empty() {
                        self.drop_first(&reason);
                    }
                }
            }
        }
    }

    /// Logs how many profiles were not uploaded: those that exceeded a limit or failed, and those that still wait.
    pub(crate) fn log_not_uploaded(&self) {
        let waiting = u32::try_from(self.waiting.borrow().len()).unwrap_or(u32::MAX);
        let not_uploaded = self.dropped.get().saturating_add(waiting);
        if not_uploaded > 0 {
            tracing::warn!(not_uploaded, "profiles were not uploaded before the environment ended");
        }
    }

    fn drop_first(&self, reason: &str) {
        if let Some(waiting) = self.take_first() {
            self.drop_profile(&waiting.found, reason);
        }
    }

    fn take_first(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() { None } else { Some(waiting.remove(0)) }
    }

    /// Deletes a profile that is not uploaded. The first is a warning; later ones have the same cause.
    fn drop_profile(&self, found: &Found, reason: &str) {
        let dropped = self.dropped.replace(self.dropped.get().saturating_add(1));
        if dropped == 0 {
            tracing::warn!(name = found.name, bytes = found.bytes, "profile not uploaded: {reason}");
        }
        self.remove(found);
    }

    fn remove(&self, found: &Found) {
        if !folder::delete(&self.folder, found) {
            let mut kept = self.kept.borrow_mut();
            // A file that was not deleted is still in the folder, which has a limit.
            kept.truncate(folder::MAX_ENTRIES);
            kept.insert(0, found.clone());
        }
    }
}

#[cfg(test)]
mod tests;
