//! Running the collector: the configuration file, its check and its reload, JSON logs, and TLS of its own, with the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tailor_test_kit::postgres::PostgresServer;
use tailor_test_kit::skip;

/// A running `tailor serve`, killed at the end. Its log is in a file.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tailor(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
    command.current_dir(folder).stdin(Stdio::null());
    command.envs([("AWS_EC2_METADATA_DISABLED", "true")]);
    command
}

impl Running {
    /// Starts it and waits for its address.
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let log = folder.join("log");
        let mut command = tailor(folder);
        command.arg("serve").args(arguments).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let running = Self { child: command.spawn().unwrap(), log };
        running.wait_for("listening on");
        running
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no `{text}` in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn address(&self) -> SocketAddr {
        let log = self.log();
        let url = log.split("listening on ").nth(1).unwrap().split(',').next().unwrap();
        url.split_once("://").unwrap().1.parse().unwrap()
    }

    fn hang_up(&self) {
        Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check(folder: &Path, config: &str, arguments: &[&str]) -> Output {
    fs::write(folder.join("tailor.yaml"), config).unwrap();
    tailor(folder).args(["serve", "--check", "--config", "tailor.yaml"]).args(arguments).output().unwrap()
}

#[test]
fn an_invalid_setting_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (config, findings) in [
        (
            "listen: 127.0.0.1:0\ncolour: 1\n",
            &["line 2: `colour` is not a setting: `tailor serve --help`"][..],
        ),
        (
            "# data\nhourly_days: 3\n",
            &["line 2: `hourly_days` is not a setting: did you mean `hourly-days`?"],
        ),
        ("TAILOR_LISTEN: x\n", &["line 1: `TAILOR_LISTEN` is not a setting: did you mean `listen`?"]),
        ("hourly-dayz: 3\n", &["line 1: `hourly-dayz` is not a setting: did you mean `hourly-days`?"]),
        ("hourly-days: 0\ntuner: always\n", &["line 1: `hourly-days`: ", "line 2: `tuner` is one of "]),
        ("local-reads: maybe\n", &["line 1: `local-reads` is `true` or `false`, not `maybe`"]),
        ("data: [a, b]\n", &["line 1: `data` takes one value, not a list"]),
        ("data:\n", &["line 1: `data` has no value"]),
        ("trusted-proxy: [10.0.0.0/8, nonsense]\n", &["line 1: `trusted-proxy`: `nonsense` is neither"]),
        ("config: other.yaml\n", &["line 1: `config` is not a setting"]),
        ("data: a\ndata: b\n", &["line 2"]),
        ("data: {a: b}\n", &["line 1"]),
        ("- data\n", &["line 1"]),
        ("data: \"a\n", &["tailor.yaml"]),
    ] {
        // The check lists them, and without it nothing starts.
        let checked = check(folder.path(), config, &[]);
        let started = tailor(folder.path()).args(["serve", "--config", "tailor.yaml"]).output().unwrap();
        assert_eq!((checked.status.code(), started.status.code()), (Some(1), Some(2)), "{config}");
        for finding in findings {
            assert!(text(&checked.stdout).contains(finding), "{config}: {}", text(&checked.stdout));
            assert!(text(&started.stderr).contains(finding), "{config}: {}", text(&started.stderr));
        }
    }
    assert!(!folder.path().join("tailor-data").exists());
    let missing = tailor(folder.path()).args(["serve", "--config", "missing.yaml"]).output().unwrap();
    assert!(text(&missing.stderr).contains("missing.yaml: No such file"), "{}", text(&missing.stderr));
}

/// Arguments replace variables, variables replace the file, and the file replaces the defaults.
#[test]
fn arguments_replace_variables_and_variables_replace_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("tailor.yaml"),
        "data: of-the-file\nlisten: 127.0.0.1:0\nlocal-reads: true\n",
    )
    .unwrap();
    for (variable, argument, expected) in [
        (None, None, "of-the-file"),
        (Some("of-the-variable"), None, "of-the-variable"),
        (Some("of-the-variable"), Some("of-the-argument"), "of-the-argument"),
    ] {
        let mut command = tailor(folder.path());
        command.args(["serve", "--check", "--config", "tailor.yaml"]);
        command.envs(variable.map(|value| ("TAILOR_DATA", value)));
        command.args(argument.map(|value| ["--data", value]).into_iter().flatten());
        let output = command.output().unwrap();
        let found = format!("{expected} does not exist: the start creates it");
        assert!(output.status.success() && text(&output.stdout).contains(&found), "{}", text(&output.stdout));
    }
    // Every option is a setting: each default can be written in the file.
    let help = text(&tailor(folder.path()).args(["serve", "--help"]).output().unwrap().stdout);
    let options: Vec<_> = help.lines().filter_map(|line| line.trim().strip_prefix("--")).collect();
    let names: Vec<_> = options.iter().map(|option| option.split([' ', '=']).next().unwrap()).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names.into_iter().filter(|name| !["config", "check", "help", "version"].contains(name)) {
        let output = check(folder.path(), &format!("{name}: \"\"\n"), &[]);
        assert!(!text(&output.stdout).contains("is not a setting"), "{name}: {}", text(&output.stdout));
    }
}

#[test]
fn the_check_changes_nothing_and_finds_what_would_fail() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let used = listener.local_addr().unwrap();
    fs::write(folder.path().join("keys.txt"), "0123456789abcdef scopes=read expires=2020-01-01\nshort\n")
        .unwrap();
    fs::write(folder.path().join("not-a-folder"), "").unwrap();
    for (config, finding) in [
        ("data: new/data", "ok       data folder: new/data does not exist"),
        (&format!("listen: {used}"), "error    address: cannot listen on"),
        ("listen: 0.0.0.0:0", "warning  address: 0.0.0.0:0 can be reached from other machines"),
        ("listen: 0.0.0.0:0\nlocal-reads: true", "error    address: --local-reads is only for a loopback"),
        ("data: not-a-folder", "error    data folder: not-a-folder is not a folder"),
        ("api-key-file: keys.txt", "error    keys: key file keys.txt, line 2: a key needs at least 16"),
        ("api-keys: 0123456789abcdef scopes=read", "warning  keys: no key may send batches"),
        ("api-keys: 0123456789abcdef expires=2020-01-01", "warning  keys: 1 have expired"),
        ("prices: keys.txt", "error    prices: keys.txt is neither AWS's price list"),
        ("tags: missing.json", "error    tags: "),
        ("policy: missing.yaml", "error    tuner: cannot read the policy missing.yaml"),
        ("tuner: observe", "error    AWS credentials: the tuner needs them"),
        ("tls-cert: keys.txt", "error    certificate: --tls-cert needs --tls-key"),
        (
            "tls-cert: keys.txt\ntls-key: keys.txt",
            "error    certificate: cannot read keys.txt: it has no certificate",
        ),
        ("database: postgres://tailor@127.0.0.1:1/none", "error    database: the database"),
        ("database: nonsense", "error    database: cannot use --database"),
    ] {
        let listen = if config.contains("listen") { "" } else { "\nlisten: 127.0.0.1:0" };
        let output = check(folder.path(), &format!("{config}{listen}\n"), &[]);
        let printed = text(&output.stdout);
        assert!(printed.contains(finding), "{config}: {printed}{}", text(&output.stderr));
        assert_eq!(output.status.success(), !printed.contains("error "), "{printed}");
    }
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn the_check_reads_the_database_without_creating_tables() {
    if !PostgresServer::is_installed() {
        return skip("needs PostgreSQL");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = PostgresServer::shared().unwrap();
    let url = server.new_database().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--database", &url];
    let output = check(folder.path(), "", &arguments);
    assert!(
        text(&output.stdout).contains("is empty: the start creates the tables"),
        "{}",
        text(&output.stdout)
    );
    assert_eq!(
        server
            .sql(&url, "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'tailor%'")
            .unwrap()
            .trim(),
        "0"
    );
    drop(Running::start(folder.path(), &arguments));
    let output = check(folder.path(), "", &arguments);
    assert!(text(&output.stdout).contains("has a store of this version"), "{}", text(&output.stdout));
}

#[test]
fn a_line_of_the_json_log_is_an_object_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &["--listen", "127.0.0.1:0", "--log-format", "json"]);
    drop(running);
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["level"], "INFO", "{line}");
        assert!(
            event["message"].is_string() && event["timestamp"].as_str().unwrap().ends_with('Z'),
            "{line}"
        );
    }
    assert!(log.contains("listening on http://") && !log.contains("ticket"), "{log}");
    // A failed start is a line, too.
    let failed = tailor(folder.path())
        .args(["serve", "--listen", "192.0.2.1:1", "--log-format", "json"])
        .output()
        .unwrap();
    let stderr = text(&failed.stderr);
    let event: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(event["level"], "ERROR");
    assert!(event["message"].as_str().unwrap().contains("cannot listen on 192.0.2.1:1"), "{stderr}");
}

/// What can be changed is used after SIGHUP, and the rest is named.
#[test]
fn a_reload_uses_what_it_can_and_names_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tailor.yaml");
    fs::write(&config, "listen: 127.0.0.1:0\nlog-level: info\n").unwrap();
    let running = Running::start(folder.path(), &["--config", "tailor.yaml"]);
    let cookie = || {
        let key = fs::read_to_string(folder.path().join("tailor-data/api-key")).unwrap();
        let agent = ureq::Agent::config_builder().max_redirects(0).build().new_agent();
        let signed_in = agent
            .post(format!("http://{}/login", running.address()))
            .header("X-Forwarded-Proto", "https")
            .send_form([("key", key.trim())])
            .unwrap();
        signed_in.headers()["set-cookie"].to_str().unwrap().to_owned()
    };
    assert!(!cookie().contains("Secure"));

    fs::write(&config, "listen: 127.0.0.1:0\nhourly-days: 9\ntrusted-proxy: 127.0.0.1\nlog-level: debug\n")
        .unwrap();
    running.hang_up();
    running.wait_for("2 settings were changed");
    running.wait_for("the setting `hourly-days` has changed: restart the collector to use it");
    assert!(cookie().contains("Secure"));

    fs::write(&config, "listen: 127.0.0.1:0\nhourly-days: nine\n").unwrap();
    running.hang_up();
    running.wait_for("cannot reload the configuration file: the present settings stay");
    running.wait_for("line 2: `hourly-days`");
    assert!(cookie().contains("Secure"));
}

/// A certificate for localhost that is its own authority.
fn certificate(folder: &Path, name: &str, days: &str) -> bool {
    let config = folder.join("openssl.cnf");
    fs::write(&config, "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-config"]).arg(config);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-x509", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.args(["-days", days, "-keyout"]).arg(folder.join(format!("{name}.key")));
    openssl.arg("-out").arg(folder.join(format!("{name}.pem")));
    openssl.output().is_ok_and(|output| output.status.success())
}

/// One connection to the collector over TLS.
struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn connect(address: SocketAddr, authority: &Path) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(address).map_err(|error| error.to_string())?;
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        Ok(Self(stream))
    }

    fn request(&mut self, head: &str) -> String {
        self.0.write_all(head.as_bytes()).unwrap();
        let mut response = Vec::new();
        let mut part = [0; 4096];
        // Each answer here fits into one part with its end.
        let count = self.0.read(&mut part).unwrap();
        response.extend_from_slice(&part[..count]);
        text(&response)
    }

    fn is_healthy(&mut self) -> bool {
        self.request("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("200 OK")
    }
}

#[test]
fn the_certificate_is_replaced_without_closing_connections() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    if !certificate(folder.path(), "first", "30") || !certificate(folder.path(), "second", "5") {
        return skip("needs openssl");
    }
    fs::copy(at("first.pem"), at("cert.pem")).unwrap();
    fs::copy(at("first.key"), at("key.pem")).unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let running = Running::start(folder.path(), &arguments);
    assert!(running.log().contains("listening on https://"));
    assert_eq!(
        fs::read_to_string(at("tailor-data/address")).unwrap().trim(),
        format!("https://{}", running.address())
    );
    let mut before = Client::connect(running.address(), &at("first.pem")).unwrap();
    assert!(before.is_healthy());
    // A cookie of a connection with TLS is for such connections only.
    let key = fs::read_to_string(at("tailor-data/api-key")).unwrap();
    let form = format!("key={}", key.trim());
    let head = format!(
        "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    assert!(before.request(&head).contains("; Secure"));
    // Without TLS there is no answer.
    assert!(ureq::get(format!("http://{}/healthz", running.address())).call().is_err());

    // A key without its certificate is not used. The check of the files, and a signal, read both.
    fs::copy(at("second.key"), at("key.pem")).unwrap();
    running.wait_for("cannot reload the certificate: the present one stays in use");
    assert!(Client::connect(running.address(), &at("first.pem")).unwrap().is_healthy());
    fs::copy(at("second.pem"), at("cert.pem")).unwrap();
    running.hang_up();
    running.wait_for("reloaded the certificate");
    running.wait_for("the certificate expires soon");
    assert!(Client::connect(running.address(), &at("first.pem")).is_err());
    assert!(Client::connect(running.address(), &at("second.pem")).unwrap().is_healthy());
    assert!(before.is_healthy());

    let output = check(folder.path(), "tls-cert: cert.pem\ntls-key: key.pem\nlisten: 127.0.0.1:0\n", &[]);
    assert!(
        text(&output.stdout).contains("warning  certificate: the certificate expires soon"),
        "{}",
        text(&output.stdout)
    );
    fs::copy(at("first.key"), at("key.pem")).unwrap();
    let output = check(folder.path(), "tls-cert: cert.pem\ntls-key: key.pem\nlisten: 127.0.0.1:0\n", &[]);
    assert!(
        text(&output.stdout).contains("error    certificate: cannot use the certificate in cert.pem"),
        "{}",
        text(&output.stdout)
    );
}

/// Commands trust an authority of one's own, and the doctor finds a collector with a certificate on this machine.
#[test]
fn commands_read_from_a_collector_with_a_certificate_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(folder.path(), "first", "30") {
        return skip("needs openssl");
    }
    let arguments = ["--listen", "0.0.0.0:0", "--tls-cert", "first.pem", "--tls-key", "first.key"];
    let running = Running::start(folder.path(), &arguments);
    let port = running.address().port();
    let run = |arguments: &[&str]| {
        let mut command = tailor(folder.path());
        let key = fs::read_to_string(folder.path().join("tailor-data/api-key")).unwrap();
        let output = command.args(arguments).env("TAILOR_API_KEY", key.trim()).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    // It listens on all addresses, and nothing on this machine trusts its certificate.
    let (code, local) = run(&["doctor", "--format", "csv"]);
    assert_eq!(code, 0, "{local}");
    let found = format!("ok,server,https://127.0.0.1:{port},the collector is ready; its certificate is not");
    assert!(local.contains(&found), "{local}");

    let server = format!("https://127.0.0.1:{port}");
    let (code, refused) = run(&["doctor", "--server", &server, "--format", "csv"]);
    assert_eq!(code, 4, "{refused}");
    assert!(refused.contains("cannot be reached") && refused.contains("with --ca-file"), "{refused}");
    let (code, refused) = run(&["functions", "--server", &server]);
    assert!(code == 1 && refused.contains("with --ca-file"), "{refused}");
    let trusted = ["--server", &server, "--ca-file", "first.pem"];
    let (code, found) = run(&[&["doctor", "--format", "csv"][..], &trusted].concat());
    assert!(code == 0 && found.contains("the collector is ready") && !found.contains("verified"), "{found}");
    let (code, found) = run(&[&["functions"][..], &trusted].concat());
    assert_eq!(code, 3, "nothing is measured: {found}");
    let wrong = ["--format", "csv", "--server", &server, "--ca-file", "first.key"];
    let (code, found) = run(&[&["doctor"][..], &wrong].concat());
    assert!(code == 4 && found.contains("first.key has no certificate"), "{found}");
}

/// A server with S3's protocol that permits nothing: its address, and the first lines of the requests.
fn denying_bucket() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                lines.push(line);
            }
            received.lock().unwrap().extend(lines.into_iter().next());
            let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
            let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    (url, requests)
}

/// The documented policies permit to list `PREFIX/*`, and for the archive nothing.
#[test]
fn the_check_accepts_an_archive_that_can_only_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, requests) = denying_bucket();
    let mut command = tailor(folder.path());
    command.args(["serve", "--check", "--listen", "127.0.0.1:0"]);
    command.args(["--archive", "s3://bucket/a", "--profiles", "s3://bucket/p"]);
    command.args(["--s3-path-style", "--s3-region", "us-east-1", "--s3-endpoint", &endpoint]);
    command.envs([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    let output = command.output().unwrap();
    let printed = text(&output.stdout);
    let archive = "warning  archive: s3://bucket/a: the prefix cannot be listed; uploads need only s3:Put";
    assert!(printed.contains(archive), "{printed}");
    assert!(printed.contains("error    profiles: cannot list s3://bucket/p: "), "{printed}");
    let requests = requests.lock().unwrap();
    for prefix in ["prefix=a%2F", "prefix=p%2F"] {
        assert!(requests.iter().any(|request| request.contains(prefix)), "{requests:?}");
    }
}

/// A client that does not finish its handshake is given up like one that sends no request.
#[test]
fn a_handshake_has_a_deadline() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(folder.path(), "first", "30") {
        return skip("needs openssl");
    }
    let arguments = ["--listen", "127.0.0.1:0", "--tls-cert", "first.pem", "--tls-key", "first.key"];
    let running = Running::start(folder.path(), &arguments);
    let mut silent = TcpStream::connect(running.address()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The beginning of a TLS record that never continues.
    silent.write_all(&[22, 3, 1, 2]).unwrap();
    let mut rest = Vec::new();
    assert!(silent.read_to_end(&mut rest).is_ok() || rest.is_empty(), "the connection stays open");
    assert!(Client::connect(running.address(), &folder.path().join("first.pem")).unwrap().is_healthy());
}
