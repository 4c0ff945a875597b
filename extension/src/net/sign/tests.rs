use std::process::Command;

use super::*;

/// The secret key of AWS's documentation and test suite.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const HOST: (&str, &str) = ("host", "example.amazonaws.com");
const TIME: &str = "20150830T123600Z";
const DATE: (&str, &str) = ("x-amz-date", TIME);
const SUITE: Scope<'_> = Scope { time: TIME, region: "us-east-1", service: "service" };

fn credentials(token: Option<&str>) -> Credentials {
    Credentials::new("AKIDEXAMPLE".into(), SECRET.into(), token.map(Into::into))
}

fn signature(request: &ToSign<'_>) -> String {
    let header = authorization(request, &SUITE, &credentials(None));
    let start =
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=";
    assert!(header.starts_with(start), "{header}");
    header.rsplit_once("Signature=").unwrap().1.to_owned()
}

/// The cases without a query of AWS's published test suite (`aws-sig-v4-test-suite`).
#[test]
fn signatures_are_those_aws_published() {
    const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let get = |path| signature(&ToSign { method: "GET", path, headers: &[HOST, DATE], body: b"" });
    // get-vanilla, get-slash, get-slashes, get-relative, get-relative-relative, get-slash-dot-slash
    for path in ["/", "//", "/./", "/example/..", "/example1/example2/../.."] {
        assert_eq!(get(path), VANILLA, "{path}");
    }
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        signature(&ToSign { method: "POST", path: "/", headers, body })
    };
    assert_eq!(
        post(&[HOST, DATE], b""),
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        "post-vanilla"
    );
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(
        post(&[form, HOST, DATE], b"Param1=value1"),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        "post-x-www-form-urlencoded"
    );
    let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
    assert_eq!(
        post(&[HOST, DATE, ("x-amz-security-token", token)], b""),
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        "post-sts-header-before"
    );
}

/// The example in AWS's documentation, "Deriving the signing key".
#[test]
fn the_signing_key_is_the_documented_one() {
    let scope = Scope { time: TIME, region: "us-east-1", service: "iam" };
    let key = signing_key(SECRET, "20150830", &scope);
    assert_eq!(hex(key.as_ref()), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
}

/// botocore's signature of the shipper's request, with the time of botocore's clock.
#[test]
fn signatures_are_those_of_botocore() {
    let program = r#"
import sys
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
path, secret, token = sys.argv[1:]
url = "https://abc.lambda-url.eu-west-1.on.aws" + path
request = AWSRequest("POST", url, {"content-type": "application/x-protobuf"}, bytes(range(256)))
SigV4Auth(Credentials("AKIDEXAMPLE", secret, token), "lambda", "eu-west-1").add_auth(request)
print(request.headers["X-Amz-Date"], request.headers["Authorization"], sep="\n")
"#;
    let body: Vec<u8> = (0..=255).collect();
    for path in ["/v1/batches", "/a/b%20c/v1/batches", "/tailor~1/v1/batches"] {
        let output = Command::new("python3").args(["-c", program, path, SECRET, "to+ken/=="]).output();
        let Some(output) = output.ok().filter(|output| output.status.success()) else {
            tailor_test_kit::skip("needs python3 with botocore");
            return;
        };
        let printed = String::from_utf8(output.stdout).unwrap();
        let (time, expected) = printed.trim().split_once('\n').unwrap();
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("host", "abc.lambda-url.eu-west-1.on.aws"),
            ("x-amz-date", time),
            ("x-amz-security-token", "to+ken/=="),
        ];
        let scope = Scope { time, region: "eu-west-1", service: "lambda" };
        let request = ToSign { method: "POST", path, headers: &headers, body: &body };
        assert_eq!(authorization(&request, &scope, &credentials(Some("to+ken/=="))), expected, "{path}");
    }
}
