//! One block: the invocations of one environment at one size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tailor_sizing::telemetry::invocation::{Invocation, RequestId};
use tailor_sizing_eval::truth::row;
use tailor_test_kit::fake::BatchRecorder;
use tailor_test_kit::lambda::LambdaClient;
use tailor_test_kit::process::{extensions_of, group_cpu_ns};
use tailor_test_kit::random::Random;

use super::corpus::Function;
use super::host::{Host, is_undisturbed};
use super::state::{Block, Place};

/// Calls whose CPU time is compared with that of as many before them.
const WARM_UP: usize = 10;

/// The largest relative difference of their CPU times after which the measurement begins, and the largest absolute one: of
/// very short calls the environment's own work differs.
const MAX_CHANGE: f64 = 0.05;
const MAX_CHANGE_NS: f64 = 500_000.0;

/// When the measurement begins at the latest.
const MAX_WARM_UP: usize = 100;
const MAX_WARM_UP_TIME: Duration = Duration::from_secs(60);

/// How often a disturbed measurement is repeated.
const REPETITIONS: u32 = 3;

/// The shortest pause between two calls; a random one of up to as much is added, because the calls of a function do not
/// begin at one moment of the period of the quota.
const PAUSE_MS: u64 = 20;

/// How often extensions deliver, milliseconds.
pub(super) const FLUSH_INTERVAL_MS: u64 = 1_000;

/// Time limit for the delivery of what was measured.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// What measures blocks.
pub(super) struct Measurement<'a> {
    pub(super) lambda: &'a LambdaClient,
    pub(super) recorder: &'a BatchRecorder,
    pub(super) host: &'a mut Host,
    pub(super) random: Random,
    /// Invocations of each environment.
    pub(super) invocations: usize,
}

/// Invocations that were made one after the other.
#[derive(Debug)]
struct Attempt {
    request_ids: BTreeSet<RequestId>,
    disturbance: f64,
}

impl Measurement<'_> {
    /// Measures one block in a new environment.
    pub(super) fn block(&mut self, function: &Function, place: Place) -> Result<Block> {
        let mut block = Block { place, warm_up_calls: 0, is_disturbed: false, rows: vec![], failure: None };
        self.lambda.resize(&function.name, block.place.memory_mb)?;
        drop(self.recorder.take());
        let warm_up = self.warm_up(function, block.place.memory_mb)?;
        block.warm_up_calls = match warm_up {
            Ok(calls) => calls,
            Err(failure) => {
                block.failure = Some(failure);
                return Ok(block);
            }
        };
        let mut best: Option<Attempt> = None;
        for _ in 0..=REPETITIONS {
            match self.attempt(function)? {
                Ok(attempt) => {
                    if best.as_ref().is_none_or(|best| attempt.disturbance < best.disturbance) {
                        best = Some(attempt);
                    }
                }
                Err(failure) => {
                    block.failure = Some(failure);
                    return Ok(block);
                }
            }
            if best.as_ref().is_some_and(|best| is_undisturbed(best.disturbance)) {
                break;
            }
        }
        let attempt = best.context("nothing was measured")?;
        block.is_disturbed = !is_undisturbed(attempt.disturbance);
        block.rows = self.delivered(function, &attempt.request_ids)?.iter().map(row).collect();
        Ok(block)
    }

    /// Calls the function until its CPU time is steady. Returns the number of calls, or the function's error.
    fn warm_up(&mut self, function: &Function, memory_mb: u32) -> Result<Result<usize, String>> {
        if let Err(failure) = self.call(function)? {
            return Ok(Err(failure));
        }
        let environment = environment_of(&function.name, memory_mb).with_context(|| {
            format!("the environment of {} at {memory_mb} MB is not found", function.name)
        })?;
        let began = Instant::now();
        let (mut calls, mut before_ns, mut previous_ns) = (1, cpu_ns(&environment)?, None);
        while calls < MAX_WARM_UP && began.elapsed() < MAX_WARM_UP_TIME {
            for _ in 0..WARM_UP {
                if let Err(failure) = self.call(function)? {
                    return Ok(Err(failure));
                }
            }
            calls += WARM_UP;
            let now_ns = cpu_ns(&environment)?;
            let used_ns = (now_ns - before_ns) as f64;
            let is_steady = |previous_ns: f64| {
                (used_ns - previous_ns).abs() <= (previous_ns * MAX_CHANGE).max(MAX_CHANGE_NS)
            };
            if previous_ns.is_some_and(is_steady) {
                break;
            }
            (before_ns, previous_ns) = (now_ns, Some(used_ns));
        }
        Ok(Ok(calls))
    }

    fn attempt(&mut self, function: &Function) -> Result<Result<Attempt, String>> {
        let start = self.host.start();
        let mut request_ids = BTreeSet::new();
        for _ in 0..self.invocations {
            match self.call(function)? {
                Ok(request_id) => request_ids.insert(request_id),
                Err(failure) => return Ok(Err(failure)),
            };
        }
        Ok(Ok(Attempt { request_ids, disturbance: self.host.disturbance(start) }))
    }

    /// The request id of one call after a pause. The inner error is the function's.
    fn call(&mut self, function: &Function) -> Result<Result<RequestId, String>> {
        thread::sleep(Duration::from_millis(PAUSE_MS + self.random.below(PAUSE_MS)));
        let answer = self.lambda.invoke(&function.name, &function.event)?;
        if let Some(error) = answer.function_error {
            return Ok(Err(format!("{error}: {}", answer.payload)));
        }
        let request_id = RequestId::parse(&answer.request_id);
        request_id.map(Ok).with_context(|| format!("`{}` is not a request id", answer.request_id))
    }

    /// What the extension measured in these invocations. An invocation is complete at the next one, and is delivered during a
    /// later one. The time at which it started does not identify it: an extension whose CPU is limited may see it late.
    fn delivered(
        &mut self,
        function: &Function,
        request_ids: &BTreeSet<RequestId>,
    ) -> Result<Vec<Invocation>> {
        let mut found: BTreeMap<_, Invocation> = BTreeMap::new();
        let began = Instant::now();
        loop {
            // A batch that is sent again replaces the earlier copy.
            let of_function =
                |batch: &agent_proto::batch::Batch| batch.header.environment.function == function.name;
            for invocation in
                self.recorder.take().into_iter().filter(of_function).flat_map(|batch| batch.invocations)
            {
                if request_ids.contains(&invocation.request_id) {
                    found.insert(invocation.request_id, invocation);
                }
            }
            if found.len() >= self.invocations {
                break;
            }
            ensure!(
                began.elapsed() < DELIVERY_TIMEOUT,
                "only {} of {} invocations of {} were delivered",
                found.len(),
                self.invocations,
                function.name
            );
            thread::sleep(Duration::from_millis(FLUSH_INTERVAL_MS / 2));
            if let Err(failure) = self.call(function)? {
                bail!("{} failed after its measurement: {failure}", function.name);
            }
        }
        let mut invocations: Vec<Invocation> = found.into_values().collect();
        invocations.sort_by_key(|invocation| invocation.started_at_us);
        let is_measured =
            |invocation: &Invocation| invocation.work.is_some() && !invocation.caveats.estimated;
        ensure!(
            invocations.len() == self.invocations && invocations.iter().all(is_measured),
            "the invocations of {} were not measured in full",
            function.name
        );
        Ok(invocations)
    }
}

/// The process folder of the extension in the environment of `function` with this size.
fn environment_of(function: &str, memory_mb: u32) -> Option<PathBuf> {
    let variable = format!("AWS_LAMBDA_FUNCTION_MEMORY_SIZE={memory_mb}");
    extensions_of(function, "tailor-extension").into_iter().find(|folder| {
        fs::read(folder.join("environ"))
            .is_ok_and(|text| text.split(|&byte| byte == 0).any(|one| one == variable.as_bytes()))
    })
}

/// CPU time of the environment, nanoseconds.
fn cpu_ns(environment: &Path) -> Result<u64> {
    group_cpu_ns(environment).context("the environment has no control group: CPU is not limited here")
}
