use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use super::*;
use crate::net::client::tests::on_one_thread;

const MINUTE_US: u64 = 60_000_000;
/// 2026-01-02T03:04:05Z.
const NOW_US: u64 = 1_767_323_045_000_000;

/// An endpoint that gives each of `responses` once and then responds with 500, and the requests that it receives.
fn endpoint(responses: &'static [&'static str]) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/2021-04-23/credentials", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut responses = responses.iter();
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            loop {
                let head: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                if head.is_empty() || sender.send(head.join("|")).is_err() {
                    break;
                }
                let (status, body) =
                    responses.next().map_or(("500 No", ""), |response| ("200 OK", *response));
                let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                (&stream).write_all(response.as_bytes()).unwrap();
            }
        }
    });
    (url, requests)
}

fn provider(variables: &[(&'static str, &str)]) -> Result<Provider, CredentialsError> {
    Provider::read(&variables.iter().copied().collect::<HashMap<_, _>>())
}

#[test]
fn keys_in_variables_are_used_first() {
    let provider = provider(&[
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
        ("AWS_SESSION_TOKEN", "t0ken"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/"),
    ])
    .unwrap();
    provider.discard();
    let credentials = on_one_thread(provider.current(NOW_US)).unwrap();
    assert_eq!(credentials.access_key(), "AKID");
    assert_eq!((credentials.secret_key(), credentials.session_token()), ("s3cret", Some("t0ken")));
    let shown = format!("{provider:?} {credentials:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
}

#[test]
fn container_credentials_are_fetched_once_and_renewed_before_they_expire() {
    let (url, requests) = endpoint(&[
        r#"{"AccessKeyId":"A1","SecretAccessKey":"S1","Token":"T1","Expiration":"2026-01-02T03:34:05Z"}"#,
        r#"{"AccessKeyId":"A2","SecretAccessKey":"S2","Token":"T2","Expiration":"2026-01-02T04:04:05Z"}"#,
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Bearer one\n").unwrap();
    let provider = provider(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path().to_str().unwrap()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this one"),
    ])
    .unwrap();
    let minute = Cell::new(0);
    on_one_thread(async {
        let at = async |minutes: u64| {
            minute.set(minutes);
            provider
                .current(NOW_US + minutes * MINUTE_US)
                .await
                .map(|credentials| credentials.access_key.clone())
        };
        assert_eq!(at(0).await.unwrap(), "A1");
        assert_eq!(at(24).await.unwrap(), "A1", "valid for six more minutes");
        assert!(requests.recv().unwrap().contains("authorization: Bearer one"));
        assert!(requests.try_recv().is_err(), "fetched once");
        std::fs::write(file.path(), "Bearer two\n").unwrap();
        assert_eq!(at(26).await.unwrap(), "A2", "valid for four more minutes");
        let request = requests.recv().unwrap();
        assert!(request.starts_with("GET /2021-04-23/credentials HTTP/1.1"), "{request}");
        assert!(request.contains("authorization: Bearer two"), "{request}");
        // From here on the endpoint fails: the present credentials are used until they expire.
        assert_eq!(at(58).await.unwrap(), "A2");
        assert!(matches!(at(61).await, Err(CredentialsError::Rejected(_))));
        provider.discard();
        assert!(at(0).await.is_err(), "new ones are fetched after a rejection");
    });
}

#[test]
fn errors_name_the_variable_and_no_secret() {
    let error = |variables: &[(&'static str, &str)]| provider(variables).unwrap_err().to_string();
    assert!(error(&[("AWS_ACCESS_KEY_ID", "AKID")]).contains("AWS_SECRET_ACCESS_KEY"));
    for url in ["http://example.com/", "ftp://127.0.0.1/", "/relative", "http://10.0.0.1/"] {
        let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        let error = error(&[uri, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t0ken")]);
        assert!(error.contains("FULL_URI") && !error.contains("t0ken"), "{url}: {error}");
    }
    for url in
        ["https://example.com/x", "http://[::1]:80/", "http://169.254.170.23/v1", "http://sandbox:9001/x"]
    {
        let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        assert!(provider(&[uri, ("AWS_LAMBDA_RUNTIME_API", "sandbox:9001")]).is_ok(), "{url}");
    }
    let (url, _requests) = endpoint(&[r#"{"message":"no"}"#]);
    let provider = provider(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]).unwrap();
    assert!(matches!(on_one_thread(provider.current(NOW_US)), Err(CredentialsError::Shape)));
}
