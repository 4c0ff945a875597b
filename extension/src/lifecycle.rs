//! The extension's life: register, subscribe to telemetry, then one event after the other until SHUTDOWN.
//!
//! Two rules come first. The next event is requested at once, because waiting is billed. And the process never ends
//! before SHUTDOWN, because that fails the function: after an internal error the extension is dormant and only requests
//! events.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use agent_proto::batch::Environment;
use tailor_sizing::units::{Architecture, Megabytes};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Instant, sleep, timeout_at};

use crate::agent::{Agent, new_environment_id};
use crate::clock::unix_us;
use crate::deliver::shipper::{DeliveryOutcome, Shipper};
use crate::lambda::extensions_api::{Api, ApiError, Event, Function, Registration};
use crate::lambda::listener::{self, BUFFER_TIMEOUT_MS, Subscription};
use crate::measure::sampling::{self, Sampler};
use crate::net::connections::own_file_bytes;
use crate::net::pace::Pace;
use crate::profiles::Profiles;
use crate::settings::{Settings, Variables};
use crate::task::spawn;

/// The longest wait at SHUTDOWN for the last `platform.report`: what the platform may buffer, and its delivery.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_millis(BUFFER_TIMEOUT_MS + 300);

/// The time before the SHUTDOWN deadline at which the extension ends, so that Lambda does not kill it.
const SHUTDOWN_RESERVE: Duration = Duration::from_millis(150);

/// The most time that Lambda gives extensions at SHUTDOWN. A later deadline means that our clock is wrong.
const MAX_SHUTDOWN: Duration = Duration::from_secs(2);

/// The time to use at SHUTDOWN when our clock is wrong. Runtimes may use 600 ms of the two seconds first.
const DEFAULT_SHUTDOWN: Duration = Duration::from_millis(1_200);

/// How often to check whether a delivery is due. On demand each INVOKE checks it. This is for managed instances, which
/// are not frozen, and for invocations of minutes.
const DELIVERY_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The time in which the first event is requested. What need not be done before waits for it.
const FIRST_REQUEST_TIME: Duration = Duration::from_millis(5);

/// The pause after a failed request for the next event, so that a broken API does not use a whole CPU.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why the extension cannot start. The platform reports the failure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Lambda did not start this process.
    #[error("AWS_LAMBDA_RUNTIME_API is not set: this program only runs as a Lambda extension")]
    NotLambda,
    /// Lambda rejected the registration.
    #[error("cannot register with the Extensions API: {0}")]
    Register(#[from] ApiError),
}

/// What all tasks of the one thread share.
struct Shared {
    agent: RefCell<Agent>,
    /// `None` without a usable endpoint.
    shipper: Option<Shipper>,
    /// `None` when profiles are not uploaded.
    profiles: Option<Profiles>,
    /// CPU time per wall time of the memory size.
    share: f64,
    state: RefCell<State>,
    /// Telemetry came, or a delivery ended.
    changed: Notify,
    /// An invocation began.
    invoked: Notify,
    log_summary: bool,
}

/// What the extension does beside requesting events.
enum State {
    /// It measures. No delivery is in progress.
    Idle,
    /// It measures, and a delivery is in progress.
    Delivering(AbortHandle),
    /// After an internal error it neither measures nor delivers.
    Dormant,
}

/// Runs until SHUTDOWN. `warnings` are logged after the registration.
///
/// # Errors
/// [`StartError`] when the registration fails. Later failures are logged.
pub async fn run(
    settings: Settings,
    warnings: Vec<String>,
    variables: &impl Variables,
) -> Result<(), StartError> {
    let runtime_api = variables.get("AWS_LAMBDA_RUNTIME_API").ok_or(StartError::NotLambda)?;
    let managed =
        variables.get("AWS_LAMBDA_INITIALIZATION_TYPE").as_deref() == Some("lambda-managed-instances");
    let api = Api::new(&runtime_api)?;
    // First of all: Lambda starts the runtime when every extension has registered.
    let registration = register(&api, managed).await?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let shared = match environment(&registration.function, &settings, variables) {
        Ok(environment) if settings.enabled => {
            Some(start(environment, &settings, variables, &api, &registration.identifier).await)
        }
        Ok(_) => None,
        Err(missing) => {
            tracing::error!("{missing} is missing or invalid: measurement disabled");
            None
        }
    };
    loop {
        match api.next(&registration.identifier).await {
            Ok(Event::Invoke { request_id, deadline_ms }) => {
                if let Some(shared) = &shared {
                    shared.with_agent(|agent| agent.on_invoke(&request_id, unix_us(), deadline_ms));
                    shared.invoked.notify_one();
                    print_if_due(shared);
                    deliver_if_due(shared);
                    upload_profiles(shared, &request_id);
                }
            }
            Ok(Event::Shutdown { deadline_ms }) => {
                if let Some(shared) = &shared {
                    shut_down(shared, Instant::now() + time_to_end(deadline_ms, unix_us() / 1_000)).await;
                }
                return Ok(());
            }
            Ok(Event::Other) => tracing::info!("unknown event ignored"),
            Err(error) => {
                tracing::warn!(%error, "cannot get the next event: retrying");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Registers for the events that the platform allows. Managed instances have no INVOKE event.
async fn register(api: &Api, managed: bool) -> Result<Registration, StartError> {
    let name = own_name();
    if !managed {
        match api.register(&name, &["INVOKE", "SHUTDOWN"]).await {
            Ok(registration) => return Ok(registration),
            Err(error @ ApiError::Rejected { .. }) => {
                tracing::warn!(%error, "cannot register for INVOKE events: registering for SHUTDOWN only");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(api.register(&name, &["SHUTDOWN"]).await?)
}

/// The name of our executable file, by which Lambda identifies the extension.
fn own_name() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .and_then(|path| Path::new(path).file_name())
        .map_or_else(|| "tailor-extension".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The environment in the header of each batch. The error is the name of a variable that is required and missing.
fn environment(
    function: &Function,
    settings: &Settings,
    variables: &impl Variables,
) -> Result<Environment, &'static str> {
    let get = |name| variables.get(name).filter(|value| !value.is_empty());
    let required = |name| get(name).ok_or(name);
    let memory_mb = required("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")?;
    Ok(Environment {
        id: new_environment_id(),
        account: function.account.clone().unwrap_or_default(),
        region: required("AWS_REGION").or_else(|missing| get("AWS_DEFAULT_REGION").ok_or(missing))?,
        function: function.name.clone().map_or_else(|| required("AWS_LAMBDA_FUNCTION_NAME"), Ok)?,
        version: function.version.clone().or_else(|| get("AWS_LAMBDA_FUNCTION_VERSION")).unwrap_or_default(),
        memory: Megabytes(memory_mb.parse().map_err(|_| "AWS_LAMBDA_FUNCTION_MEMORY_SIZE")?),
        architecture: if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 },
        runtime: String::new(),
        initialization_type: variables.get("AWS_LAMBDA_INITIALIZATION_TYPE").unwrap_or_default().into(),
        extension_version: env!("CARGO_PKG_VERSION").to_owned(),
        ephemeral_mb: settings.ephemeral_storage_mb.unwrap_or_default(),
        timeout_ms: 0,
    })
}

/// Starts measuring and subscribes to telemetry.
async fn start(
    environment: Environment,
    settings: &Settings,
    variables: &impl Variables,
    api: &Api,
    extension_id: &str,
) -> Rc<Shared> {
    let shipper = settings.endpoint.as_ref().and_then(|_| {
        Shipper::new(settings, variables)
            .inspect_err(|error| tracing::error!("deliveries to the collector disabled: {error}"))
            .ok()
    });
    let uploads_profiles = settings.profiles && shipper.is_some();
    let shared = Rc::new(Shared {
        profiles: uploads_profiles.then(|| Profiles::new(environment.clone())),
        share: environment.memory.share(),
        agent: RefCell::new(Agent::new(environment, settings)),
        shipper,
        state: RefCell::new(State::Idle),
        changed: Notify::new(),
        invoked: Notify::new(),
        log_summary: settings.log_summary,
    });
    if let Err(reason) = listen(&shared, api, extension_id, settings.telemetry_port).await {
        tracing::warn!(reason, "telemetry not available: durations are estimated");
        shared.with_agent(Agent::without_telemetry);
    }
    spawn(deliver_periodically(Rc::clone(&shared)));
    spawn({
        let shared = Rc::clone(&shared);
        async move {
            sleep(FIRST_REQUEST_TIME).await;
            shared.with_agent(Agent::begin_counting_kills);
        }
    });
    spawn({
        let shared = Rc::clone(&shared);
        async move { sampling::run(&*shared, &shared.invoked).await }
    });
    shared
}

/// Binds the port before it subscribes, because Lambda may deliver at once.
async fn listen(shared: &Rc<Shared>, api: &Api, extension_id: &str, port: u16) -> Result<(), String> {
    let socket =
        listener::bind(port).await.map_err(|error| format!("cannot bind a port for telemetry: {error}"))?;
    let port = socket.local_addr().map_err(|error| error.to_string())?.port();
    let mut bodies = listener::serve(socket);
    let subscription =
        listener::subscribe(api, extension_id, port).await.map_err(|error| error.to_string())?;
    let shared = Rc::clone(shared);
    spawn(async move {
        while let Some(body) = bodies.recv().await {
            shared.with_agent(|agent| agent.on_telemetry(&body, unix_us()));
            shared.changed.notify_waiters();
            print_if_due(&shared);
            deliver_if_due(&shared);
        }
    });
    match subscription {
        Subscription::Accepted => Ok(()),
        Subscription::Rejected(status) => Err(format!("the Telemetry API responded with {status}")),
    }
}

impl Shared {
    fn is_dormant(&self) -> bool {
        matches!(*self.state.borrow(), State::Dormant)
    }

    fn is_delivering(&self) -> bool {
        matches!(*self.state.borrow(), State::Delivering(_))
    }

    /// Runs `action`, unless the extension is dormant. If it panics, the extension becomes dormant instead of ending.
    fn with_agent(&self, action: impl FnOnce(&mut Agent)) {
        if self.is_dormant() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| action(&mut self.agent.borrow_mut())));
        if outcome.is_err() {
            self.state.replace(State::Dormant);
            tracing::error!("internal error: measurement disabled; the function is not affected");
        }
    }

    /// The delivery in progress ended.
    fn end_delivery(&self) {
        if self.is_delivering() {
            self.state.replace(State::Idle);
        }
        self.changed.notify_waiters();
    }

    /// Stops the delivery in progress. If the batch arrived, the collector drops the repeated one.
    fn abort_delivery(&self) {
        if let State::Delivering(delivery) = self.state.replace(State::Idle) {
            delivery.abort();
        }
    }

    /// Prints the lines that are due. A failed write is ignored.
    fn print(&self) {
        let mut lines = vec![];
        self.with_agent(|agent| lines = agent.take_lines());
        let mut out = std::io::stdout().lock();
        lines.iter().for_each(|line| drop(writeln!(out, "{line}")));
    }
}

/// Prints the lines that are due, in a task beside the running handler.
fn print_if_due(shared: &Rc<Shared>) {
    if shared.is_dormant() {
        return;
    }
    let summary = shared.log_summary && shared.agent.borrow().summary_is_due();
    if summary || shared.agent.borrow().has_lines() {
        let shared = Rc::clone(shared);
        spawn(async move {
            // The next event is requested first: Lambda bills the time until then.
            yield_now().await;
            if summary {
                shared.with_agent(|agent| agent.summarize(unix_us()));
            }
            shared.print();
        });
    }
}

/// Reads the last counters, waits for the last report and delivers everything.
async fn shut_down(shared: &Rc<Shared>, deadline: Instant) {
    if let Some(profiles) = &shared.profiles {
        profiles.abort();
    }
    shared.with_agent(Agent::on_shutdown);
    let report_deadline = (Instant::now() + LAST_REPORT_TIMEOUT).min(deadline);
    while !shared.is_dormant() && shared.agent.borrow().awaits_report() {
        if timeout_at(report_deadline, shared.changed.notified()).await.is_err() {
            break;
        }
    }
    shared.with_agent(Agent::finish);
    if shared.log_summary {
        shared.with_agent(|agent| agent.summarize(unix_us()));
    }
    shared.print();
    // At the deadline the extension ends, delivered or not.
    let deliveries = async {
        deliver_all(shared, deadline).await;
        upload_last_profiles(shared).await;
    };
    let _ = timeout_at(deadline, deliveries).await;
    if let Some(profiles) = &shared.profiles {
        profiles.log_not_uploaded();
    }
    let undelivered = shared.agent.borrow().undelivered();
    if shared.shipper.is_some() && undelivered > 0 {
        tracing::warn!(
            undelivered,
            "invocations lost: the collector could not be reached before the environment ended"
        );
    }
}

/// The time for SHUTDOWN. A wrong clock, as after a thaw, must not prevent the last delivery.
fn time_to_end(deadline_ms: u64, now_ms: u64) -> Duration {
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms));
    if left.is_zero() || left > MAX_SHUTDOWN {
        DEFAULT_SHUTDOWN
    } else {
        left.saturating_sub(SHUTDOWN_RESERVE)
    }
}

async fn deliver_periodically(shared: Rc<Shared>) {
    loop {
        sleep(DELIVERY_CHECK_INTERVAL).await;
        shared.with_agent(Agent::measure_utilization);
        deliver_if_due(&shared);
    }
}

impl Sampler for Shared {
    fn pause(&self) -> Option<Duration> {
        if self.is_dormant() { None } else { self.agent.borrow().sample_pause() }
    }

    fn quick_sample(&self) {
        self.with_agent(Agent::quick_sample);
    }

    fn sample(&self) {
        self.with_agent(Agent::sample);
    }
}

/// Starts a delivery in a task beside the running handler, unless one is in progress or none is due.
fn deliver_if_due(shared: &Rc<Shared>) {
    let Some(shipper) = &shared.shipper else { return };
    let is_idle = matches!(*shared.state.borrow(), State::Idle);
    if !is_idle || !shipper.is_ready() || !shared.agent.borrow().is_due() {
        return;
    }
    let task = spawn({
        let shared = Rc::clone(shared);
        async move {
            // As in `print_if_due`.
            yield_now().await;
            deliver_one(&shared).await;
            shared.end_delivery();
        }
    });
    shared.state.replace(State::Delivering(task.abort_handle()));
}

/// Takes the profiles of the invocation before this one, and uploads them in a task beside the running handler. An upload in
/// progress continues with them.
fn upload_profiles(shared: &Rc<Shared>, request_id: &str) {
    let Some(profiles) = &shared.profiles else { return };
    profiles.on_invoke(request_id, unix_us());
    let uploads = !profiles.is_uploading();
    let task_shared = Rc::clone(shared);
    let task = spawn(async move {
        let shared = task_shared;
        // As in `print_if_due`.
        yield_now().await;
        let (Some(profiles), Some(shipper)) = (&shared.profiles, &shared.shipper) else { return };
        if shared.is_dormant() {
            return;
        }
        profiles.collect();
        if uploads {
            let before_bytes = own_file_bytes();
            profiles.upload(shipper, || Pace::of_share(shared.share)).await;
            shared.with_agent(|agent| agent.count_sent(own_file_bytes() - before_bytes));
        }
    });
    if uploads {
        profiles.set_task(task.abort_handle());
    }
}

/// Uploads the profiles that are left. No handler runs.
async fn upload_last_profiles(shared: &Shared) {
    let (Some(profiles), Some(shipper)) = (&shared.profiles, &shared.shipper) else { return };
    if !shared.is_dormant() {
        profiles.collect_last();
        profiles.upload(shipper, Pace::unlimited).await;
    }
}

/// Delivers one batch. `true` when there was one and the collector responded.
async fn deliver_one(shared: &Shared) -> bool {
    let Some(shipper) = &shared.shipper else { return false };
    let mut sealed = None;
    shared.with_agent(|agent| sealed = agent.seal(unix_us()));
    let Some(sealed) = sealed else { return false };
    let outcome = shipper.deliver(&sealed).await;
    shared.with_agent(|agent| agent.settle(&sealed, outcome));
    !matches!(outcome, DeliveryOutcome::Failed { .. })
}

/// Delivers everything by `deadline`, or stops at the second failure. A connection that broke during the freeze gives
/// no response, so each wait is only a part of the time: a new connection may still succeed in the rest.
async fn deliver_all(shared: &Shared, deadline: Instant) {
    let Some(shipper) = &shared.shipper else { return };
    let left = || deadline.saturating_duration_since(Instant::now());
    let abort_at = Instant::now() + left() / 3;
    while shared.is_delivering() {
        if timeout_at(abort_at, shared.changed.notified()).await.is_err() {
            shared.abort_delivery();
        }
    }
    let mut failures = 0;
    while failures < 2 && !shared.is_dormant() && !shared.agent.borrow().is_delivered() {
        shipper.limit_tries(left() / 2);
        if !deliver_one(shared).await {
            failures += 1;
        }
    }
}

#[cfg(test)]
mod tests;
