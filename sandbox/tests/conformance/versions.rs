//! Versions, aliases, concurrency and the life of functions.

use serde_json::{Value, json};

use crate::http::Response;
use crate::sandbox::{Builder, IDLE_SCRIPT, Sandbox, wait_until};

/// Responds to every invocation with the version in its environment variables.
const TELLS_VERSION: &str = r#"#!/bin/sh
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
while :; do
    id=$(curl -s -D - -o /dev/null "$api/next" | tr -d '\r' | sed -n 's/^lambda-runtime-aws-request-id: //pI')
    curl -s -o /dev/null -d "\"$AWS_LAMBDA_FUNCTION_VERSION $AWS_LAMBDA_FUNCTION_MEMORY_SIZE\"" "$api/$id/response"
done
"#;

const FUNCTION: &str = "/2015-03-31/functions/fn";

fn has_curl(test: &str) -> bool {
    let found = std::process::Command::new("curl").arg("--version").output().is_ok();
    if !found {
        crate::sandbox::skip(&format!("{test}: needs curl"));
    }
    found
}

fn exception(response: &Response) -> (u16, String) {
    (response.status, response.header("x-amzn-errortype").unwrap_or_default().to_owned())
}

fn set_memory(sandbox: &Sandbox, memory_mb: u32) -> Value {
    let path = format!("{FUNCTION}/configuration");
    let body = json!({"MemorySize": memory_mb}).to_string();
    assert_eq!(sandbox.call("PUT", &path, &body).status, 200);
    wait_until("the change", || {
        let now = sandbox.call("GET", &path, "").json();
        (now["LastUpdateStatus"] == "Successful").then_some(now)
    })
}

/// Publishing creates numbered, immutable versions; without a change it returns the newest; a wrong hash or revision is
/// 412.
#[test]
fn publishing() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    let path = format!("{FUNCTION}/versions");
    let first = sandbox.call("POST", &path, "{}");
    assert_eq!((first.status, &first.json()["Version"]), (201, &json!("1")));
    assert_eq!(sandbox.call("POST", &path, "").json()["Version"], "1", "nothing has changed");
    set_memory(&sandbox, 512);
    let wrong = sandbox.call("POST", &path, r#"{"CodeSha256":"other"}"#);
    assert_eq!(exception(&wrong), (412, "PreconditionFailedException".into()));
    let wrong = sandbox.call("POST", &path, r#"{"RevisionId":"other"}"#);
    assert_eq!(exception(&wrong), (412, "PreconditionFailedException".into()));
    assert_eq!(sandbox.call("POST", &path, "{}").json()["Version"], "2");
    let one = sandbox.call("GET", &format!("{FUNCTION}/configuration?Qualifier=1"), "").json();
    assert_eq!(one["MemorySize"], 128);
    assert!(one["FunctionArn"].as_str().unwrap().ends_with(":function:fn:1"));
    let versions = sandbox.call("GET", &path, "").json()["Versions"].clone();
    let numbers: Vec<_> = versions.as_array().unwrap().iter().map(|it| it["Version"].clone()).collect();
    assert_eq!(numbers, ["$LATEST", "1", "2"]);
    let list = sandbox.call("GET", "/2015-03-31/functions/?FunctionVersion=ALL", "").json();
    assert_eq!(list["Functions"].as_array().unwrap().len(), 3);
}

/// An alias sends invocations to its version, or to two by weight; the response names the version that ran.
#[test]
fn aliases() {
    if !has_curl("aliases") {
        return;
    }
    let sandbox = Builder::new().function("fn", "timeout_s = 30", TELLS_VERSION).start();
    let versions = format!("{FUNCTION}/versions");
    sandbox.call("POST", &versions, "{}");
    set_memory(&sandbox, 512);
    sandbox.call("POST", &versions, "{}");
    let path = format!("{FUNCTION}/aliases");
    let created = sandbox.call("POST", &path, r#"{"Name":"live","FunctionVersion":"1"}"#);
    assert_eq!(created.status, 201);
    let response = sandbox.invoke("fn:live", "{}");
    assert_eq!((response.json(), response.header("x-amz-executed-version")), (json!("1 128"), Some("1")));

    let alias = format!("{path}/live");
    let routing = r#"{"RoutingConfig":{"AdditionalVersionWeights":{"2":1.0}},"RevisionId":"other"}"#;
    let wrong = sandbox.call("PUT", &alias, routing);
    assert_eq!(exception(&wrong), (412, "PreconditionFailedException".into()));
    let routing = routing.replace("other", created.json()["RevisionId"].as_str().unwrap());
    assert_eq!(sandbox.call("PUT", &alias, &routing).status, 200);
    let response = sandbox.invoke("fn:live", "{}");
    assert_eq!((response.json(), response.header("x-amz-executed-version")), (json!("2 512"), Some("2")));

    let weights = r#"{"RoutingConfig":{"AdditionalVersionWeights":{"2":0.5}}}"#;
    sandbox.call("PUT", &alias, weights);
    let mut seen = [0, 0];
    for _ in 0..60 {
        let version = sandbox.invoke("fn:live", "{}").header("x-amz-executed-version").unwrap().to_owned();
        seen[usize::from(version == "2")] += 1;
    }
    assert!(seen.iter().all(|count| *count >= 12), "{seen:?} at equal weights");

    for body in [
        r#"{"RoutingConfig":{"AdditionalVersionWeights":{"$LATEST":0.5}}}"#,
        r#"{"RoutingConfig":{"AdditionalVersionWeights":{"2":1.5}}}"#,
    ] {
        assert_eq!(exception(&sandbox.call("PUT", &alias, body)).0, 400, "{body}");
    }
    let missing = r#"{"FunctionVersion":"9","RoutingConfig":{}}"#;
    assert_eq!(exception(&sandbox.call("PUT", &alias, missing)), (404, "ResourceNotFoundException".into()));
    let used = sandbox.call("DELETE", &format!("{FUNCTION}?Qualifier=1"), "");
    assert_eq!(exception(&used), (409, "ResourceConflictException".into()));
    assert_eq!(sandbox.call("DELETE", &alias, "").status, 204);
    assert_eq!(sandbox.call("GET", &alias, "").status, 404);
    assert_eq!(sandbox.call("DELETE", &format!("{FUNCTION}?Qualifier=1"), "").status, 204);
    assert_eq!(sandbox.call("GET", &format!("{FUNCTION}?Qualifier=1"), "").status, 404);
}

/// Reserved concurrency is a maximum; more invocations are throttled.
#[test]
fn reserved_concurrency() {
    let sandbox = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT).start();
    let path = "/2017-10-31/functions/fn/concurrency";
    assert_eq!(sandbox.call("PUT", path, r#"{"ReservedConcurrentExecutions":1}"#).status, 200);
    let _first = sandbox.invoke_later("fn", "{}");
    sandbox.api(1);
    let second = sandbox.invoke("fn", "{}");
    assert_eq!(exception(&second), (429, "TooManyRequestsException".into()));
    assert_eq!(second.json()["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
    assert!(second.header("retry-after").is_some());
    assert_eq!(sandbox.call("DELETE", path, "").status, 204);
    let got = sandbox.call("GET", "/2019-09-30/functions/fn/concurrency", "").json();
    assert_eq!(got, json!({}));
}

/// The account's concurrency is limited too; the account settings show the limit.
#[test]
fn account_limit() {
    let builder = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT);
    let sandbox = builder.arguments(&["--concurrency", "1"]).start();
    let settings = sandbox.call("GET", "/2016-08-19/account-settings/", "").json();
    assert_eq!(settings["AccountLimit"]["ConcurrentExecutions"], 1);
    let _first = sandbox.invoke_later("fn", "{}");
    sandbox.api(1);
    let second = sandbox.invoke("fn", "{}");
    assert_eq!(second.json()["Reason"], "ConcurrentInvocationLimitExceeded");
}

/// The control plane's own limit is for all operations but Invoke and GetFunction.
#[test]
fn control_plane_throttling() {
    let builder = Builder::new().function("fn", "", IDLE_SCRIPT);
    let sandbox = builder.arguments(&["--control-rate", "2"]).start();
    let path = format!("{FUNCTION}/configuration");
    let responses: Vec<_> = (0..8).map(|_| sandbox.call("GET", &path, "")).collect();
    assert!(responses.iter().any(|response| exception(response) == (429, "TooManyRequestsException".into())));
    assert!((0..8).all(|_| sandbox.call("GET", FUNCTION, "").status == 200));
}

/// Tags are listed, added and removed; they do not change the revision.
#[test]
fn tags() {
    let sandbox = Builder::new().function("fn", "[tags]\nteam = 'a'", IDLE_SCRIPT).start();
    let path = "/2017-03-31/tags/arn:aws:lambda:us-east-1:123456789012:function:fn";
    assert_eq!(sandbox.call("GET", path, "").json(), json!({"Tags": {"team": "a"}}));
    assert_eq!(sandbox.call("POST", path, r#"{"Tags":{"x:y":"z"}}"#).status, 204);
    assert_eq!(sandbox.call("DELETE", &format!("{path}?tagKeys=team"), "").status, 204);
    assert_eq!(sandbox.call("GET", path, "").json(), json!({"Tags": {"x:y": "z"}}));
    assert_eq!(sandbox.call("GET", FUNCTION, "").json()["Tags"], json!({"x:y": "z"}));
}

/// A deleted function does not exist any more, and its environments end.
#[test]
fn deletion() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    assert_eq!(sandbox.call("DELETE", FUNCTION, "").status, 204);
    assert_eq!(exception(&sandbox.invoke("fn", "{}")), (404, "ResourceNotFoundException".into()));
    assert_eq!(sandbox.call("DELETE", FUNCTION, "").status, 404);
}
