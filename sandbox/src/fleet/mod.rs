//! All environments of all functions: chooses the environment of an invocation, starts environments, and shuts down one
//! that is not needed is shut down.

mod grace;
mod pool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Notify;

use crate::config::{FunctionConfig, InitializationType};
use crate::environment::invocation::InvokeRequest;
use crate::environment::{Environment, MANAGED_CONCURRENCY, Milestone, OnMilestone, Platform};
use crate::layers::{self, LayerError};
use grace::Grace;
use pool::{Member, Pool};

/// Interval between checks for idle environments.
const REAP_INTERVAL: Duration = Duration::from_millis(500);

/// How environments are scaled.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// Idle environments are shut down after this time.
    pub idle_timeout: Duration,
    /// Concurrent invocations of all functions together (Lambda's default quota is 1,000).
    pub account_concurrency: u32,
}

impl Default for FleetSettings {
    fn default() -> FleetSettings {
        FleetSettings { idle_timeout: Duration::from_secs(600), account_concurrency: 1_000 }
    }
}

/// One configuration of one function version that invocations can be sent to.
#[derive(Clone, Debug)]
pub struct Target {
    /// What to run.
    pub config: Arc<FunctionConfig>,
    /// Increases with every change; environments of earlier generations accept no further invocations.
    pub generation: u64,
    /// Concurrent invocations reserved for, and allowed to, the whole function.
    pub reserved_concurrency: Option<u32>,
}

/// Why an invocation was not accepted.
#[derive(Debug, Error)]
pub enum FleetError {
    #[error("concurrency of the function is at its reserved limit")]
    ReservedConcurrency,
    #[error("concurrency of the account is at its limit")]
    AccountConcurrency,
    #[error("the sandbox is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Layers(#[from] LayerError),
}

/// All environments.
pub struct Fleet {
    platform: Arc<Platform>,
    settings: FleetSettings,
    state: Mutex<State>,
    changed: Notify,
    weak_self: Weak<Fleet>,
}

/// What an environment is started for.
enum StartPurpose {
    /// To be ready ahead of invocations.
    Reserve,
    /// An invocation, of this tenant if the function isolates them.
    Tenant(Option<String>),
}

#[derive(Default)]
struct State {
    pools: HashMap<(String, String), Pool>,
    opt_folders: HashMap<Vec<PathBuf>, PathBuf>,
    /// Environments that have not ended, retired ones included.
    alive: usize,
    /// No invocation is accepted and no environment is started any more.
    shutting_down: bool,
}

impl State {
    fn pool(&mut self, target: &Target) -> &mut Pool {
        self.pools.entry((target.config.name.clone(), target.config.version.clone())).or_default()
    }
}

impl Fleet {
    /// An empty fleet, and the task that reaps idle environments as long as it exists.
    pub fn start(platform: Arc<Platform>, settings: FleetSettings) -> Arc<Fleet> {
        let fleet = Arc::new_cyclic(|weak_self| Fleet {
            platform,
            settings,
            state: Mutex::default(),
            changed: Notify::new(),
            weak_self: weak_self.clone(),
        });
        let weak = Arc::downgrade(&fleet);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REAP_INTERVAL).await;
                let Some(fleet) = weak.upgrade() else { return };
                fleet.reap();
            }
        });
        fleet
    }

    /// What all environments share.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Sends an invocation to an idle environment of `target`, or starts one.
    ///
    /// An environment that has just sent its response is about to be idle. On Lambda the network delay to the
    /// caller and back hides that time; here the call waits for it, see `Grace`.
    pub async fn invoke(&self, target: &Target, request: InvokeRequest) -> Result<(), FleetError> {
        let key = (target.config.name.clone(), target.config.version.clone());
        let mut grace = Grace::default();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let tenant_id = request.invocation.tenant_id.as_deref();
            let settling = self.lock().pools.get(&key).map_or_else(Vec::new, |pool| pool.settling(tenant_id));
            if !settling.iter().any(|environment| grace.is_left(environment)) {
                return self.dispatch(target, request);
            }
            if tokio::time::timeout(grace::INTERVAL, changed).await.is_err() {
                grace.pass(&settling);
            }
        }
    }

    fn dispatch(&self, target: &Target, request: InvokeRequest) -> Result<(), FleetError> {
        let mut state = self.lock();
        if state.shutting_down {
            return Err(FleetError::ShuttingDown);
        }
        self.check_concurrency(&state, target)?;
        let pool = state.pool(target);
        pool.advance(target.generation);
        let mut request = request;
        let tenant_id = request.invocation.tenant_id.clone();
        while let Some(environment) = pool.take(tenant_id.as_deref()) {
            match environment.invoke(request) {
                Ok(()) => return Ok(()),
                // The environment has just ended.
                Err(returned) => {
                    pool.on_ended(&environment.id);
                    request = returned;
                }
            }
        }
        let environment = self.start_environment(
            &mut state,
            target,
            target.config.clone(),
            StartPurpose::Tenant(tenant_id),
        )?;
        // A new environment's queue is open, so the request cannot come back.
        let _ = environment.invoke(request);
        Ok(())
    }

    /// Starts one more environment and adds it to its pool, counting the invocation it is started for.
    fn start_environment(
        &self,
        state: &mut State,
        target: &Target,
        config: Arc<FunctionConfig>,
        purpose: StartPurpose,
    ) -> Result<Environment, FleetError> {
        let opt = self.opt(state, &config)?;
        let capacity = if config.is_managed_instances() { MANAGED_CONCURRENCY } else { 1 };
        let callback = self.on_milestone(target);
        let (provisioned, tenant_id) = match purpose {
            StartPurpose::Reserve => (true, None),
            StartPurpose::Tenant(tenant_id) => (false, tenant_id),
        };
        let environment = Environment::start(self.platform.clone(), config, opt, callback);
        state.pool(target).add(Member {
            environment: environment.clone(),
            generation: target.generation,
            capacity,
            provisioned,
            tenant_id,
            in_flight: usize::from(!provisioned),
            idle_since: Instant::now(),
            initialized: false,
        });
        state.alive += 1;
        Ok(environment)
    }

    /// Keeps `requested` environments of `target` ready ahead of invocations.
    pub fn provision(&self, target: &Target, requested: u32) -> Result<(), FleetError> {
        let mut state = self.lock();
        if state.shutting_down {
            return Err(FleetError::ShuttingDown);
        }
        let pool = state.pool(target);
        pool.advance(target.generation);
        let mut config = FunctionConfig::clone(&target.config);
        config.initialization_type = InitializationType::ProvisionedConcurrency;
        let config = Arc::new(config);
        for _ in 0..pool.settle_provisioned(requested as usize) {
            self.start_environment(&mut state, target, config.clone(), StartPurpose::Reserve)?;
        }
        Ok(())
    }

    /// Environments that take invocations, of all functions.
    pub fn environments(&self) -> Vec<Environment> {
        self.lock().pools.values().flat_map(Pool::environments).cloned().collect()
    }

    /// Provisioned environments of a function version: ready ones, and those of them without work.
    pub fn provisioned(&self, name: &str, version: &str) -> (usize, usize) {
        let state = self.lock();
        state.pools.get(&(name.to_owned(), version.to_owned())).map_or((0, 0), Pool::provisioned)
    }

    /// Concurrent invocations all functions may have together.
    pub fn account_concurrency(&self) -> u32 {
        self.settings.account_concurrency
    }

    /// Environments of earlier generations of a function version finish their invocations and shut down.
    pub fn retire(&self, name: &str, version: &str, generation: u64) {
        if let Some(pool) = self.lock().pools.get_mut(&(name.to_owned(), version.to_owned())) {
            pool.advance(generation);
        }
    }

    /// Shuts down all environments and waits at most `timeout`. Returns the number that did not end.
    pub async fn shut_down(&self, timeout: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + timeout;
        {
            let mut state = self.lock();
            // Callers with a kept connection, and retries, would start environments for ever.
            state.shutting_down = true;
            for pool in state.pools.values_mut() {
                pool.advance(u64::MAX);
            }
        }
        loop {
            let changed = self.changed.notified();
            let alive = self.lock().alive;
            if alive == 0 || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return alive;
            }
        }
    }

    fn check_concurrency(&self, state: &State, target: &Target) -> Result<(), FleetError> {
        let busy = |name: Option<&str>| -> usize {
            let pools = state.pools.iter().filter(|((known, _), _)| name.is_none_or(|name| name == known));
            pools.map(|(_, pool)| pool.in_flight()).sum()
        };
        if let Some(reserved) = target.reserved_concurrency {
            if busy(Some(&target.config.name)) >= reserved as usize {
                return Err(FleetError::ReservedConcurrency);
            }
        } else if busy(None) >= self.settings.account_concurrency as usize {
            return Err(FleetError::AccountConcurrency);
        }
        Ok(())
    }

    /// The folder with the merged layers of a function; created once per combination of layers.
    fn opt(&self, state: &mut State, config: &FunctionConfig) -> Result<PathBuf, LayerError> {
        if let Some(path) = state.opt_folders.get(&config.layers) {
            return Ok(path.clone());
        }
        let path = self.platform.run_directory.join(format!("opt-{}", state.opt_folders.len()));
        layers::merge(&config.layers, &path)?;
        state.opt_folders.insert(config.layers.clone(), path.clone());
        Ok(path)
    }

    fn on_milestone(&self, target: &Target) -> OnMilestone {
        let fleet = self.weak_self.clone();
        let key = (target.config.name.clone(), target.config.version.clone());
        Arc::new(move |environment, milestone| {
            let Some(fleet) = fleet.upgrade() else { return };
            let mut state = fleet.lock();
            let pool = state.pools.entry(key.clone()).or_default();
            match milestone {
                Milestone::Initialized => pool.on_initialized(environment),
                Milestone::Idle => pool.on_idle(environment),
                Milestone::Ended => {
                    pool.on_ended(environment);
                    state.alive = state.alive.saturating_sub(1);
                }
            }
            drop(state);
            fleet.changed.notify_waiters();
        })
    }

    fn reap(&self) {
        let Some(oldest) = Instant::now().checked_sub(self.settings.idle_timeout) else { return };
        for pool in self.lock().pools.values_mut() {
            pool.reap(oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
