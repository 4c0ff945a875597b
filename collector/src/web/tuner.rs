//! The page of the tuner: what it would change, what it changed, and requests to it, each with a second step.

use std::sync::Arc;

use axum::extract::{Form, FromRequest, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::request::Parts;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::layout::{document, unbroken};
use super::{Page, page};
use crate::changes::{self, Change, State as ChangeState, fleet};
use crate::http::auth::PageReader;
use crate::http::error::ApiError;
use crate::http::{App, TunerView};
use crate::query::{Query, path_segment};
use crate::render::units::{change, instant};
use crate::store::{FunctionKey, Tenant};
use crate::tuner::latest_round::RoundResult;
use crate::tuner::mode::Mode;
use crate::tuner::plan::{Plan, PlannedFunction};
use crate::tuner::requests::TunerRequest;

/// Changes that are listed: the latest ones.
const MAX_LISTED: usize = 100;

/// What a person requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Freeze,
    Unfreeze,
    Rollback,
    Approve,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Rollback => "rollback",
            Self::Approve => "approve",
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Freeze => "Freeze the tuner",
            Self::Unfreeze => "Unfreeze the tuner",
            Self::Rollback => "Roll back a change",
            Self::Approve => "Approve a change",
        }
    }
}

/// An action, as links and forms contain it.
#[derive(Debug, Clone, Deserialize)]
pub struct Requested {
    action: Action,
    #[serde(default)]
    function: String,
    #[serde(default)]
    account: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    change: String,
    /// Digest of what was shown when the action was confirmed.
    #[serde(default)]
    shown: String,
}

impl Requested {
    /// The function that is meant. Its name alone may be that of several.
    fn key(&self) -> FunctionKey {
        FunctionKey {
            account: self.account.clone(),
            region: self.region.clone(),
            name: self.function.clone(),
        }
    }
}

/// `GET /changes`: the plan and the changes.
///
/// # Errors
/// 503 when the store cannot be read.
pub async fn changes(
    State(app): State<Arc<App>>,
    PageReader(tenant): PageReader,
    request: Request,
) -> Result<Response, Page> {
    let events = app.store.changes(&tenant, None).await.map_err(ApiError::from)?;
    let frozen = fleet::frozen(&events).map(|(_, reason)| reason);
    let mut all = changes::fold(events);
    all.sort_by_key(|change| std::cmp::Reverse(change.moved_at_us));
    let view = view_for(&app, &tenant);
    let (parts, _) = request.into_parts();
    let is_operator = view.is_some() && app.authenticate_operator(&parts).is_ok_and(|own| own == tenant);
    let waiting = match view {
        Some(view) => view.requests.pending().await.len(),
        None => 0,
    };
    let latest_round = view.map(|view| view.latest_round.get());
    let body = html! {
        p.crumb { a href="/" { "Fleet" } }
        h1 { "Changes of memory sizes" }
        (status(latest_round.as_deref(), frozen.as_deref(), waiting, is_operator))
        @if let Some(latest_round) = latest_round.filter(|latest_round| latest_round.at_us > 0) { (plan(&latest_round, is_operator)) }
        (list(&all, is_operator))
    };
    Ok(page(StatusCode::OK, &document("Changes", &body)))
}

fn view_for<'a>(app: &'a App, tenant: &Tenant) -> Option<&'a TunerView> {
    app.tuner.as_ref().filter(|view| view.tenant == *tenant)
}

/// The link to the first step of an action that concerns all functions.
fn link(action: Action) -> String {
    format!("/changes/confirm?action={}", action.name())
}

/// The link to the first step of an action on one function, and on one of its changes.
fn function_link(action: Action, function: &FunctionKey, change: &str) -> String {
    format!(
        "{}&function={}&account={}&region={}&change={}",
        link(action),
        path_segment(&function.name),
        path_segment(&function.account),
        path_segment(&function.region),
        path_segment(change)
    )
}

/// The name of a function with a link to its page, and its region and account: several functions may have the name.
fn linked_name(function: &FunctionKey) -> Markup {
    html! {
        a href=(Query::default().function_link(function)) { (function.name) }
        span.sub {
            // Regions do not break at their hyphens.
            (function.region.replace('-', "\u{2011}"))
            @if !function.account.is_empty() { " · " (function.account) }
        }
    }
}

/// A function in a sentence.
fn named(function: &FunctionKey) -> String {
    function.with_region_and_account(&format!("`{}`", function.name))
}

fn status(
    latest_round: Option<&RoundResult>,
    frozen: Option<&str>,
    waiting: usize,
    is_operator: bool,
) -> Markup {
    let mode = latest_round.map_or(Mode::Off, |latest_round| latest_round.mode);
    html! {
        section.card id="tuner" {
            h2 { "Tuner" }
            p {
                @match (latest_round, frozen) {
                    (None, _) => {
                        "No tuner runs in this collector. It is started with " code { "tailor serve --tuner MODE" } "."
                    }
                    (Some(_), Some(reason)) => { span.badge { "frozen" } " " (reason) }
                    (Some(latest_round), None) if latest_round.at_us == 0 => "Its first round has not ended.",
                    (Some(latest_round), None) => { "Mode " code { (mode) } ", latest round " (instant(latest_round.at_us)) "." }
                }
            }
            @if waiting > 0 { p { (waiting) " requests wait for the next round." } }
            @if is_operator {
                @let action = if frozen.is_some() { Action::Unfreeze } else { Action::Freeze };
                p { a.button href=(link(action)) { (action.heading()) " …" } }
            } @else if latest_round.is_some() {
                p.sub { "To freeze, roll back or approve, sign in with a key with the scope " code { "admin" } "." }
            }
        }
    }
}

/// What the latest round would change, and why the rest stays.
fn plan(latest_round: &RoundResult, is_operator: bool) -> Markup {
    let row = |planned: &PlannedFunction| {
        html! {
            tr {
                th scope="row" { (linked_name(&planned.function)) }
                td data-label="Change" {
                    @match &planned.intent {
                        Some(intent) => {
                            (unbroken(&format!("{} MB → {} MB", intent.from_mb, intent.to_mb)))
                            span.sub {
                                "cost " (change(intent.cost_change_percent)) ", time " (change(intent.duration_change_percent))
                            }
                        }
                        None => "none",
                    }
                }
                td data-label="Reasons" {
                    @for (code, reason) in &planned.refusals { span.sub { code { (code) } " " (reason) } }
                    @if is_operator && is_approvable(planned) {
                        a href=(function_link(Action::Approve, &planned.function, "")) { "Approve …" }
                    }
                }
            }
        }
    };
    html! {
        section.card id="plan" {
            h2 { "Plan" }
            p.sub {
                "Decided in the round of " (instant(latest_round.at_us)) ". A change that no guard-rail refuses is in the list of changes, or starts in the next round when the mode permits it."
            }
            @if latest_round.functions.is_empty() { p { "No change is advised for any function." } } @else {
                div.scroll {
                    table {
                        thead { tr { @for name in ["Function", "Change", "Reasons"] { th scope="col" { (name) } } } }
                        tbody {
                            @for planned in latest_round.functions.iter().filter(|it| is_shown(it)).take(MAX_LISTED) { (row(planned)) }
                        }
                    }
                }
            }
        }
    }
}

/// A change that was started in the round is in the list of changes.
fn is_shown(planned: &PlannedFunction) -> bool {
    planned.intent.is_some() || !planned.refusals.is_empty()
}

/// Whether a person may let this change start.
fn is_approvable(planned: &PlannedFunction) -> bool {
    planned.intent.is_some() && planned.refusals.iter().any(|(code, _)| code == "not-approved")
}

/// Whether a rollback of this change is possible: it is in force, and is the latest change in force of its function.
fn can_roll_back(all: &[Change], change: &Change) -> bool {
    let in_force = |change: &&Change| change.state.is_open() || change.state == ChangeState::Settled;
    let latest = all
        .iter()
        .filter(|other| other.function == change.function)
        .filter(in_force)
        .max_by(|one, other| one.id.cmp(&other.id));
    change.state != ChangeState::RollingBack && latest.is_some_and(|latest| latest.id == change.id)
}

fn list(all: &[Change], is_operator: bool) -> Markup {
    html! {
        section.card id="changes" {
            h2 { "Changes" }
            @if all.is_empty() { p { "None." } } @else {
                div.scroll {
                    table {
                        thead { tr {
                            @for name in ["Function", "Change", "When", "From, to", "State"] { th scope="col" { (name) } }
                        } }
                        tbody {
                            @for one in all.iter().take(MAX_LISTED) {
                                tr {
                                    th scope="row" { (linked_name(&one.function)) }
                                    td data-label="Change" { (one.id) }
                                    td data-label="When" { (instant(one.planned_at_us)) }
                                    td data-label="From, to" { (unbroken(&format!("{} → {}", one.from, one.to))) }
                                    td data-label="State" {
                                        span.badge { (one.state.code()) }
                                        span.sub { (one.reason) }
                                        @if is_operator && can_roll_back(all, one) {
                                            a href=(function_link(Action::Rollback, &one.function, &one.id)) { "Roll back …" }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What an action would do now: a sentence, the request, and a digest of both.
struct Prepared {
    sentence: String,
    request: TunerRequest,
    shown: String,
}

async fn prepare(app: &App, view: &TunerView, requested: &Requested) -> Result<Prepared, ApiError> {
    let reason = "requested on the page".to_owned();
    let (sentence, request) = match requested.action {
        Action::Freeze => (
            "No change starts any more, and the open ones are rolled back.".to_owned(),
            TunerRequest::Freeze { reason },
        ),
        Action::Unfreeze => ("Changes are possible again.".to_owned(), TunerRequest::Unfreeze { reason }),
        Action::Rollback => {
            let all = changes::fold(app.store.changes(&view.tenant, None).await?);
            rollback(&all, requested)?
        }
        Action::Approve => approval(&view.latest_round.get(), requested)?,
    };
    let shown = digest(&sentence, &request);
    Ok(Prepared { sentence, request, shown })
}

/// The rollback of one change.
fn rollback(all: &[Change], requested: &Requested) -> Result<(String, TunerRequest), ApiError> {
    let key = requested.key();
    let is_meant = |change: &&Change| change.function == key && change.id == requested.change;
    let Some(change) = all.iter().find(is_meant).filter(|change| can_roll_back(all, change)) else {
        let message = format!("change {} of {} is not in force any more", requested.change, named(&key));
        return Err(ApiError::not_found(message));
    };
    let sentence = format!("{} gets {} again in place of {}.", named(&key), change.from, change.to);
    let request = TunerRequest::Rollback {
        function: key.name,
        account: Some(key.account),
        region: Some(key.region),
        change_id: Some(change.id.clone()),
    };
    Ok((sentence, request))
}

/// The approval of the change that the latest round would make of one function.
fn approval(latest_round: &RoundResult, requested: &Requested) -> Result<(String, TunerRequest), ApiError> {
    let key = requested.key();
    let found =
        latest_round.functions.iter().find(|planned| planned.function == key && is_approvable(planned));
    let Some((planned, intent)) = found.and_then(|planned| Some((planned, planned.intent.as_ref()?))) else {
        return Err(ApiError::not_found(format!("no change of {} waits for an approval", named(&key))));
    };
    let sentence = format!(
        "{} is changed from {} MB to {} MB, if it is as it was in the latest round.",
        named(&key),
        intent.from_mb,
        intent.to_mb
    );
    let only = PlannedFunction { refusals: Vec::new(), ..planned.clone() };
    Ok((sentence, TunerRequest::Apply { plan: Plan::new(latest_round.at_us, vec![only]) }))
}

/// Binds the second step to what the first one showed. A plan of a later round with the same sizes has another time only.
fn digest(sentence: &str, request: &TunerRequest) -> String {
    use sha2::{Digest, Sha256};
    let what = match request {
        TunerRequest::Apply { plan } => {
            let revision = |planned: &PlannedFunction| {
                let intent = planned.intent.as_ref()?;
                Some(format!("{:?} {}", planned.function, intent.revision_id))
            };
            plan.functions.iter().filter_map(revision).collect::<Vec<_>>().join(" ")
        }
        TunerRequest::Rollback { function, account, region, change_id } => {
            format!("{function:?} {account:?} {region:?} {change_id:?}")
        }
        _ => String::new(),
    };
    hex::encode(&Sha256::digest(format!("{sentence}\n{what}"))[..16])
}

/// The tuner that the person of a request may operate.
fn operated<'a>(app: &'a App, parts: &Parts) -> Result<&'a TunerView, ApiError> {
    let tenant = app.authenticate_operator(parts)?;
    view_for(app, &tenant)
        .ok_or_else(|| ApiError::not_found("no tuner of this tenant runs in this collector"))
}

/// `GET /changes/confirm`: the first step: what the action would do.
///
/// # Errors
/// 403 without a session with the scope `admin`, 404 when the action is not possible any more.
pub async fn confirm(State(app): State<Arc<App>>, request: Request) -> Result<Response, Page> {
    let (parts, _) = request.into_parts();
    let view = operated(&app, &parts)?;
    let requested = axum::extract::Query::<Requested>::try_from_uri(&parts.uri);
    let axum::extract::Query(requested) =
        requested.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "query", "this action is not known"))?;
    let prepared = prepare(&app, view, &requested).await?;
    let heading = requested.action.heading();
    let body = html! {
        p.crumb { a href="/changes" { "Changes" } }
        section.card.login {
            h1 { (heading) }
            p { (prepared.sentence) }
            form method="post" action="/changes/request" {
                input type="hidden" name="action" value=(requested.action.name());
                input type="hidden" name="function" value=(requested.function);
                input type="hidden" name="account" value=(requested.account);
                input type="hidden" name="region" value=(requested.region);
                input type="hidden" name="change" value=(requested.change);
                input type="hidden" name="shown" value=(prepared.shown);
                button type="submit" { (heading) }
            }
            p { a href="/changes" { "Cancel" } }
        }
    };
    Ok(page(StatusCode::OK, &document(heading, &body)))
}

/// `POST /changes/request`: the second step.
///
/// # Errors
/// 403 without a session with the scope `admin`, 409 when the effect of the action has changed since.
pub async fn request(State(app): State<Arc<App>>, request: Request) -> Result<Response, Page> {
    let (parts, body) = request.into_parts();
    let view = operated(&app, &parts)?;
    let mut form = Request::new(body);
    *form.method_mut() = parts.method.clone();
    *form.headers_mut() = parts.headers.clone();
    let Ok(Form(requested)) = Form::<Requested>::from_request(form, &()).await else {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "form", "the form cannot be read").into());
    };
    let prepared = prepare(&app, view, &requested).await?;
    if prepared.shown != requested.shown {
        let message = "this was not confirmed, or its effect has changed since: confirm it again";
        return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "changed", message).into());
    }
    tracing::info!(
        action = requested.action.name(),
        function = requested.function,
        account = requested.account,
        region = requested.region,
        "requested on the page"
    );
    view.requests.submit(&prepared.request, app.clock.now_us()).await.map_err(ApiError::from)?;
    Ok(Redirect::to("/changes").into_response())
}
