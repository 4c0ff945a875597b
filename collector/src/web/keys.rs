//! The page of an administrator: API keys and browser sessions.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use super::admin::{AdminForm, PageAdmin};
use super::{Page, layout, page};
use crate::http::App;
use crate::http::error::ApiError;
use crate::http::sessions::OpenSession;
use crate::keys::sources::{KeySources, NewKey};
use crate::keys::{Key, KeyEntry, KeyError, Scope, SecretDigest, file};
use crate::render::units::instant;
use crate::store::Tenant;

/// What happened before the page is shown.
enum Outcome {
    /// Nothing.
    None,
    /// A key was created; its secret is shown once.
    Created { secret: String, name: String },
    /// The form could not be used.
    Problem(String),
}

/// `GET /keys`.
pub async fn list(State(app): State<Arc<App>>, admin: PageAdmin) -> Result<Response, Page> {
    Ok(page(StatusCode::OK, &render(&app, &admin, &Outcome::None).await?))
}

/// The form of a new key.
#[derive(Deserialize)]
pub struct Creation {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tenant: String,
    ingest: Option<String>,
    read: Option<String>,
    admin: Option<String>,
    #[serde(default)]
    functions: String,
    #[serde(default)]
    expires: String,
}

impl Creation {
    /// The key that the form describes.
    fn new_key(&self, now_s: u64) -> Result<NewKey, String> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let chosen = [(Scope::Ingest, &self.ingest), (Scope::Read, &self.read), (Scope::Admin, &self.admin)];
        let scopes: Vec<_> =
            chosen.into_iter().filter(|(_, choice)| choice.is_some()).map(|(scope, _)| scope).collect();
        if scopes.is_empty() {
            return Err("choose at least one scope".to_owned());
        }
        let tenant = text(&self.tenant).unwrap_or_else(|| Tenant::DEFAULT_NAME.to_owned());
        if tenant.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("the name of a tenant has no spaces".to_owned());
        }
        let expires_at_s = text(&self.expires).map(|date| file::parse_date(&date)).transpose()?;
        if expires_at_s.is_some_and(|at_s| at_s <= now_s) {
            return Err("the expiry is in the past".to_owned());
        }
        let functions = text(&self.functions).map(|list| file::parse_functions(&list)).transpose()?;
        Ok(NewKey {
            name: text(&self.name).map(|name| file::parse_name(&name)).transpose()?.unwrap_or_default(),
            tenant: Tenant(tenant),
            scopes,
            functions: functions.unwrap_or_default(),
            expires_at_s,
        })
    }
}

/// `POST /keys`.
pub async fn create(
    State(app): State<Arc<App>>,
    AdminForm(admin, form): AdminForm<Creation>,
) -> Result<Response, Page> {
    let sources = key_sources(&app)?;
    let (status, outcome) = match form.new_key(app.now_s()) {
        Err(problem) => (StatusCode::BAD_REQUEST, Outcome::Problem(problem)),
        Ok(new) => {
            let name = new.name.clone();
            let secret = sources.create(new).await.map_err(failed)?;
            app.keys.reload(sources).await;
            let id = Key::without_scopes(SecretDigest::of(&secret), Tenant::default()).id();
            tracing::info!(key = id, session = admin.session, "a key was created on the page");
            (StatusCode::OK, Outcome::Created { secret, name })
        }
    };
    Ok(page(status, &render(&app, &admin, &outcome).await?))
}

/// `GET /keys/{id}/revoke`: requests a confirmation before the key is revoked.
pub async fn confirm_revoke(
    State(app): State<Arc<App>>,
    admin: PageAdmin,
    Path(id): Path<String>,
) -> Result<Response, Page> {
    let ring = app.keys.get();
    let Some(entry) = ring.entries().find(|entry| entry.key.id() == id) else {
        return Err(ApiError::not_found("there is no key with this id").into());
    };
    let is_own = admin.access.key == Some(entry.key.digest);
    let body = html! {
        section.card.login {
            h1 { "Revoke a key" }
            p { "Whatever uses the key " (name_of(&entry.key)) " is refused from now on. Its sessions end." }
            @if is_own { p.problem { "You are signed in with this key, so you will be signed out." } }
            form method="post" action={ "/keys/" (id) "/revoke" } {
                (token(&admin))
                button type="submit" { "Revoke" }
            }
            p { a href="/keys" { "Keep the key" } }
        }
    };
    Ok(page(StatusCode::OK, &layout::document("Revoke a key", &body)))
}

/// A form without fields.
#[derive(Deserialize)]
pub struct Nothing {}

/// `POST /keys/{id}/revoke`.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    AdminForm(admin, Nothing {}): AdminForm<Nothing>,
) -> Result<Response, Page> {
    let sources = key_sources(&app)?;
    // The prefix of an id and a name are for the command line only.
    if !app.keys.get().entries().any(|entry| entry.key.id() == id) {
        return Err(ApiError::not_found("there is no key with this id").into());
    }
    let key = sources.revoke(&id).await.map_err(failed)?;
    app.keys.reload(sources).await;
    tracing::info!(key = key.id(), session = admin.session, "a key was revoked on the page");
    Ok(Redirect::to("/keys").into_response())
}

/// `POST /sessions/{id}/end`.
pub async fn end_session(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    AdminForm(admin, Nothing {}): AdminForm<Nothing>,
) -> Result<Response, Page> {
    if !app.sessions.end(&id) {
        return Err(ApiError::not_found("there is no session with this id").into());
    }
    tracing::info!(ended = id, session = admin.session, "a session was ended on the page");
    Ok(Redirect::to("/keys").into_response())
}

fn key_sources(app: &App) -> Result<&KeySources, Page> {
    app.key_sources.as_ref().ok_or_else(|| {
        let message = "the keys of this collector are in its configuration and cannot be changed here";
        ApiError::new(StatusCode::CONFLICT, "keys", message).into()
    })
}

fn failed(error: KeyError) -> Page {
    match error {
        KeyError::NotOne(message) => ApiError::new(StatusCode::CONFLICT, "keys", message).into(),
        error => ApiError::unavailable("keys", error.to_string()).into(),
    }
}

fn name_of(key: &Key) -> String {
    if key.name.is_empty() { key.id() } else { format!("{} ({})", key.name, key.id()) }
}

fn token(admin: &PageAdmin) -> Markup {
    html! { input type="hidden" name="token" value=(admin.token); }
}

async fn render(app: &App, admin: &PageAdmin, outcome: &Outcome) -> Result<Markup, Page> {
    // Keys of the operator's file cannot be revoked here.
    let stored: HashSet<SecretDigest> = match &app.key_sources {
        None => HashSet::new(),
        Some(sources) => {
            let ring = sources.revocable().await.map_err(failed)?;
            ring.entries().map(|entry| entry.key.digest).collect()
        }
    };
    let ring = app.keys.get();
    let mut entries: Vec<_> = ring.entries().collect();
    entries.sort_by_key(|entry| (entry.key.created_at_s, entry.key.id()));
    let mut sessions = app.sessions.list();
    sessions.retain(|session| session.access.key.is_none_or(|key| ring.is_valid(&key, app.now_s())));
    let body = html! {
        div.heading { h1 { "Keys and sessions" } }
        @match outcome {
            Outcome::None => {}
            Outcome::Problem(problem) => section.card { p.problem role="alert" { "The key was not created: " (problem) "." } }
            Outcome::Created { secret, name } => {
                section.card role="status" {
                    h2 { "The key " @if !name.is_empty() { (name) " " } "was created" }
                    p { "Copy it now. Only its digest is stored, so it cannot be shown again." }
                    pre tabindex="0" aria-label="The new key" { (secret) }
                }
            }
        }
        (keys(&entries, &stored, admin, app.now_s()))
        @if app.key_sources.is_some() { (creation(admin)) }
        (open_sessions(&sessions, &ring, admin))
    };
    Ok(layout::document("Keys and sessions", &body))
}

fn keys(entries: &[&Arc<KeyEntry>], stored: &HashSet<SecretDigest>, admin: &PageAdmin, now_s: u64) -> Markup {
    html! {
        section.card {
            h2 { "Keys" }
            div.scroll {
                table {
                    thead { tr {
                        @for name in ["Name", "Scopes", "Functions", "Tenant", "Created", "Last used", "Expires"] {
                            th scope="col" { (name) }
                        }
                        th scope="col" { "Action" }
                    } }
                    tbody {
                        @for entry in entries {
                            @let key = &entry.key;
                            tr {
                                th scope="row" {
                                    @if key.name.is_empty() { "(no name)" } @else { (key.name) }
                                    span.sub { code { (key.id()) } @if admin.access.key == Some(key.digest) { " yours" } }
                                }
                                td data-label="Scopes" {
                                    (key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", "))
                                }
                                td data-label="Functions" { (functions(key)) }
                                td data-label="Tenant" { (key.tenant.0) }
                                td data-label="Created" { (time(key.created_at_s, "not known")) }
                                td data-label="Last used" { (time(Some(entry.last_used_s()).filter(|at_s| *at_s > 0), "never")) }
                                td.bad[key.has_expired(now_s)] data-label="Expires" {
                                    (time(key.expires_at_s, "never"))
                                    @if key.has_expired(now_s) { " (expired)" }
                                }
                                td data-label="Action" {
                                    @if stored.contains(&key.digest) {
                                        a href={ "/keys/" (key.id()) "/revoke" } aria-label={ "Revoke " (name_of(key)) } { "Revoke" }
                                    } @else {
                                        span.muted { "in the configuration" }
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

fn functions(key: &Key) -> String {
    let patterns: Vec<_> = key.functions.iter().map(|pattern| pattern.0.as_str()).collect();
    if patterns.is_empty() { "all".to_owned() } else { patterns.join(", ") }
}

fn time(at_s: Option<u64>, absent: &str) -> String {
    at_s.map_or_else(|| absent.to_owned(), |at_s| instant(at_s.saturating_mul(1_000_000)))
}

fn creation(admin: &PageAdmin) -> Markup {
    html! {
        section.card {
            h2 { "Create a key" }
            form.create method="post" action="/keys" {
                (token(admin))
                label { "Name" input name="name" maxlength="100" autocomplete="off"; }
                fieldset {
                    legend { "Scopes" }
                    label { input type="checkbox" name="ingest" checked; "ingest: send batches" }
                    label { input type="checkbox" name="read"; "read: read reports, sign in" }
                    label { input type="checkbox" name="admin"; "admin: metrics, keys, sessions" }
                }
                label { "Functions, such as checkout-*,auth (empty: all)" input name="functions" autocomplete="off"; }
                label { "Expires (empty: never)" input type="date" name="expires"; }
                label { "Tenant" input name="tenant" value=(admin.access.tenant.0) autocomplete="off"; }
                div.submit { button type="submit" { "Create" } }
            }
        }
    }
}

fn open_sessions(sessions: &[OpenSession], ring: &crate::keys::KeyRing, admin: &PageAdmin) -> Markup {
    let of_key = |digest: Option<SecretDigest>| match digest {
        None => "link of tailor serve".to_owned(),
        Some(digest) => {
            let entry = ring.entries().find(|entry| entry.key.digest == digest);
            entry.map_or_else(|| "revoked".to_owned(), |entry| name_of(&entry.key))
        }
    };
    html! {
        section.card {
            h2 { "Sessions" }
            div.scroll {
                table {
                    thead { tr {
                        @for name in ["Signed in with", "Tenant", "Address", "Since", "Last used", "Ends", "Action"] {
                            th scope="col" { (name) }
                        }
                    } }
                    tbody {
                        @for session in sessions {
                            // Of the key as it is now: its sessions follow it.
                            @let entry = session.access.key.and_then(|digest| ring.entry(&digest));
                            @let tenant = entry.map_or(&session.access.tenant, |entry| &entry.key.tenant);
                            tr {
                                th scope="row" {
                                    (of_key(session.access.key))
                                    span.sub { code { (session.id) } @if session.id == admin.session { " this browser" } }
                                }
                                td data-label="Tenant" { (tenant.0) }
                                td data-label="Address" {
                                    (session.address.map_or_else(|| "not known".to_owned(), |address| address.to_string()))
                                }
                                td data-label="Since" { (instant(session.opened_at_us)) }
                                td data-label="Last used" { (instant(session.used_at_us)) }
                                td data-label="Ends" { (instant(session.expires_at_us)) }
                                td data-label="Action" {
                                    form.row method="post" action={ "/sessions/" (session.id) "/end" } {
                                        (token(admin))
                                        button type="submit" aria-label={ "End session " (session.id) } { "End" }
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
