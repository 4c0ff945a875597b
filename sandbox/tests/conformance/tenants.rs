//! Tenant isolation: the tenant is sent to the runtime and to telemetry, and does not share an environment.

use serde_json::json;

use crate::fakes::{FakeRuntime, request_id};
use crate::http::{Response, request};
use crate::sandbox::{Builder, IDLE_SCRIPT, Sandbox};

const ISOLATED: &str = "tenant_isolation = true";

fn invoke(sandbox: &Sandbox, tenant: &str) -> std::thread::JoinHandle<Response> {
    let (address, tenant) = (sandbox.address.clone(), tenant.to_owned());
    std::thread::spawn(move || {
        let path = "/2015-03-31/functions/fn/invocations";
        request(&address, "POST", path, &[("X-Amz-Tenant-Id", &tenant)], b"{}")
    })
}

/// Each tenant has environments of its own, which are used again for it only.
#[test]
fn one_environment_a_tenant() {
    let sandbox = Builder::new().function("fn", ISOLATED, IDLE_SCRIPT).start();
    let mut idle = Vec::new();
    for (number, tenant) in ["blue", "green"].into_iter().enumerate() {
        let caller = invoke(&sandbox, tenant);
        let runtime = FakeRuntime { api: sandbox.api(number + 1) };
        let invocation = runtime.next();
        assert_eq!(invocation.header("Lambda-Runtime-Aws-Tenant-Id"), Some(tenant));
        runtime.respond(&request_id(&invocation), "1");
        idle.push(runtime.next_later());
        assert_eq!(caller.join().unwrap().json(), json!(1));
        sandbox.await_event("environment.freeze", number + 1);
    }
    let _caller = invoke(&sandbox, "blue");
    let invocation = idle.remove(0).join().unwrap().unwrap();
    assert_eq!(invocation.header("Lambda-Runtime-Aws-Tenant-Id"), Some("blue"));
    assert_eq!(sandbox.events("environment.start").len(), 2);
    for kind in ["platform.start", "platform.runtimeDone", "platform.report"] {
        assert_eq!(sandbox.await_telemetry(kind, 1)["tenantId"], "blue", "{kind}");
        assert_eq!(sandbox.await_telemetry(kind, 2)["tenantId"], "green", "{kind}");
    }
}

/// A tenant id is required with isolation and rejected without; configurations show the isolation mode.
#[test]
fn the_tenant_must_be_named() {
    let sandbox =
        Builder::new().function("fn", ISOLATED, IDLE_SCRIPT).function("other", "", IDLE_SCRIPT).start();
    let exception = Some("InvalidParameterValueException");
    let unnamed = sandbox.invoke("fn", "{}");
    assert_eq!((unnamed.status, unnamed.header("x-amzn-errortype")), (400, exception));
    let path = "/2015-03-31/functions/other/invocations";
    let named = request(&sandbox.address, "POST", path, &[("X-Amz-Tenant-Id", "blue")], b"{}");
    assert_eq!((named.status, named.header("x-amzn-errortype")), (400, exception));
    let configuration =
        |name: &str| sandbox.call("GET", &format!("/2015-03-31/functions/{name}/configuration"), "").json();
    assert_eq!(configuration("fn")["TenancyConfig"], json!({"TenantIsolationMode": "PER_TENANT"}));
    assert!(configuration("other").get("TenancyConfig").is_none());
}

/// Tenant isolation cannot be combined with SnapStart or provisioned concurrency.
#[test]
fn exclusions() {
    let sandbox = Builder::new().function("fn", ISOLATED, IDLE_SCRIPT).start();
    let configuration = "/2015-03-31/functions/fn/configuration";
    let response = sandbox.call("PUT", configuration, r#"{"SnapStart":{"ApplyOn":"PublishedVersions"}}"#);
    assert_eq!(response.status, 400);
    assert_eq!(sandbox.call("POST", "/2015-03-31/functions/fn/versions", "{}").status, 201);
    let path = "/2019-09-30/functions/fn/provisioned-concurrency?Qualifier=1";
    let response = sandbox.call("PUT", path, r#"{"ProvisionedConcurrentExecutions":1}"#);
    assert_eq!(response.status, 400);
}
