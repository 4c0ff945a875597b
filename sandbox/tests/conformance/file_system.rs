//! The file system, user and limits of an environment are Lambda's, not the machine's.

use crate::sandbox::{Builder, Sandbox, is_root, skip, wait_until};

/// Runs `script` as the runtime of a function. What it writes to standard output is in the file `out`.
fn run(settings: &str, script: &str) -> (Sandbox, String) {
    let builder = Builder::new();
    let out = builder.path().display().to_string();
    let script =
        format!("#!/bin/sh\n({script}) > {out}/out.tmp 2>&1\nmv {out}/out.tmp {out}/out\nexec sleep 1000\n");
    let sandbox = builder.function("fn", settings, &script).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let text = wait_until("the script", || sandbox.read("out"));
    (sandbox, text)
}

/// Only `/tmp` can be written to, and there is no `/dev/shm`. The machine's own folders are not visible.
#[test]
fn the_root_file_system_is_read_only() {
    if !is_root("the_root_file_system_is_read_only") {
        return;
    }
    let places = "/ /usr /etc /dev /opt /var/task /var/tmp /home /sys";
    let script = format!(
        "for place in {places}; do touch $place/x 2>/dev/null && echo \"$place is writable\"; done\n\
         touch /tmp/x && echo /tmp; ls /dev/shm; test -e /dev/shm && echo shm; ls -d /boot /srv; \
         ls /sys/fs/cgroup; echo x > /dev/null && echo null; echo text >> /dev/stdout"
    );
    let (_sandbox, text) = run("", &script);
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("cannot access")).collect();
    assert_eq!(lines, ["/tmp", "null", "text"], "{text}");
}

/// Python's named semaphores fail with the error number of Lambda.
#[test]
fn named_semaphores_are_not_available() {
    if !is_root("named_semaphores_are_not_available") {
        return;
    }
    let program = "import multiprocessing\ntry: multiprocessing.Lock()\nexcept OSError as e: print(e.errno)";
    let (_sandbox, text) = run("memory_mb = 256", &format!("python3 -c '{program}'"));
    if text.contains("not found") {
        skip("named_semaphores_are_not_available: needs python3");
        return;
    }
    assert_eq!(text, "38\n");
}

/// `/tmp` has the configured size. When it is full, writes fail and the memory limit is not concerned.
#[test]
fn tmp_has_the_configured_size() {
    if !is_root("tmp_has_the_configured_size") {
        return;
    }
    let script = "df -m /tmp | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4\n\
                  dd if=/dev/zero of=/tmp/big bs=1M count=700 2>&1 | head -n 1; stat -c %s /tmp/big; rm /tmp/big";
    let (sandbox, text) = run("memory_mb = 128\nephemeral_storage_mb = 600", script);
    let lines: Vec<_> = text.lines().collect();
    let available: u64 = lines[0].parse().unwrap();
    if available > 1_000 {
        skip("tmp_has_the_configured_size: needs mkfs.ext4 and loop devices");
        return;
    }
    assert!((600..=630).contains(&available), "{available} MB available");
    assert!(lines[1].contains("No space left on device"), "{text}");
    let written: u64 = lines[2].parse().unwrap();
    assert!(written >= 600 << 20, "{written} bytes were written");
    assert!(sandbox.events("environment.reset").is_empty());
}

/// An unprivileged user, and Lambda's limits and search path.
#[test]
fn user_and_limits_are_those_of_lambda() {
    if !is_root("user_and_limits_are_those_of_lambda") {
        return;
    }
    let script = "id -un; id -u; id -g; id -G; ulimit -n; grep processes /proc/self/limits; \
                  grep -E 'CapEff|NoNewPrivs' /proc/self/status; echo $PATH; tr '\\0' ' ' < /proc/1/cmdline";
    let (_sandbox, text) = run("", script);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..5], ["sbx_user1051", "993", "990", "990", "1024"]);
    assert_eq!(lines[5].split_whitespace().collect::<Vec<_>>()[2..4], ["1024", "1024"]);
    assert_eq!(lines[6].split_whitespace().last(), Some("0000000000000000"));
    assert_eq!(lines[7].split_whitespace().last(), Some("1"));
    assert_eq!(lines[8], "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin");
    // Arguments can be read by every process, so they do not name the machine's folders.
    assert!(lines[9].len() < 80, "{}", lines[9]);
}

/// A process may start 1,024 threads and processes, whatever other environments have.
#[test]
fn each_environment_has_its_own_user() {
    if !is_root("each_environment_has_its_own_user") {
        return;
    }
    let builder = Builder::new();
    let out = builder.path().display().to_string();
    let script = format!("#!/bin/sh\nid -un > {out}/user-$(id -u); exec sleep 1000\n");
    let sandbox = builder.function("fn", "", &script).start();
    let _callers = [sandbox.invoke_later("fn", "{}"), sandbox.invoke_later("fn", "{}")];
    for file in ["user-993", "user-100993"] {
        let name = wait_until(file, || sandbox.read(file).filter(|text| !text.is_empty()));
        assert_eq!(name, "sbx_user1051\n");
    }
}

/// Code that only root can read cannot run as another user: the error names the folder and the remedy.
#[test]
fn code_that_others_cannot_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root("code_that_others_cannot_read_is_an_error") {
        return;
    }
    let builder = Builder::new().function("fn", "", "#!/bin/sh\n");
    let code = builder.path().join("functions/fn");
    std::fs::set_permissions(&code, std::fs::Permissions::from_mode(0o700)).unwrap();
    let response = builder.start().invoke("fn", "{}");
    let text = String::from_utf8(response.body).unwrap();
    assert!(text.contains("chmod -R o+rX") && text.contains("functions/fn"), "{text}");
}
