//! The folders of the functions, in the layout that the sandbox requires.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::corpus::Function;

/// Options of every Java function. Like the managed runtime: the serial collector and the first compiler only.
const JAVA: &str = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx80m";

/// For functions whose kind is the compiler's work: both compilers.
const JAVA_WITH_BOTH_COMPILERS: &str = "-XX:+UseSerialGC -Xmx80m";

/// Makes the folders.
#[derive(Debug)]
pub(super) struct Assembly {
    /// `sizing/eval/functions`.
    pub(super) sources: PathBuf,
    /// The built handler of `tests/functions/rust`.
    pub(super) rust_handler: PathBuf,
    /// For compiled programs.
    pub(super) built: PathBuf,
    /// Environment variables of every function.
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Assembly {
    /// Makes the folder of `function` in `output`.
    pub(super) fn assemble(&self, function: &Function, output: &Path) -> Result<()> {
        let folder = output.join(&function.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let sources = self.sources.join(&function.language);
        let start = match function.language.as_str() {
            "python" => "exec python3 \"$LAMBDA_TASK_ROOT/bootstrap.py\"".to_owned(),
            "node" => "exec node \"$LAMBDA_TASK_ROOT/bootstrap.js\"".to_owned(),
            "ruby" => "exec ruby \"$LAMBDA_TASK_ROOT/bootstrap.rb\"".to_owned(),
            "perl" => "exec perl \"$LAMBDA_TASK_ROOT/bootstrap.pl\"".to_owned(),
            "php" => "exec php \"$LAMBDA_TASK_ROOT/bootstrap.php\"".to_owned(),
            "java" => {
                let options = if function.kind == "compiler" { JAVA_WITH_BOTH_COMPILERS } else { JAVA };
                format!("exec java {options} -cp \"$LAMBDA_TASK_ROOT\" Bootstrap")
            }
            "go" => "exec \"$LAMBDA_TASK_ROOT/main\"".to_owned(),
            "rust" => "exec \"$LAMBDA_TASK_ROOT/main\"".to_owned(),
            other => bail!("`{}` has the unknown language `{other}`", function.name),
        };
        match function.language.as_str() {
            "java" => copy_all(&self.build("java", &sources)?, &folder)?,
            "go" => copy_all(&self.build("go", &sources)?, &folder)?,
            "rust" => copy(&self.rust_handler, &folder.join("main"))?,
            _ => copy_all(&sources, &folder)?,
        }
        let bootstrap = folder.join("bootstrap");
        fs::write(&bootstrap, format!("#!/bin/sh\n{start}\n"))?;
        fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755))?;
        Ok(fs::write(folder.join("function.toml"), self.function_toml(function)?)?)
    }

    /// Compiles a language's program once. Returns the folder of the result.
    fn build(&self, language: &str, sources: &Path) -> Result<PathBuf> {
        let folder = self.built.join(language);
        if folder.exists() {
            return Ok(folder);
        }
        fs::create_dir_all(&folder)?;
        let mut command = if language == "java" {
            let mut command = Command::new("javac");
            command.arg("-d").arg(&folder).arg("Bootstrap.java");
            command
        } else {
            let mut command = Command::new("go");
            // The version control stamp fails when another user owns the checkout.
            command.args(["build", "-buildvcs=false", "-o"]).arg(folder.join("main")).arg(".");
            command.env("CGO_ENABLED", "0");
            command
        };
        let output =
            command.current_dir(sources).output().with_context(|| format!("cannot build {language}"))?;
        if !output.status.success() {
            // Without the folder, the next run builds again.
            fs::remove_dir_all(&folder)?;
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(folder)
    }

    fn function_toml(&self, function: &Function) -> Result<String> {
        let mut environment: toml::Table =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        environment.insert("WORKLOAD".into(), function.workload.clone().into());
        let mut settings = toml::Table::new();
        // Every program calls the Runtime API itself.
        settings.insert("runtime".into(), "provided.al2023".into());
        settings.insert("bootstrap".into(), "bootstrap".into());
        settings.insert("handler".into(), "bootstrap".into());
        settings.insert("memory_mb".into(), 1_769.into());
        settings.insert("timeout_s".into(), 120.into());
        settings.insert("environment".into(), environment.into());
        Ok(toml::to_string(&settings)?)
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    let files = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut copied = 0;
    for file in files {
        let path = file?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            copy(&path, &to.join(name))?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "{} is empty", from.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
