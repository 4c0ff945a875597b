//! The collector's key in Secrets Manager and in SSM Parameter Store, on moto, which checks signatures and permissions.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tailor_test_kit::fake::{FakeCollector, FakePlatform, REGISTRATION};
use tailor_test_kit::process::{Server, free_address};
use tailor_test_kit::{python, release, skip};

/// The Python package with the fake AWS services.
const PACKAGE: &str = "moto[server]==5.2.1";

const INVOCATIONS: u64 = 10;
const KEY: &str = "s3cret-key-one";
const NEW_KEY: &str = "s3cret-key-two";

/// Creates the secret, the parameters and the users, enables permissions, and prints what it created.
const SET_UP: &str = r#"
import boto3, json, sys, urllib.request
url, key = sys.argv[1:]
def client(service, region="us-east-1"):
    return boto3.client(service, region_name=region, endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="s")
iam = client("iam")
def user(name, actions):
    iam.create_user(UserName=name)
    if actions:
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=policy)
    created = iam.create_access_key(UserName=name)["AccessKey"]
    return [created["AccessKeyId"], created["SecretAccessKey"]]
result = {
    "reader": user("reader", ["secretsmanager:GetSecretValue", "ssm:GetParameter"]),
    "other": user("other", []),
    "administrator": user("administrator", ["*"]),
    "secret": client("secretsmanager", "eu-west-1").create_secret(Name="tailor", SecretString=key)["ARN"],
    "parameter": "arn:aws:ssm:eu-west-1:123456789012:parameter/tailor/key",
}
client("ssm", "eu-west-1").put_parameter(Name="/tailor/key", Value=key, Type="SecureString")
client("secretsmanager").create_secret(Name="pairs", SecretString=json.dumps({"user": "u", "api key": key}))
reset = urllib.request.Request(url + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST")
urllib.request.urlopen(reset)
print(json.dumps(result))
"#;

/// Replaces the secret's value.
const ROTATE: &str = r#"
import boto3, sys
url, secret, value, access, private = sys.argv[1:]
boto3.client("secretsmanager", region_name="eu-west-1", endpoint_url=url, aws_access_key_id=access,
             aws_secret_access_key=private).put_secret_value(SecretId=secret, SecretString=value)
"#;

/// Fake AWS services with the secret and the parameters.
struct Aws {
    _server: Server,
    url: String,
    log: PathBuf,
    python_path: PathBuf,
    created: Value,
}

impl Aws {
    /// `None`, with a reported skip, when Python or moto is not available.
    fn start(folder: &Path) -> Option<Self> {
        let python_path = match python::install("moto", &[PACKAGE]) {
            Ok(folder) => folder,
            Err(error) => {
                skip(&format!("needs python3 and {PACKAGE}: {error:#}"));
                return None;
            }
        };
        let address = free_address().unwrap();
        let (url, log) = (format!("http://{address}"), folder.join("aws.log"));
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &python_path);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let server = Server::start(&mut command, &log, || TcpStream::connect(address).is_ok()).unwrap();
        let mut aws = Self { _server: server, url, log, python_path, created: Value::Null };
        aws.created = serde_json::from_str(&aws.run(SET_UP, &[&aws.url, KEY])).unwrap();
        Some(aws)
    }

    /// Runs a Python program and returns what it prints.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &self.python_path).args(["-c", program]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn created(&self, name: &str) -> &str {
        self.created[name].as_str().unwrap()
    }

    fn rotate(&self) {
        let user = &self.created["administrator"];
        let [access, private] = [0, 1].map(|part| user[part].as_str().unwrap());
        self.run(ROTATE, &[&self.url, self.created("secret"), NEW_KEY, access, private]);
    }

    /// The number of requests with AWS's JSON protocol so far.
    fn requests(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().matches("POST / HTTP").count()
    }
}

/// Runs the extension as `user` with these variables until the fake platform ends. `before_event` gets the number of
/// invocations before each event. Returns the log.
fn run(
    aws: &Aws,
    user: &str,
    collector: &FakeCollector,
    variables: &[(&str, &str)],
    before_event: impl FnMut(u64) + Send + 'static,
) -> String {
    let extension = release::build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension");
    let mut command = Command::new(extension);
    let platform = FakePlatform {
        invocations: INVOCATIONS,
        invocations_per_delivery: 1,
        before_event: Box::new(before_event),
        registration: REGISTRATION,
    };
    platform.start(&mut command, 1_769).unwrap();
    let keys = &aws.created[user];
    command.env("AWS_ACCESS_KEY_ID", keys[0].as_str().unwrap());
    command.env("AWS_SECRET_ACCESS_KEY", keys[1].as_str().unwrap());
    command.env("AWS_ENDPOINT_URL", &aws.url).env("TAILOR_ENDPOINT", &collector.url);
    command.env("TAILOR_FLUSH_ITEMS", "1").envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(!log.contains("s3cret") && !log.contains(keys[1].as_str().unwrap()), "{log}");
    log
}

fn collector(key: &str) -> FakeCollector {
    let collector = FakeCollector::start(None).unwrap();
    collector.require_key(key);
    collector
}

#[test]
fn the_key_is_read_from_aws_after_the_first_event_request() {
    let folder = tempfile::tempdir().unwrap();
    let Some(aws) = Aws::start(folder.path()) else { return };
    let aws = Arc::new(aws);
    // An ARN names the region; a name is of the function's region.
    for (variable, value) in [
        ("TAILOR_API_KEY_SECRET", aws.created("secret")),
        ("TAILOR_API_KEY_SECRET", "pairs#api key"),
        ("TAILOR_API_KEY_PARAMETER", aws.created("parameter")),
    ] {
        let collector = collector(KEY);
        let before = aws.requests();
        let at_first_next = Arc::new(Mutex::new(None));
        let (shared, seen) = (Arc::clone(&aws), Arc::clone(&at_first_next));
        let log = run(&aws, "reader", &collector, &[(variable, value)], move |sent| {
            if sent == 0 {
                *seen.lock().unwrap() = Some(shared.requests());
            }
        });
        let received = collector.received();
        assert_eq!(
            (received.invocations, received.lost, received.refused),
            (INVOCATIONS, 0, 0),
            "{value}: {log}"
        );
        assert_eq!(*at_first_next.lock().unwrap(), Some(before), "{value}");
        assert_eq!(aws.requests(), before + 1, "{value}: read once");
    }
}

#[test]
fn a_replaced_key_is_read_again_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(aws) = Aws::start(folder.path()) else { return };
    let aws = Arc::new(aws);
    let collector = Arc::new(collector(KEY));
    let before = aws.requests();
    let (shared, replaced) = (Arc::clone(&aws), Arc::clone(&collector));
    let secret = [("TAILOR_API_KEY_SECRET", aws.created("secret"))];
    let log = run(&aws, "reader", &collector, &secret, move |sent| {
        if sent == INVOCATIONS / 2 {
            shared.rotate();
            replaced.require_key(NEW_KEY);
        }
    });
    let received = collector.received();
    assert_eq!((received.invocations, received.lost), (INVOCATIONS, 0), "{log}");
    assert_eq!(received.refused, 1, "{log}");
    // Two reads, and the replacement.
    assert_eq!(aws.requests(), before + 3);
}

#[test]
fn a_key_that_cannot_be_used_is_logged_once_and_read_few_times() {
    let folder = tempfile::tempdir().unwrap();
    let Some(aws) = Aws::start(folder.path()) else { return };
    let missing = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:missing-AbCdEf";
    for (user, required_key, variable, value, expected) in [
        ("other", KEY, "TAILOR_API_KEY_SECRET", aws.created("secret"), "allow secretsmanager:GetSecretValue"),
        ("other", KEY, "TAILOR_API_KEY_PARAMETER", "/tailor/key", "allow ssm:GetParameter"),
        ("reader", KEY, "TAILOR_API_KEY_SECRET", missing, "check the name, the region and the account"),
        ("reader", KEY, "TAILOR_API_KEY_SECRET", "pairs", "name one with NAME#MEMBER"),
        ("reader", NEW_KEY, "TAILOR_API_KEY_SECRET", aws.created("secret"), "the collector rejected the key"),
    ] {
        let collector = collector(required_key);
        let before = aws.requests();
        let log = run(&aws, user, &collector, &[(variable, value)], |_| ());
        assert_eq!(collector.received().invocations, 0, "{value}: {log}");
        assert_eq!(log.matches(expected).count(), 1, "{value}: {log}");
        assert!(log.contains(&format!("undelivered={INVOCATIONS}")), "{value}: {log}");
        // At first, and at SHUTDOWN.
        let reads = aws.requests() - before;
        assert!((1..=4).contains(&reads), "{value}: {reads}");
    }
}
