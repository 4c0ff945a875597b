//! The Inits of the environment, and the class of each invocation: see [`Initialization`].

use std::collections::VecDeque;

use agent_proto::batch::InitializationType;
use tailor_sizing::telemetry::invocation::Initialization;

use super::entry::{Entry, microseconds};
use crate::lambda::record_time::RecordTime;
use crate::lambda::telemetry::InitReport;

/// The phase of an Init inside an invocation, in telemetry.
const INSIDE: &str = "invoke";

/// The most Inits inside invocations that are kept until their invocation is reported. Only one runs at a time.
const MAX_INITS: usize = 8;

/// How much longer than its invocation an Init inside it may be, microseconds: the platform measures both.
const DURATION_TOLERANCE_US: u64 = 10_000;

/// How far the end of an Init may be outside of its invocation, microseconds: the records of both are written one after the
/// other.
pub(super) const TIME_TOLERANCE_US: u64 = 1_000_000;

/// The time between the end of an Init and the first invocation from which the environment was initialized ahead,
/// microseconds. An invocation that waits for the Init begins some milliseconds after it.
const PROACTIVE_US: u64 = 1_000_000;

/// The Inits of the environment.
#[derive(Debug, Default)]
pub(super) struct Inits {
    initialization_type: Option<InitializationType>,
    /// An Init inside an invocation began.
    is_inside: bool,
    /// The Init before the first invocation.
    before: Option<Ended>,
    /// Inits inside invocations that are not reported yet.
    inside: VecDeque<Ended>,
}

/// An Init that ended.
#[derive(Debug)]
struct Ended {
    at: RecordTime,
    took_us: u64,
    timed_out: bool,
    error_type: Option<String>,
}

/// How the environment was initialized for one invocation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) class: Initialization,
    /// The duration of the Init that belongs to the invocation, microseconds; zero without one.
    pub(super) took_us: u64,
    /// Why it failed.
    pub(super) error_type: Option<String>,
}

impl Inits {
    pub(super) fn set_type(&mut self, initialization_type: InitializationType) {
        self.initialization_type = Some(initialization_type);
    }

    /// Whether an Init inside an invocation began in this environment: the processes before it were ended.
    pub(super) const fn is_inside(&self) -> bool {
        self.is_inside
    }

    pub(super) fn is_managed_instances(&self) -> bool {
        self.initialization_type == Some(InitializationType::ManagedInstances)
    }

    /// `platform.initStart`.
    pub(super) fn on_start(&mut self, phase: Option<&str>) {
        self.is_inside |= phase == Some(INSIDE);
    }

    /// `platform.initReport`, recorded at `at`.
    pub(super) fn on_report(&mut self, report: &InitReport, at: RecordTime) {
        let ended = Ended {
            at,
            took_us: report.duration_ms.map_or(0, microseconds),
            timed_out: report.status.as_deref() == Some("timeout"),
            error_type: report.error_type.clone(),
        };
        // Without a readable phase it is the one that began.
        if report.phase.as_deref().map_or(self.is_inside, |phase| phase == INSIDE) {
            self.is_inside = true;
            if self.inside.len() == MAX_INITS {
                self.inside.pop_front();
            }
            self.inside.push_back(ended);
        } else {
            self.before = Some(ended);
        }
    }

    /// How the environment was initialized for this invocation. An Init inside it belongs to no other.
    pub(super) fn take_for(&mut self, entry: &Entry) -> Init {
        let inside = self.inside.iter().position(|init| init.is_inside(entry));
        if let Some(ended) = inside.and_then(|index| self.inside.remove(index)) {
            let Ended { took_us, error_type, .. } = ended;
            return Init { class: Initialization::InsideInvocation, took_us, error_type };
        }
        let class = self.class_without_init_inside(entry);
        let reported =
            entry.report.as_ref().map(|report| report.metrics.init_duration_ms.map_or(0, microseconds));
        let took_us = match class {
            Initialization::OnDemand | Initialization::Proactive => {
                reported.or_else(|| self.before.as_ref().map(|before| before.took_us))
            }
            _ => reported,
        };
        Init { class, took_us: took_us.unwrap_or_default(), error_type: None }
    }

    fn class_without_init_inside(&self, entry: &Entry) -> Initialization {
        let metrics = entry.report.as_ref().map(|report| report.metrics).unwrap_or_default();
        let is_restored = metrics.restore_duration_ms.is_some_and(|restore_ms| restore_ms > 0.0);
        let is_first = entry.is_first || metrics.init_duration_ms.is_some() || is_restored;
        match &self.initialization_type {
            _ if !is_first => Initialization::Warm,
            Some(InitializationType::ManagedInstances) => Initialization::Warm,
            Some(InitializationType::ProvisionedConcurrency) => Initialization::ProvisionedConcurrency,
            Some(InitializationType::SnapStart) => Initialization::SnapStart,
            _ if is_restored => Initialization::SnapStart,
            _ if self.was_initialized_ahead(entry) => Initialization::Proactive,
            _ => Initialization::OnDemand,
        }
    }

    /// Whether the environment was ready long before the invocation began.
    fn was_initialized_ahead(&self, entry: &Entry) -> bool {
        let ended_us = self.before.as_ref().map_or(u64::MAX, |before| before.at.latest_us());
        entry.started_at_us > ended_us.saturating_add(PROACTIVE_US)
    }
}

impl Ended {
    /// Whether it ran inside this invocation. An Init that the report has itself ran before it.
    fn is_inside(&self, entry: &Entry) -> bool {
        let Some(report) = &entry.report else { return entry.is_first || entry.invoke.is_none() };
        let duration_us = report.metrics.duration_ms.map(microseconds);
        // The platform needs a moment to end an Init that ran into the timeout.
        let timed_out = self.timed_out || report.status.as_deref() == Some("timeout");
        let fits = timed_out
            || duration_us.is_none_or(|us| self.took_us <= us.saturating_add(DURATION_TOLERANCE_US));
        let (from, to) = (entry.reported_at.earliest_us(), entry.reported_at.latest_us());
        let from = from.saturating_sub(duration_us.unwrap_or(u64::MAX)).saturating_sub(TIME_TOLERANCE_US);
        report.metrics.init_duration_ms.is_none()
            && fits
            && (entry.is_first || self.at.may_be_between(from, to.saturating_add(TIME_TOLERANCE_US)))
    }
}
