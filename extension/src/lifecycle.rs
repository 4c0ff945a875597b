//! The extension's life: register, subscribe, then one event after the other until SHUTDOWN.
//!
//! Two rules stand above all else. The next event is asked for at once, because waiting is billed. And the
//! process never ends before SHUTDOWN, because that fails the function: whatever breaks inside leaves it
//! dormant, asking for events and doing nothing else.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_proto::batch::Environment;
use tailor_sizing::units::{Architecture, Megabytes};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::agent::{Agent, new_environment_id};
use crate::deliver::shipper::{DeliveryOutcome, Shipper};
use crate::lambda::extensions_api::{Api, ApiError, Event, Function, Registration};
use crate::lambda::listener::{self, Subscription};
use crate::lambda::telemetry;
use crate::measure::ticker::{self, Looks};
use crate::settings::{Settings, Variables};

/// The most that is waited at SHUTDOWN for the last `platform.report`; it comes after 5 ms on average.
const LAST_REPORT_LIMIT: Duration = Duration::from_millis(300);

/// What is left of the SHUTDOWN deadline when we end, so that the kill never catches us writing.
const SHUTDOWN_RESERVE: Duration = Duration::from_millis(150);

/// The most that Lambda gives extensions to end; a deadline further away was read by a clock that is off.
const SHUTDOWN_MOST: Duration = Duration::from_secs(2);

/// What we take when the deadline cannot be believed: runtimes may take 600 ms of the two seconds first.
const SHUTDOWN_UNKNOWN: Duration = Duration::from_millis(1_200);

/// How often something that waits to be sent is looked at while the environment runs. On demand an INVOKE
/// does that; this is for managed instances, which do not freeze, and for invocations of minutes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Pause between tries of a `next` that failed at once, so that a broken API does not cost a whole CPU.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Registration could not be had; the platform reports the rest.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Started by something other than Lambda.
    #[error("AWS_LAMBDA_RUNTIME_API is not set: this program runs as a Lambda extension only")]
    NotLambda,
    /// Lambda refused every set of events.
    #[error("cannot register with the extensions API: {0}")]
    Register(#[from] ApiError),
}

/// Everything the tasks of this one thread share.
struct Shared {
    agent: RefCell<Agent>,
    shipper: Option<Shipper>,
    shipping: Cell<bool>,
    /// The delivery under way.
    delivery: RefCell<Option<AbortHandle>>,
    /// The platform promised telemetry.
    subscribed: Cell<bool>,
    dormant: Cell<bool>,
    /// Telemetry came, or a delivery ended.
    changed: Notify,
    /// An invocation began.
    invoked: Notify,
    log_summary: bool,
}

/// Runs until SHUTDOWN.
///
/// # Errors
/// [`StartError`] when registration is impossible; nothing after it is an error.
pub async fn run(
    settings: Settings,
    complaints: Vec<String>,
    variables: &impl Variables,
) -> Result<(), StartError> {
    let runtime_api = variables.get("AWS_LAMBDA_RUNTIME_API").ok_or(StartError::NotLambda)?;
    let managed =
        variables.get("AWS_LAMBDA_INITIALIZATION_TYPE").as_deref() == Some("lambda-managed-instances");
    let api = Api::new(&runtime_api)?;
    // Nothing comes before this: the runtime is not started until every extension has registered.
    let registration = register(&api, managed).await?;
    for complaint in complaints {
        tracing::warn!("{complaint}");
    }
    let shared = match environment(&registration.function, &settings, variables) {
        Some(environment) if settings.enabled => {
            Some(start(environment, &settings, variables, &api, &registration.identifier).await)
        }
        Some(_) => None,
        None => {
            tracing::error!(
                "AWS_REGION or AWS_LAMBDA_FUNCTION_MEMORY_SIZE is missing or odd: measuring nothing"
            );
            None
        }
    };
    loop {
        match api.next(&registration.identifier).await {
            Ok(Event::Invoke { request_id, deadline_ms }) => {
                if let Some(shared) = &shared {
                    shared.guarded(|agent| agent.invoked(&request_id, unix_us(), deadline_ms));
                    shared.invoked.notify_one();
                    tell_if_due(shared);
                    ship_if_due(shared);
                }
            }
            Ok(Event::Shutdown { deadline_ms }) => {
                if let Some(shared) = &shared {
                    shut_down(shared, Instant::now() + time_to_end(deadline_ms, unix_us() / 1_000)).await;
                }
                return Ok(());
            }
            Ok(Event::Other) => tracing::info!("an event of a kind that is not known is passed over"),
            Err(error) => {
                tracing::warn!(%error, "cannot get the next event, trying again");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Registers for what the platform allows: managed instances know no INVOKE event.
async fn register(api: &Api, managed: bool) -> Result<Registration, StartError> {
    let name = own_name();
    if !managed {
        match api.register(&name, &["INVOKE", "SHUTDOWN"]).await {
            Ok(registration) => return Ok(registration),
            Err(error) => tracing::warn!(%error, "INVOKE events are refused: registering for SHUTDOWN only"),
        }
    }
    Ok(api.register(&name, &["SHUTDOWN"]).await?)
}

/// The platform knows extensions by the names of their files.
fn own_name() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .and_then(|path| Path::new(path).file_name())
        .map_or_else(|| "tailor-extension".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Who we are measuring; `None` when Lambda's own variables are not there.
fn environment(function: &Function, settings: &Settings, variables: &impl Variables) -> Option<Environment> {
    let memory_mb = variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")?.parse().ok()?;
    Some(Environment {
        id: new_environment_id(),
        account: function.account_id.clone().unwrap_or_default(),
        region: variables.get("AWS_REGION")?,
        function: function.function_name.clone(),
        version: function.function_version.clone(),
        memory: Megabytes(memory_mb),
        architecture: if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 },
        runtime: String::new(),
        initialization_type: variables.get("AWS_LAMBDA_INITIALIZATION_TYPE").unwrap_or_default(),
        extension_version: env!("CARGO_PKG_VERSION").to_owned(),
        ephemeral_mb: settings.ephemeral_storage_mb.unwrap_or_default(),
        timeout_ms: 0,
    })
}

/// Begins to measure and listens for telemetry.
async fn start(
    environment: Environment,
    settings: &Settings,
    variables: &impl Variables,
    api: &Api,
    extension_id: &str,
) -> Rc<Shared> {
    let shipper = settings.endpoint.as_ref().and_then(|_| {
        Shipper::new(settings, variables)
            .inspect_err(|error| tracing::error!("nothing is sent to the collector: {error}"))
            .ok()
    });
    let shared = Rc::new(Shared {
        agent: RefCell::new(Agent::new(environment, settings)),
        shipper,
        shipping: Cell::new(false),
        delivery: RefCell::new(None),
        subscribed: Cell::new(false),
        dormant: Cell::new(false),
        changed: Notify::new(),
        invoked: Notify::new(),
        log_summary: settings.log_summary,
    });
    match listen(&shared, api, extension_id, settings.telemetry_port).await {
        Ok(()) => shared.subscribed.set(true),
        Err(reason) => {
            tracing::warn!(reason, "no telemetry: durations will be estimates");
            shared.guarded(Agent::without_telemetry);
        }
    }
    tokio::task::spawn_local(look_regularly(Rc::clone(&shared)));
    tokio::task::spawn_local({
        let shared = Rc::clone(&shared);
        async move { ticker::run(&*shared, &shared.invoked).await }
    });
    shared
}

/// Binds first, then subscribes: Lambda may deliver at once.
async fn listen(shared: &Rc<Shared>, api: &Api, extension_id: &str, port: u16) -> Result<(), String> {
    let socket = listener::bind(port).await.map_err(|error| format!("no port can be bound: {error}"))?;
    let port = socket.local_addr().map_err(|error| error.to_string())?.port();
    let mut bodies = listener::serve(socket);
    let subscription =
        listener::subscribe(api, extension_id, port).await.map_err(|error| error.to_string())?;
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        while let Some(body) = bodies.recv().await {
            shared.guarded(|agent| agent.delivered(telemetry::decode(&body), unix_us()));
            shared.changed.notify_waiters();
            tell_if_due(&shared);
            ship_if_due(&shared);
        }
    });
    match subscription {
        Subscription::Accepted => Ok(()),
        Subscription::Refused(status) => Err(format!("the platform answers the subscription with {status}")),
    }
}

impl Shared {
    /// Runs `action`; should it panic, the extension turns dormant instead of ending.
    fn guarded(&self, action: impl FnOnce(&mut Agent)) {
        if self.dormant.get() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| action(&mut self.agent.borrow_mut())));
        if outcome.is_err() {
            self.dormant.set(true);
            tracing::error!("an inner failure: measuring stops, the function goes on");
        }
    }

    /// Prints what there is to tell. A log that does not take it is no reason to fail.
    fn print(&self) {
        let mut lines = vec![];
        self.guarded(|agent| lines = agent.take_lines());
        let mut out = std::io::stdout().lock();
        lines.iter().for_each(|line| drop(writeln!(out, "{line}")));
    }
}

/// Prints what there is to tell, beside the running handler.
fn tell_if_due(shared: &Rc<Shared>) {
    if shared.dormant.get() {
        return;
    }
    let summary = shared.log_summary && shared.agent.borrow().summary_is_due();
    if summary || shared.agent.borrow().has_lines() {
        let shared = Rc::clone(shared);
        tokio::task::spawn_local(async move {
            if summary {
                shared.guarded(|agent| agent.summarise(unix_us()));
            }
            shared.print();
        });
    }
}

/// Reads the last counters, takes the last report and delivers what is left.
async fn shut_down(shared: &Rc<Shared>, deadline: Instant) {
    shared.guarded(Agent::shutting_down);
    let report_deadline = (Instant::now() + LAST_REPORT_LIMIT).min(deadline);
    while shared.subscribed.get() && !shared.dormant.get() && shared.agent.borrow().awaits_report() {
        if timeout_at(report_deadline, shared.changed.notified()).await.is_err() {
            break;
        }
    }
    shared.guarded(Agent::finish);
    if shared.log_summary {
        shared.guarded(|agent| agent.summarise(unix_us()));
    }
    shared.print();
    // Whether it was delivered or not, the deadline decides.
    let _ = timeout_at(deadline, ship_all(shared, deadline)).await;
    let undelivered = shared.agent.borrow().undelivered();
    if shared.shipper.is_some() && undelivered > 0 {
        tracing::warn!(undelivered, "invocations end with this environment: the collector was not reached");
    }
}

/// How long we may take at SHUTDOWN. A clock that is off, as after a thaw, must not cost the last delivery.
fn time_to_end(deadline_ms: u64, now_ms: u64) -> Duration {
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms));
    if left.is_zero() || left > SHUTDOWN_MOST {
        SHUTDOWN_UNKNOWN
    } else {
        left.saturating_sub(SHUTDOWN_RESERVE)
    }
}

async fn look_regularly(shared: Rc<Shared>) {
    loop {
        sleep(LOOK_INTERVAL).await;
        ship_if_due(&shared);
    }
}

/// Looks inside invocations while they run.
impl Looks for Shared {
    fn pause(&self) -> Option<Duration> {
        if self.dormant.get() { None } else { self.agent.borrow().tick_pause() }
    }

    fn look_back(&self) {
        self.guarded(Agent::look_back);
    }

    fn tick(&self) {
        self.guarded(Agent::tick);
    }
}

/// Starts a delivery beside the running handler, unless one is under way or nothing is due.
fn ship_if_due(shared: &Rc<Shared>) {
    let Some(shipper) = &shared.shipper else { return };
    if shared.dormant.get() || shared.shipping.get() || !shipper.is_ready() || !shared.agent.borrow().is_due()
    {
        return;
    }
    shared.shipping.set(true);
    let task = tokio::task::spawn_local({
        let shared = Rc::clone(shared);
        async move {
            ship_one(&shared).await;
            shared.shipping.set(false);
            shared.changed.notify_waiters();
        }
    });
    shared.delivery.replace(Some(task.abort_handle()));
}

/// Delivers one batch; tells whether there was one and the collector answered.
async fn ship_one(shared: &Shared) -> bool {
    let Some(shipper) = &shared.shipper else { return false };
    let mut sealed = None;
    shared.guarded(|agent| sealed = agent.seal(unix_us()));
    let Some(sealed) = sealed else { return false };
    let outcome = shipper.deliver(&sealed).await;
    shared.guarded(|agent| agent.settle(&sealed, outcome));
    !matches!(outcome, DeliveryOutcome::Failed { .. })
}

/// Delivers everything by `deadline`, or stops at the second failure. A connection that fell silent in the freeze
/// must not cost what a new one could still carry, so nothing is waited for until the end.
async fn ship_all(shared: &Shared, deadline: Instant) {
    let Some(shipper) = &shared.shipper else { return };
    let left = || deadline.saturating_duration_since(Instant::now());
    let patience = Instant::now() + left() / 3;
    while shared.shipping.get() {
        if timeout_at(patience, shared.changed.notified()).await.is_err() {
            // Should it have arrived after all, the collector drops the repetition.
            if let Some(delivery) = shared.delivery.take() {
                delivery.abort();
            }
            shared.shipping.set(false);
        }
    }
    let mut failures = 0;
    while failures < 2 && !shared.dormant.get() && !shared.agent.borrow().is_delivered() {
        shipper.limit_tries(left() / 2);
        if !ship_one(shared).await {
            failures += 1;
        }
    }
}

/// Microseconds since the Unix epoch; a clock before it reads as zero.
fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_does_not_cost_the_last_delivery() {
        let left = |ms: u64| u64::try_from(time_to_end(10_000 + ms, 10_000).as_millis()).unwrap();
        assert_eq!([left(2_000), left(1_393), left(100)], [1_850, 1_243, 0]);
        // Two and a half seconds ahead, and a minute behind.
        assert_eq!(time_to_end(10_000, 12_500), SHUTDOWN_UNKNOWN);
        assert_eq!(time_to_end(72_000, 10_000), SHUTDOWN_UNKNOWN);
    }
}
