//! All simulated functions: Lambda's control plane for them, their telemetry, and the clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tailor_collector::changes::Write;
use tailor_collector::report::Evaluation;
use tailor_collector::store::{ChangeEvent, FunctionKey, StoreError};
use tailor_collector::tuner::canary::Sample;
use tailor_collector::tuner::guards::{Evidence, Health};
use tailor_collector::tuner::lambda::{Lambda, LambdaError, Live};
use tailor_collector::tuner::telemetry::{Telemetry, sample_of};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::function::{Block, Detail, Function, START_US, key};
use crate::kind::Truth;

/// All functions, the clock and the change log.
pub struct World {
    state: Mutex<State>,
    prices: PriceTable,
    detail: Detail,
}

pub(crate) struct State {
    /// Microseconds since the start of the simulation.
    pub(crate) now_us: u64,
    pub(crate) functions: BTreeMap<String, Function>,
    log: Vec<ChangeEvent>,
}

impl World {
    /// A world with these functions.
    #[must_use]
    pub fn new(fleet: &[Truth], detail: Detail) -> Arc<Self> {
        let named = fleet.iter().enumerate();
        let functions = named
            .map(|(index, truth)| (format!("{}-{index:05}", truth.kind.name()), Function::new(truth.clone())))
            .collect();
        let state = State { now_us: 0, functions, log: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), prices: PriceTable::embedded(), detail })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        START_US + self.lock().now_us
    }

    /// The prices.
    #[must_use]
    pub const fn prices(&self) -> &PriceTable {
        &self.prices
    }

    /// Passes time, and simulates the invocations of all functions in it.
    pub fn pass(&self, us: u64) {
        self.lock().now_us += us;
    }

    /// Simulates the invocations of all functions until now.
    pub fn advance_all(&self) {
        let state = &mut *self.lock();
        for function in state.functions.values_mut() {
            function.advance(state.now_us, &self.prices, &self.detail);
        }
    }

    /// Whether an alias has a weight.
    #[must_use]
    pub fn has_canary(&self) -> bool {
        let weighted =
            |function: &Function| function.alias.as_ref().is_some_and(|alias| alias.additional.is_some());
        self.lock().functions.values().any(weighted)
    }
}

#[async_trait]
impl Telemetry for World {
    async fn evaluations(
        &self,
        only: Option<&FunctionKey>,
        strategy: Strategy,
    ) -> Result<Vec<Evaluation>, StoreError> {
        let state = &mut *self.lock();
        let now_us = state.now_us;
        let mut evaluations = Vec::new();
        for (index, (name, function)) in state.functions.iter_mut().enumerate() {
            if only.is_some_and(|key| key.name != *name) {
                continue;
            }
            let size = function.routes().first().map(|(_, memory, _)| *memory);
            let killed = function.blocks.last().is_some_and(|block| block.rollup.out_of_memory > 0);
            // Evaluations are spread over the time between two of one function.
            let shift_us = index as u64 * 7_919_000_000 % self.detail.evaluation_us;
            let turn = |at_us: u64| (at_us + shift_us) / self.detail.evaluation_us;
            let is_current = function.evaluation.as_ref().is_some_and(|(at_us, evaluation)| {
                turn(*at_us) == turn(now_us)
                    && Some(evaluation.memory) == size
                    && (!killed || evaluation.present.out_of_memory > 0)
            });
            if !is_current {
                function.advance(now_us, &self.prices, &self.detail);
                let evaluation = function.evaluate(key(name), &self.prices, strategy);
                function.evaluation = evaluation.map(|evaluation| (now_us, evaluation));
            }
            evaluations.extend(function.evaluation.as_ref().map(|(_, evaluation)| evaluation.clone()));
        }
        Ok(evaluations)
    }

    async fn sample(
        &self,
        key: &FunctionKey,
        version: Option<&str>,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<(Evidence, Sample), StoreError> {
        let state = &mut *self.lock();
        let now_us = state.now_us;
        let since_us = since_us.saturating_sub(START_US);
        let blocks = match state.functions.get_mut(&key.name) {
            Some(function) => {
                function.advance(now_us, &self.prices, &self.detail);
                function.blocks.as_slice()
            }
            None => &[],
        };
        let blocks = blocks.iter().filter(|block| block.until_us > since_us);
        let measured =
            blocks.map(|block| (block.version.as_str(), block.memory, Architecture::X86_64, &block.rollup));
        Ok(sample_of(measured, version, memory, |architecture| self.rates(key, architecture)))
    }

    async fn measured(
        &self,
        key: &FunctionKey,
        version: &str,
        memory: Megabytes,
        since_us: u64,
    ) -> Result<Rollup, StoreError> {
        let state = &mut *self.lock();
        let now_us = state.now_us;
        let mut sum = Rollup::default();
        if let Some(function) = state.functions.get_mut(&key.name) {
            function.advance(now_us, &self.prices, &self.detail);
            let is_meant = |block: &&Block| {
                block.version == version && block.memory == memory && block.rollup.first_at_us >= since_us
            };
            function.blocks.iter().filter(is_meant).for_each(|block| sum.merge(&block.rollup));
        }
        Ok(sum)
    }

    async fn health(&self, _: &FunctionKey) -> Result<Health, StoreError> {
        Ok(Health { delay_us: 1_000_000, lost: 0.0, price_age_days: Some(1) })
    }

    fn rates(&self, key: &FunctionKey, architecture: Architecture) -> Option<Rates> {
        self.prices.rates(&key.region, architecture).ok()
    }

    async fn log(&self) -> Result<Vec<ChangeEvent>, StoreError> {
        Ok(self.lock().log.clone())
    }

    async fn append(&self, event: &ChangeEvent) -> Result<(), StoreError> {
        self.lock().log.push(event.clone());
        Ok(())
    }
}

#[async_trait]
impl Lambda for World {
    async fn read(&self, function: &FunctionKey) -> Result<Live, LambdaError> {
        let state = self.lock();
        let found = state.functions.get(&function.name);
        found.map(Function::live).ok_or_else(|| LambdaError::NoFunction(function.name.clone()))
    }

    async fn list_versions(&self, _: &FunctionKey, _: &mut Live) -> Result<(), LambdaError> {
        // They are always read with the function.
        Ok(())
    }

    async fn write(&self, key: &FunctionKey, write: &Write) -> Result<(), LambdaError> {
        let state = &mut *self.lock();
        let now_us = state.now_us;
        let Some(function) = state.functions.get_mut(&key.name) else {
            return Err(LambdaError::NoFunction(key.name.clone()));
        };
        // What ran before the write used the previous sizes.
        function.advance(now_us, &self.prices, &self.detail);
        function.write(write, now_us)
    }
}
