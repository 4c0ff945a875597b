//! Finds new events: recommendations, losses, changes of the tuner, freezes and differences of the bill.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tailor_push::webhook::{
    Advice, AdviceEvent, BillDifference, Content, CurrentAdvice, Event, Freeze, Function, KnownAdvice,
    LossState, Losses, Outbox, SizeChange, advice_event,
};
use tailor_sizing::pricing::money::PicoDollars;

use crate::changes::{self, Change, State, fleet};
use crate::http::App;
use crate::query::{DEFAULT_STRATEGY, last_hours};
use crate::report::FunctionReport;
use crate::report::losses::Losses as ReportedLosses;
use crate::store::{ChangeEvent, FunctionKey, StoreError, SummaryKind, SummaryRow, Tenant};

/// The window of recommendations, hours.
const ADVICE_HOURS: u64 = 30 * 24;

/// The window of losses, hours.
const LOSS_HOURS: u64 = 24;

/// Functions from which on recommendations of unknown functions are removed. Summaries can be absent for a short time.
const MAX_KNOWN: usize = 20_000;

/// The states of a change that are events. In the others it moves from step to step.
const STATES: [State; 8] = [
    State::Planned,
    State::Soaking,
    State::Settled,
    State::RollingBack,
    State::Quarantined,
    State::Blocked,
    State::ExternalChange,
    State::Frozen,
];

/// Searches for events.
pub(super) struct Finder<'a> {
    pub(super) app: &'a App,
    pub(super) tenant: &'a Tenant,
    /// Smaller savings are not events.
    pub(super) min_saving: PicoDollars,
}

impl Finder<'_> {
    /// Adds what is new to the queue. The first time, what exists is only taken as known. Returns the number of events that
    /// were dropped, because the queue was full.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub(super) async fn find(&self, outbox: &mut Outbox) -> Result<u64, StoreError> {
        let now_us = self.app.clock.now_us();
        let is_first = !outbox.has_baseline;
        let mut events = Vec::from_iter(self.losses(outbox, is_first, now_us).await?);
        events.extend(self.changes(outbox).await?);
        events.extend(self.bill(outbox, now_us));
        if is_first {
            events.clear();
        }
        events.extend(self.advice(outbox, is_first, now_us).await?);
        outbox.has_baseline = true;
        let mut dropped = 0;
        for event in &events {
            match outbox.push(event, now_us) {
                Ok(count) => dropped += count,
                Err(error) => tracing::error!(%error, "cannot write an event for the webhook"),
            }
        }
        Ok(dropped)
    }

    fn event(&self, at_us: u64, unique: &[&str], content: Content) -> Event {
        Event::new(&self.tenant.0, at_us, unique, content.bounded())
    }

    async fn advice(
        &self,
        outbox: &mut Outbox,
        is_first: bool,
        now_us: u64,
    ) -> Result<Vec<Event>, StoreError> {
        let kind = SummaryKind { hours: ADVICE_HOURS, strategy: DEFAULT_STRATEGY.to_owned() };
        let rows = self.app.store.summaries(self.tenant, &kind).await?;
        let mut current: BTreeMap<String, (SummaryRow, CurrentAdvice)> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for row in rows {
            let name = name_of(&row.function);
            names.insert(name.clone());
            if let Some(advised) = &row.advised {
                let advice = CurrentAdvice {
                    memory_mb: row.memory.0,
                    recommended_mb: advised.memory.0,
                    saving: row.saving,
                };
                current.insert(name, (row, advice));
            }
        }
        if outbox.advice.len() > MAX_KNOWN {
            outbox.advice.retain(|name, _| names.contains(name));
        }
        if is_first {
            let known = current.into_iter().map(|(name, (_, advice))| (name, advice.known(0)));
            outbox.advice = known.collect();
            return Ok(vec![]);
        }
        let new = current.into_iter().filter_map(|(name, (row, advice))| {
            let event = advice_event(outbox.advice.get(&name), &advice, self.min_saving, now_us)?;
            Some((name, row, advice, event))
        });
        let mut new: Vec<_> = new.collect();
        // What functions need comes first, then the largest savings.
        new.sort_by_key(|(name, _, advice, _)| {
            (!advice.is_for_memory(), Reverse(advice.saving), name.clone())
        });
        let mut events = vec![];
        for (name, row, advice, event) in new {
            if !outbox.may_advise(now_us) {
                break;
            }
            let previous = outbox.advice.insert(name.clone(), advice.known(now_us));
            let content = self.advice_content(&row, &advice, previous.as_ref(), &kind).await?;
            let content = match event {
                AdviceEvent::New => Content::AdviceNew(content),
                AdviceEvent::Changed => Content::AdviceChanged(content),
            };
            events.push(self.event(now_us, &[&name, &now_us.to_string()], content));
        }
        Ok(events)
    }

    async fn advice_content(
        &self,
        row: &SummaryRow,
        advice: &CurrentAdvice,
        previous: Option<&KnownAdvice>,
        kind: &SummaryKind,
    ) -> Result<Advice, StoreError> {
        let keys = std::slice::from_ref(&row.function);
        let report = self.app.store.summary_reports(self.tenant, keys, kind).await?.pop().flatten();
        let report = report.and_then(|text| serde_json::from_slice::<FunctionReport>(&text).ok());
        let advised = row.advised.as_ref();
        Ok(Advice {
            function: function_of(&row.function),
            memory_mb: advice.memory_mb,
            recommended_memory_mb: advice.recommended_mb,
            saving_pico_usd: advice.saving,
            cost_change_percent: advised.map_or(0.0, |advised| advised.cost_change_percent),
            duration_change_percent: advised.map_or(0.0, |advised| advised.duration_change_percent),
            reasons: report.map(|report| report.advice.reasons).unwrap_or_default(),
            previous_recommended_memory_mb: previous.map(|known| known.recommended_mb),
            previous_saving_pico_usd: previous.map(|known| known.saving),
        })
    }

    async fn losses(
        &self,
        outbox: &mut Outbox,
        is_first: bool,
        now_us: u64,
    ) -> Result<Option<Event>, StoreError> {
        let window = last_hours(now_us, LOSS_HOURS);
        let environments = self.app.store.environments(self.tenant, None, window).await?;
        let found = ReportedLosses::of(&environments, window.from_us(), now_us);
        let losses = Losses {
            invocations: found.invocations,
            abandoned_invocations: found.abandoned,
            batches: found.batches,
            platform_records: found.platform_records,
            undecodable_records: found.undecodable_records,
            damaged_rows: self.app.store.damage().rows,
        };
        if is_first {
            outbox.losses = LossState::known(losses);
        }
        let lost = outbox.losses.next_event(losses, now_us);
        Ok(lost.map(|lost| self.event(now_us, &[&now_us.to_string()], Content::Lost(lost))))
    }

    async fn changes(&self, outbox: &mut Outbox) -> Result<Vec<Event>, StoreError> {
        let log = self.app.store.changes(self.tenant, None).await?;
        let mut found = vec![];
        for event in log.iter().filter(|event| fleet::is_fleet(&event.function)) {
            found.extend(self.freeze(event));
        }
        for change in changes::fold(log) {
            found.extend(self.steps(&change));
        }
        found.sort_by_key(|event| event.at_us);
        let mut new = vec![];
        for event in found {
            if outbox.is_new_change(event.at_us, &event.id) {
                new.push(event);
            }
        }
        outbox.remove_old_changes();
        Ok(new)
    }

    fn freeze(&self, event: &ChangeEvent) -> Option<Event> {
        let reason = event.detail.get("reason").and_then(serde_json::Value::as_str).unwrap_or_default();
        let freeze = Freeze { reason: reason.to_owned() };
        let content = match event.kind.as_str() {
            kind if kind == fleet::FleetAction::Freeze.code() => Content::Freeze(freeze),
            kind if kind == fleet::FleetAction::Unfreeze.code() => Content::Unfreeze(freeze),
            _ => return None,
        };
        Some(self.event(event.at_us, &[&event.change_id, &event.step.to_string()], content))
    }

    /// The steps with which a change entered a state that is an event.
    fn steps(&self, change: &Change) -> Vec<Event> {
        let mut previous = None;
        let mut events = vec![];
        for (number, step) in change.steps.iter().enumerate() {
            let entered = previous.replace(step.state) != Some(step.state);
            if !entered || !STATES.contains(&step.state) {
                continue;
            }
            let content = SizeChange {
                function: function_of(&change.function),
                change_id: change.id.clone(),
                state: step.state.code().to_owned(),
                from_memory_mb: change.from.0,
                to_memory_mb: change.to.0,
                predicted_cost_change_percent: change.intent.cost_change_percent,
                measured_cost_change_percent: change.measured_cost_change_percent(),
                reason: step.reason.clone(),
            };
            let content = if step.state.is_rolled_back() {
                Content::Rollback(content)
            } else {
                Content::Change(content)
            };
            let unique = [name_of(&change.function), change.id.clone(), number.to_string()];
            let unique = [unique[0].as_str(), &unique[1], &unique[2]];
            events.push(self.event(step.at_us, &unique, content));
        }
        events
    }

    /// The last comparison with the bill, when it is new and has differences that no reason explains.
    fn bill(&self, outbox: &mut Outbox, now_us: u64) -> Option<Event> {
        let found = match self.app.reconciliations.as_ref()?.get(self.tenant) {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!("cannot read the last comparison with the bill: {error:#}");
                return None;
            }
        };
        if std::mem::replace(&mut outbox.bill_at_us, found.at_us) == found.at_us {
            return None;
        }
        let total = found.total;
        if total.unexplained_pico_usd == PicoDollars::ZERO {
            return None;
        }
        let content = Content::BillDifference(BillDifference {
            from: found.from,
            to: found.to,
            billed_pico_usd: total.billed_pico_usd,
            computed_pico_usd: total.computed_pico_usd,
            unexplained_pico_usd: total.unexplained_pico_usd,
        });
        Some(self.event(now_us, &[&found.at_us.to_string()], content))
    }
}

/// A text for each function, the same at all times.
fn name_of(function: &FunctionKey) -> String {
    format!("{}/{}/{}", function.account, function.region, function.name)
}

fn function_of(key: &FunctionKey) -> Function {
    Function::new(&key.account, &key.region, &key.name)
}
