//! Builds the test functions with each language's own tools, isolated under the target folder.
//!
//! If a tool is missing on the machine, its tests are skipped with the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A function folder, ready but for its function.toml, and the layer with its runtime interface client.
pub struct Prepared {
    pub code: PathBuf,
    pub layer: Option<PathBuf>,
    pub runtime: &'static str,
    pub handler: &'static str,
}

/// Why a language is skipped.
pub type Skip = String;

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtimes/functions").join(language)
}

fn target(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runtimes").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command in `folder`. The error is the last line that it wrote.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), Skip> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .output()
        .map_err(|error| format!("needs {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{program} {} failed: {last}", arguments.first().unwrap_or(&"")))
}

/// Runs `make` once: a file marks a finished preparation. One at a time, because several tests may need the same.
fn once(folder: &Path, make: impl FnOnce() -> Result<(), Skip>) -> Result<(), Skip> {
    static PREPARING: Mutex<()> = Mutex::new(());
    let _guard = PREPARING.lock().unwrap_or_else(PoisonError::into_inner);
    let mark = folder.join(".prepared");
    if !mark.exists() {
        make()?;
        fs::write(mark, "").unwrap();
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub fn python() -> Result<Prepared, Skip> {
    let layer = target("python-layer");
    let packages = layer.join("python").display().to_string();
    let install = ["-m", "pip", "install", "--quiet", "--target", &packages, "awslambdaric"];
    once(&layer, || run(&layer, "python3", &install))?;
    Ok(Prepared {
        code: sources("python"),
        layer: Some(layer),
        runtime: "python3.12",
        handler: "app.handler",
    })
}

pub fn node() -> Result<Prepared, Skip> {
    let layer = target("node-layer");
    let packages = layer.join("nodejs");
    fs::create_dir_all(&packages).unwrap();
    once(&layer, || {
        run(&packages, "npm", &["init", "--yes"])?;
        run(&packages, "npm", &["install", "--no-audit", "--no-fund", "aws-lambda-ric"])
    })?;
    Ok(Prepared { code: sources("node"), layer: Some(layer), runtime: "nodejs20.x", handler: "app.handler" })
}

pub fn java() -> Result<Prepared, Skip> {
    let code = target("java");
    once(&code, || {
        copy(&sources("java"), &code);
        let dependencies = ["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"];
        run(&code, "mvn", &dependencies)?;
        run(&code, "javac", &["-cp", "lib/*", "Handler.java"])
    })?;
    Ok(Prepared { code, layer: None, runtime: "java17", handler: "Handler::handleRequest" })
}

pub fn go() -> Result<Prepared, Skip> {
    let code = target("go");
    once(&code, || {
        copy(&sources("go"), &code);
        run(&code, "go", &["mod", "tidy"])?;
        run(&code, "go", &["build", "-tags", "lambda.norpc", "-o", "bootstrap", "."])
    })?;
    Ok(Prepared { code, layer: None, runtime: "provided.al2023", handler: "bootstrap" })
}

/// The example of this crate, which `cargo test` has built.
pub fn rust() -> Result<Prepared, Skip> {
    let code = target("rust");
    let binary = Path::new(env!("CARGO_BIN_EXE_lambda-sandbox")).with_file_name("examples").join("handler");
    if !binary.is_file() {
        return Err(format!("needs the example `handler`: {} is missing", binary.display()));
    }
    // Replaced in one step: another test may be starting it just now.
    let fresh = code.join(format!("bootstrap-{:?}", std::thread::current().id()));
    fs::copy(&binary, &fresh).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, code.join("bootstrap")).unwrap();
    Ok(Prepared { code, layer: None, runtime: "provided.al2023", handler: "bootstrap" })
}
