//! The page of keys and sessions: who may use it, its forms, and what they change.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::fleet::{KINDS, batch};
use common::{Collector, KEY, Response};
use tailor_collector::clock::now_us;
use tailor_collector::keys::reload::KeyFiles;
use tailor_collector::keys::sources::{KeySources, NewKey};
use tailor_collector::keys::{FunctionPattern, Key, KeyRing, Scope, SecretDigest};
use tailor_collector::store::{KeyStore, Tenant};

/// A collector whose keys are `KEY` of its configuration, and those of its folder.
fn start() -> Collector {
    let folder = tempfile::tempdir().unwrap();
    let files = KeyFiles {
        folder: Some(folder.path().to_owned()),
        operator_file: None,
        lines: Some(format!("{KEY} name=operator")),
    };
    Collector::start_in(folder, |app| {
        let store = Some(Arc::clone(&app.store) as Arc<dyn KeyStore>);
        let sources = KeySources { store, files };
        app.keys = Arc::new(sources.ring(&[]).unwrap().into());
        app.key_sources = Some(sources);
    })
}

/// A browser with its session.
struct Browser<'a> {
    collector: &'a Collector,
    cookie: String,
}

impl<'a> Browser<'a> {
    fn sign_in(collector: &'a Collector, key: &str) -> Self {
        let browser = Self { collector, cookie: String::new() };
        Self::with_cookie_of(collector, &browser.post("/login", "", &format!("key={key}")))
    }

    fn with_cookie_of(collector: &'a Collector, response: &Response) -> Self {
        let cookie = response.head.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
        Self { collector, cookie: cookie.to_owned() }
    }

    fn get(&self, path: &str) -> Response {
        self.collector.get_with(path, &format!("Cookie: {}\r\n", self.cookie))
    }

    fn post(&self, path: &str, headers: &str, form: &str) -> Response {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n{headers}\r\n{form}",
            self.cookie,
            form.len()
        );
        self.collector.raw(request.as_bytes())
    }

    fn token(&self) -> String {
        let page = self.get("/keys").text();
        page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

fn create(collector: &Collector, name: &str, scopes: &[Scope]) -> String {
    let new = NewKey {
        name: name.to_owned(),
        tenant: Tenant::default(),
        scopes: scopes.to_vec(),
        functions: Vec::new(),
        expires_at_s: None,
    };
    let sources = collector.app.key_sources.as_ref().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let secret = runtime.block_on(sources.create(new)).unwrap();
    runtime.block_on(collector.app.keys.reload(sources));
    secret
}

#[test]
fn only_an_administrator_sees_and_changes_keys() {
    let collector = start();
    // Without a session, and with local reads or a key in a header, there is no page.
    let anonymous = Browser { collector: &collector, cookie: String::new() };
    assert!(anonymous.get("/keys").head.contains("location: /login"));
    assert!(collector.get("/keys").head.contains("location: /login"));
    let reader = create(&collector, "reader", &[Scope::Read]);
    let reader = Browser::sign_in(&collector, &reader);
    let administrator = Browser::sign_in(&collector, KEY);
    let (token, id) = (administrator.token(), collector.app.sessions.list()[0].id.clone());
    for browser in [&reader, &anonymous] {
        for (path, form) in [
            ("/keys", format!("token={token}&ingest=on")),
            ("/keys/0123456789ab/revoke", format!("token={token}")),
            (&format!("/sessions/{id}/end"), format!("token={token}")),
        ] {
            let response = browser.post(path, "", &form);
            let is_refused = response.status == 403 || response.head.contains("location: /login");
            assert!(is_refused, "{path}: {}", response.head);
        }
    }
    assert_eq!(reader.get("/keys").status, 403);
    assert_eq!(collector.app.sessions.list().len(), 2);
    assert_eq!(collector.app.keys.get().entries().count(), 2);
}

#[test]
fn forms_of_other_sites_and_sessions_change_nothing() {
    let collector = start();
    let (first, second) = (Browser::sign_in(&collector, KEY), Browser::sign_in(&collector, KEY));
    let form = |token: &str| format!("token={token}&name=stolen&read=on");
    for (headers, form) in [
        ("", form("")),
        ("", "name=stolen&read=on".to_owned()),
        ("", form(&second.token())),
        ("Sec-Fetch-Site: cross-site\r\n", form(&first.token())),
        ("Sec-Fetch-Site: same-site\r\n", form(&first.token())),
        ("Origin: https://evil.example\r\n", form(&first.token())),
    ] {
        assert_eq!(first.post("/keys", headers, &form).status, 403, "{headers}{form}");
    }
    let id = collector.app.sessions.list()[0].id.clone();
    assert_eq!(first.post(&format!("/sessions/{id}/end"), "", "token=").status, 403);
    assert_eq!((collector.app.keys.get().entries().count(), collector.app.sessions.list().len()), (1, 2));
    assert_eq!(first.post("/keys", "Sec-Fetch-Site: same-origin\r\n", &form(&first.token())).status, 200);
}

#[test]
fn a_key_is_created_shown_once_and_revoked_with_its_sessions() {
    let collector = start();
    let administrator = Browser::sign_in(&collector, KEY);
    let token = administrator.token();
    for (fields, problem) in [
        ("", "choose at least one scope"),
        ("read=on&expires=2020-01-01", "the expiry is in the past"),
        ("read=on&expires=tomorrow", "is not a date"),
        ("ingest=on&functions=a%20b", "is not a pattern"),
        ("ingest=on&tenant=a+b", "has no spaces"),
    ] {
        let response = administrator.post("/keys", "", &format!("token={token}&{fields}"));
        assert!(response.status == 400 && response.text().contains(problem), "{fields}: {}", response.text());
    }
    let form =
        format!("token={token}&name=%3Cb%3Eops&read=on&functions=a-*%2Cb&expires=2099-01-01&tenant=default");
    let created = administrator.post("/keys", "", &form).text();
    assert!(created.contains("&lt;b&gt;ops") && !created.contains("<b>ops"));
    let secret = format!("tlr_{}", &created.split("tlr_").nth(1).unwrap()[..64]);
    let key = collector.app.keys.get().find(&secret).unwrap().key.clone();
    assert_eq!((key.name.as_str(), &key.scopes[..]), ("<b>ops", &[Scope::Read][..]));
    assert_eq!(key.functions, ["a-*", "b"].map(|pattern| FunctionPattern(pattern.to_owned())));
    assert!(key.expires_at_s.is_some());
    assert!(!administrator.get("/keys").text().contains(&secret));

    let user = Browser::sign_in(&collector, &secret);
    assert_eq!(user.get("/").status, 200);
    let path = format!("/keys/{}/revoke", key.id());
    assert!(administrator.get(&path).text().contains("Its sessions end"));
    assert!(collector.app.keys.get().find(&secret).is_some(), "the confirmation page changes nothing");
    assert_eq!(administrator.post(&path, "", &format!("token={token}")).status, 303);
    assert!(user.get("/").head.contains("location: /login"));
    assert_eq!(administrator.post(&path, "", &format!("token={token}")).status, 404);

    // A key of the configuration is shown, and changed where it is.
    let own = collector.app.keys.get().find(KEY).unwrap().key.id();
    let page = administrator.get("/keys").text();
    assert!(page.contains("in the configuration") && !page.contains(&format!("/keys/{own}/revoke")));
    assert_eq!(administrator.post(&format!("/keys/{own}/revoke"), "", &format!("token={token}")).status, 409);
}

#[test]
fn a_session_permits_what_its_key_permits_now() {
    const SECRET: &str = "changing-key-0123456789";
    let collector = start();
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    assert_eq!(collector.post_batch(&body).status, 200);
    let set = |tenant: &str, scopes: &[Scope]| {
        let mut ring = (*collector.app.keys.get()).clone();
        let key = Key::without_scopes(SecretDigest::of(SECRET), Tenant(tenant.to_owned()));
        ring.insert(Key { scopes: scopes.to_vec(), ..key });
        collector.app.keys.replace(ring);
    };
    set("default", &Scope::ALL);
    let browser = Browser::sign_in(&collector, SECRET);
    let reads_function = || browser.get("/v1/functions").text().contains(KINDS[0].name);
    // Without a tuner, an operator gets 404.
    let operates = || browser.get("/changes/confirm?action=freeze").status == 404;
    let sees_all_metrics = || browser.get("/metrics").text().contains("tailor_batches_total");
    let manages_keys = || browser.get("/keys").status == 200;
    assert!(reads_function() && operates() && sees_all_metrics() && manages_keys());
    let form = format!("token={}&name=late&read=on", browser.token());

    set("default", &[Scope::Read]);
    assert!(reads_function() && !operates() && !sees_all_metrics() && !manages_keys());
    assert_eq!(browser.post("/keys", "", &form).status, 403);

    set("acme", &[Scope::Read, Scope::Admin]);
    assert!(!reads_function() && operates() && manages_keys());
    assert!(browser.get("/keys").text().contains("name=\"tenant\" value=\"acme\""));

    set("default", &[Scope::Ingest]);
    assert_eq!(browser.get("/v1/functions").status, 401);
    assert!(browser.get("/").head.contains("location: /login"));

    // The session of a link has no key.
    let ticket = collector.app.sessions.issue_ticket(Tenant::default()).unwrap();
    let signed_in = collector.get_with(&format!("/login?ticket={ticket}"), "");
    let by_link = Browser::with_cookie_of(&collector, &signed_in);
    collector.app.keys.replace(KeyRing::default());
    assert_eq!(by_link.get("/keys").status, 200);
    assert_eq!(browser.get("/keys").status, 303);
}

#[test]
fn a_session_is_listed_and_ended() {
    let collector = start();
    let administrator = Browser::sign_in(&collector, KEY);
    let other = Browser::sign_in(&collector, KEY);
    let token = administrator.token();
    let page = administrator.get("/keys").text();
    assert!(page.contains("this browser") && page.contains("127.0.0.1") && page.contains("operator ("));
    let secret = other.cookie.split('=').nth(1).unwrap();
    let id = tailor_collector::http::sessions::session_id(secret);
    assert!(page.contains(&id) && !page.contains(secret));
    assert_eq!(administrator.post(&format!("/sessions/{id}/end"), "", &format!("token={token}")).status, 303);
    assert!(other.get("/").head.contains("location: /login"));
    assert_eq!(administrator.get("/").status, 200);
    assert_eq!(administrator.post(&format!("/sessions/{id}/end"), "", &format!("token={token}")).status, 404);
}
