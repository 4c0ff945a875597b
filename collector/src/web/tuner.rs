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
use crate::render::units::{change, instant};
use crate::store::Tenant;
use crate::tuner::mode::Mode;
use crate::tuner::orders::Order;
use crate::tuner::outlook::Outlook;
use crate::tuner::plan::{Plan, PlannedFunction};

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
    change: String,
    /// Digest of what was shown when the action was confirmed.
    #[serde(default)]
    shown: String,
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
    let outlook = view.map(|view| view.outlook.get());
    let body = html! {
        p.crumb { a href="/" { "Fleet" } }
        h1 { "Changes of memory sizes" }
        (status(outlook.as_deref(), frozen.as_deref(), waiting, is_operator))
        @if let Some(outlook) = outlook.filter(|outlook| outlook.at_us > 0) { (plan(&outlook, is_operator)) }
        (list(&all, is_operator))
    };
    Ok(page(StatusCode::OK, &document("Changes", &body)))
}

fn view_for<'a>(app: &'a App, tenant: &Tenant) -> Option<&'a TunerView> {
    app.tuner.as_ref().filter(|view| view.tenant == *tenant)
}

fn link(action: Action, function: &str, change: &str) -> String {
    let escaped = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    format!(
        "/changes/confirm?action={}&function={}&change={}",
        action.name(),
        escaped(function),
        escaped(change)
    )
}

fn status(outlook: Option<&Outlook>, frozen: Option<&str>, waiting: usize, is_operator: bool) -> Markup {
    let mode = outlook.map_or(Mode::Off, |outlook| outlook.mode);
    html! {
        section.card id="tuner" {
            h2 { "Tuner" }
            p {
                @match (outlook, frozen) {
                    (None, _) => "No tuner runs in this collector.",
                    (Some(_), Some(reason)) => { span.badge { "frozen" } " " (reason) }
                    (Some(outlook), None) if outlook.at_us == 0 => "Its first round has not ended.",
                    (Some(outlook), None) => { "Mode " code { (mode) } ", latest round " (instant(outlook.at_us)) "." }
                }
            }
            @if waiting > 0 { p { (waiting) " requests wait for the next round." } }
            @if is_operator {
                @let action = if frozen.is_some() { Action::Unfreeze } else { Action::Freeze };
                p { a.button href=(link(action, "", "")) { (action.heading()) " …" } }
            } @else if outlook.is_some() {
                p.sub { "To freeze, roll back or approve, sign in with a key with the scope " code { "admin" } "." }
            }
        }
    }
}

/// What the latest round would change, and why the rest stays.
fn plan(outlook: &Outlook, is_operator: bool) -> Markup {
    let row = |planned: &PlannedFunction| {
        html! {
            tr {
                th scope="row" { a href=(format!("/functions/{}", planned.function.name)) { (planned.function.name) } }
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
                        a href=(link(Action::Approve, &planned.function.name, "")) { "Approve …" }
                    }
                }
            }
        }
    };
    html! {
        section.card id="plan" {
            h2 { "Plan" }
            p.sub {
                "Decided in the round of " (instant(outlook.at_us)) ". A change that no guard-rail refuses is in the list of changes, or starts in the next round when the mode permits it."
            }
            @if outlook.functions.is_empty() { p { "No change is advised for any function." } } @else {
                div.scroll {
                    table {
                        thead { tr { @for name in ["Function", "Change", "Reasons"] { th scope="col" { (name) } } } }
                        tbody {
                            @for planned in outlook.functions.iter().filter(|it| is_shown(it)).take(MAX_LISTED) { (row(planned)) }
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
                                    th scope="row" {
                                        a href=(format!("/functions/{}", one.function.name)) { (one.function.name) }
                                    }
                                    td data-label="Change" { (one.id) }
                                    td data-label="When" { (instant(one.planned_at_us)) }
                                    td data-label="From, to" { (unbroken(&format!("{} → {}", one.from, one.to))) }
                                    td data-label="State" {
                                        span.badge { (one.state.code()) }
                                        span.sub { (one.reason) }
                                        @if is_operator && can_roll_back(all, one) {
                                            a href=(link(Action::Rollback, &one.function.name, &one.id)) { "Roll back …" }
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
    order: Order,
    shown: String,
}

async fn prepare(app: &App, view: &TunerView, requested: &Requested) -> Result<Prepared, ApiError> {
    let reason = "requested on the page".to_owned();
    let (sentence, order) = match requested.action {
        Action::Freeze => {
            ("No change starts any more, and the open ones are undone.".to_owned(), Order::Freeze { reason })
        }
        Action::Unfreeze => ("Changes are possible again.".to_owned(), Order::Unfreeze { reason }),
        Action::Rollback => {
            let all = changes::fold(app.store.changes(&view.tenant, None).await?);
            let found = all.iter().find(|change| {
                change.function.name == requested.function
                    && change.id == requested.change
                    && can_roll_back(&all, change)
            });
            let Some(change) = found else {
                return Err(ApiError::not_found(format!(
                    "change {} of `{}` is not in force any more",
                    requested.change, requested.function
                )));
            };
            let sentence =
                format!("`{}` gets {} again in place of {}.", change.function.name, change.from, change.to);
            let change_id = Some(change.id.clone());
            (sentence, Order::Rollback { function: requested.function.clone(), change_id })
        }
        Action::Approve => {
            let outlook = view.outlook.get();
            let found = outlook
                .functions
                .iter()
                .find(|it| it.function.name == requested.function && is_approvable(it));
            let Some((planned, intent)) = found.and_then(|it| Some((it, it.intent.as_ref()?))) else {
                return Err(ApiError::not_found(format!(
                    "no change of `{}` waits for an approval",
                    requested.function
                )));
            };
            let sentence = format!(
                "`{}` is changed from {} MB to {} MB, if it is as it was in the latest round.",
                requested.function, intent.from_mb, intent.to_mb
            );
            let plan =
                Plan::new(outlook.at_us, vec![PlannedFunction { refusals: Vec::new(), ..planned.clone() }]);
            (sentence, Order::Apply { plan })
        }
    };
    let shown = digest(&sentence, &order);
    Ok(Prepared { sentence, order, shown })
}

/// Binds the second step to what the first one showed. A plan of a later round with the same sizes has another time only.
fn digest(sentence: &str, order: &Order) -> String {
    use sha2::{Digest, Sha256};
    let revision = match order {
        Order::Apply { plan } => {
            let intents = plan.functions.iter().filter_map(|planned| planned.intent.as_ref());
            intents.map(|intent| intent.revision_id.as_str()).collect::<Vec<_>>().join(" ")
        }
        Order::Rollback { change_id, .. } => change_id.clone().unwrap_or_default(),
        _ => String::new(),
    };
    hex::encode(&Sha256::digest(format!("{sentence}\n{revision}"))[..16])
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
    tracing::info!(action = requested.action.name(), function = requested.function, "requested on the page");
    view.requests.submit(&prepared.order, app.clock.now_us()).await.map_err(ApiError::from)?;
    Ok(Redirect::to("/changes").into_response())
}
