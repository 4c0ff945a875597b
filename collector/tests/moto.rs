//! The tuner's calls to Lambda against moto, another implementation of AWS's API, where moto supports them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailor_collector::changes::Write;
use tailor_collector::store::FunctionKey;
use tailor_collector::tuner::aws::AwsLambda;
use tailor_collector::tuner::lambda::{Lambda, LambdaError};
use tailor_test_kit::skip;

/// The address of moto, for the process that makes the calls: credentials are read from its variables.
const MOTO: &str = "TAILOR_TEST_MOTO";

/// A process that is killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn call(method: &str, url: &str, body: &str) -> Value {
    let request = ureq::http::Request::builder().method(method).uri(url);
    let request = request
        .header("Authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/lambda/aws4_request");
    let mut response = if body.is_empty() {
        ureq::run(request.body(()).unwrap())
    } else {
        ureq::run(request.body(body.to_owned()).unwrap())
    }
    .unwrap();
    serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap_or(Value::Null)
}

#[test]
fn the_tuners_writes_take_effect_in_moto() {
    let python = std::env::var_os("TAILOR_PYTHON").map(PathBuf::from);
    let Some(server) = python.map(|python| python.with_file_name("moto_server")).filter(|path| path.exists())
    else {
        return skip("moto (TAILOR_PYTHON names no interpreter with moto)");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(server);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _moto = Running(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "moto does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let url = format!("http://127.0.0.1:{port}");
    let policy = "Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=%7B%7D";
    ureq::post(&url)
        .header("Authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/iam/aws4_request")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .send(policy)
        .unwrap();
    // An empty archive.
    let zip = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";
    let function = json!({
        "FunctionName": "f", "Runtime": "provided.al2023", "Role": "arn:aws:iam::123456789012:role/r",
        "Handler": "bootstrap", "MemorySize": 512, "Publish": true, "Code": { "ZipFile": zip },
    });
    let functions = format!("{url}/2015-03-31/functions");
    call("POST", &functions, &function.to_string());
    call("POST", &format!("{functions}/f/aliases"), r#"{"Name":"live","FunctionVersion":"1"}"#);

    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "make_the_calls", "--nocapture"])
        .envs([(MOTO, url.as_str()), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")])
        .env("AWS_REGION", "eu-west-1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let alias = call("GET", &format!("{functions}/f/aliases/live"), "");
    assert_eq!(
        (&alias["FunctionVersion"], &alias["Description"]),
        (&json!("1"), &json!("as before")),
        "{alias}"
    );
    assert!(
        alias["RoutingConfig"]["AdditionalVersionWeights"].as_object().is_none_or(serde_json::Map::is_empty)
    );
    let versions = call("GET", &format!("{functions}/f/versions"), "");
    assert_eq!(versions["Versions"].as_array().unwrap().len(), 2, "`$LATEST` and 1: {versions}");
    assert_eq!(call("GET", &format!("{functions}/f/configuration"), "")["MemorySize"], 384);
}

#[tokio::test]
#[ignore = "it is started by the other test, with credentials"]
async fn make_the_calls() {
    let url = std::env::var(MOTO).unwrap();
    let lambda = AwsLambda::new(Some(url.clone()), None, 1_000.0).await;
    let key = FunctionKey {
        // moto does not know functions by their partial ARN, which the account would be a part of.
        account: String::new(),
        region: "eu-west-1".to_owned(),
        name: "f".to_owned(),
    };
    // moto returns no revision of a function: without one, nothing may be written.
    assert!(matches!(lambda.read(&key).await, Err(LambdaError::Other(text)) if text.contains("incomplete")));
    let absent = FunctionKey { name: "absent".to_owned(), ..key.clone() };
    assert!(matches!(lambda.read(&absent).await, Err(LambdaError::NoFunction(_))));
    let alias = |additional, description: &str| Write::SetAlias {
        alias: "live".to_owned(),
        version: "1".to_owned(),
        additional,
        description: description.to_owned(),
        revision_id: String::new(),
    };
    let functions = format!("{url}/2015-03-31/functions");
    let get = move |path: &str| {
        let url = format!("{functions}/{path}");
        tokio::task::spawn_blocking(move || call("GET", &url, ""))
    };
    let code = get("f/configuration").await.unwrap()["CodeSha256"].as_str().unwrap().to_owned();
    lambda.write(&key, &Write::SetMemory { memory_mb: 384, revision_id: String::new() }).await.unwrap();
    let publish =
        Write::Publish { revision_id: String::new(), code_sha256: code, description: "ours".to_owned() };
    lambda.write(&key, &publish).await.unwrap();
    let published = get("f/configuration?Qualifier=2").await.unwrap();
    assert_eq!((&published["MemorySize"], &published["Description"]), (&json!(384), &json!("ours")));
    lambda.write(&key, &alias(Some(("2".to_owned(), 500)), "a mark")).await.unwrap();
    let weighted = get("f/aliases/live").await.unwrap();
    assert_eq!(weighted["RoutingConfig"]["AdditionalVersionWeights"], json!({ "2": 0.05 }), "{weighted}");
    lambda.write(&key, &alias(None, "as before")).await.unwrap();
    lambda.write(&key, &Write::DeleteVersion { version: "2".to_owned() }).await.unwrap();
}
