//! The example functions, in the layout that the sandbox requires: one folder for each function, with a `bootstrap`
//! and a `function.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The language of an example function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Always available, because the project is built with it.
    Rust,
    /// `python3`.
    Python,
    /// `node`.
    Node,
    /// `java` and `javac`.
    Java,
    /// `go`.
    Go,
    /// Python that starts another program: `workload` is a module of `tests/functions/programs`.
    Program,
    /// Python on managed instances: threads that each take invocations.
    ConcurrentPython,
}

impl Language {
    /// Name for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Node => "Node.js",
            Self::Java => "Java",
            Self::Go => "Go",
            Self::Program => "Program",
            Self::ConcurrentPython => "Python with threads",
        }
    }

    /// Lambda's identifier of the runtime, with the version that is installed on this machine.
    ///
    /// # Errors
    /// When the version cannot be determined.
    pub fn runtime(self) -> Result<String> {
        Ok(match self {
            // Lambda has no managed runtime for compiled programs; they use the OS-only runtime.
            Self::Rust | Self::Go | Self::Program => "provided.al2023".to_owned(),
            Self::Python | Self::ConcurrentPython => {
                let program = "import sys; print('%d.%d' % sys.version_info[:2])";
                format!("python{}", run(Command::new("python3").args(["-c", program]))?)
            }
            Self::Node => {
                let program = "process.versions.node.split('.')[0]";
                format!("nodejs{}.x", run(Command::new("node").args(["-p", program]))?)
            }
            Self::Java => {
                let properties = run(Command::new("java").args(["-XshowSettings:properties", "-version"]))?;
                let version = properties
                    .lines()
                    .find_map(|line| line.trim().strip_prefix("java.specification.version = "))
                    .context("java did not print its version")?;
                format!("java{version}")
            }
        })
    }

    /// The first required command that is not installed; `None` when all are installed.
    #[must_use]
    pub fn missing_command(self) -> Option<&'static str> {
        let commands: &[(&str, &str)] = match self {
            Self::Rust => &[],
            Self::Python | Self::ConcurrentPython | Self::Program => &[("python3", "--version")],
            Self::Node => &[("node", "--version")],
            Self::Java => &[("java", "-version"), ("javac", "-version")],
            Self::Go => &[("go", "version")],
        };
        let runs = |(command, argument): &&(&str, &str)| {
            Command::new(command).arg(argument).output().is_ok_and(|output| output.status.success())
        };
        commands.iter().find(|command| !runs(command)).map(|(command, _)| *command)
    }
}

/// One example function.
#[derive(Debug, Clone)]
pub struct Example {
    /// Function name.
    pub name: &'static str,
    /// Implementation language.
    pub language: Language,
    /// Memory size, MB.
    pub memory_mb: u32,
    /// `WORKLOAD` of the function. When empty, the handler runs its default workload.
    pub workload: &'static str,
    /// Event that the demo sends, JSON.
    pub event: &'static str,
    /// Number of invocations in the demo: enough for advice, within a short time.
    pub invocations: u32,
    /// Whether the function has the tag that allows the tuner to change it.
    pub tunable: bool,
}

/// The demo's functions. Each has an unsuitable memory size on purpose, for a different reason.
pub const EXAMPLES: [Example; 8] = [
    Example {
        name: "cpu-bound-rust",
        language: Language::Rust,
        memory_mb: 256,
        workload: "cpu",
        event: r#"{"rounds":30000000}"#,
        invocations: 70,
        tunable: true,
    },
    Example {
        name: "io-bound-rust",
        language: Language::Rust,
        memory_mb: 1_024,
        workload: "io",
        event: r#"{"requests":3,"delay_ms":40}"#,
        invocations: 60,
        tunable: false,
    },
    Example {
        name: "memory-hungry-rust",
        language: Language::Rust,
        memory_mb: 512,
        workload: "memory",
        event: r#"{"mb":440}"#,
        invocations: 30,
        tunable: false,
    },
    Example {
        name: "multi-threaded-rust",
        language: Language::Rust,
        memory_mb: 768,
        workload: "threads",
        event: r#"{"threads":4,"rounds":12000000}"#,
        invocations: 40,
        tunable: false,
    },
    Example {
        name: "mixed-python",
        language: Language::Python,
        memory_mb: 512,
        workload: "",
        event: r#"{"delay_ms":30,"items":20000}"#,
        invocations: 40,
        tunable: false,
    },
    Example {
        name: "io-bound-node",
        language: Language::Node,
        memory_mb: 1_769,
        workload: "",
        event: r#"{"delay_ms":60,"items":2000}"#,
        invocations: 60,
        tunable: false,
    },
    Example {
        name: "garbage-java",
        language: Language::Java,
        memory_mb: 640,
        workload: "",
        event: "{}",
        invocations: 40,
        tunable: false,
    },
    Example {
        name: "multi-threaded-go",
        language: Language::Go,
        memory_mb: 1_024,
        workload: "",
        event: "{}",
        invocations: 40,
        tunable: false,
    },
];

/// Inputs for creating the function folders.
#[derive(Debug)]
pub struct Assembly<'a> {
    /// The root folder of the workspace.
    pub project: &'a Path,
    /// The folder in which the function folders are created.
    pub output: &'a Path,
    /// The built Rust handler.
    pub rust_handler: &'a Path,
    /// Environment variables of every function.
    pub environment: BTreeMap<&'a str, String>,
}

impl Assembly<'_> {
    /// Creates the folder of `example` and returns its path.
    ///
    /// # Errors
    /// When a file cannot be written or the language's compiler fails.
    pub fn assemble(&self, example: &Example) -> Result<PathBuf> {
        let folder = self.output.join(example.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let sources = self.project.join("tests/functions");
        match example.language {
            Language::Rust => copy(self.rust_handler, &folder.join("bootstrap"))?,
            Language::Python => {
                for file in ["bootstrap.py", "profiles.py"] {
                    copy(&sources.join("python").join(file), &folder.join(file))?;
                }
                script(&folder, "exec python3 \"$LAMBDA_TASK_ROOT/bootstrap.py\"")?;
            }
            Language::ConcurrentPython => {
                copy(&sources.join("python/concurrent.py"), &folder.join("bootstrap.py"))?;
                script(&folder, "exec python3 \"$LAMBDA_TASK_ROOT/bootstrap.py\"")?;
            }
            Language::Program => {
                let sources = sources.join("programs");
                for file in
                    fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?
                {
                    let path = file?.path();
                    if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                        copy(&path, &folder.join(name))?;
                    }
                }
                script(&folder, "exec python3 \"$LAMBDA_TASK_ROOT/bootstrap.py\"")?;
            }
            Language::Node => {
                for file in ["bootstrap.js", "profiles.js"] {
                    copy(&sources.join("node").join(file), &folder.join(file))?;
                }
                script(&folder, "exec node \"$LAMBDA_TASK_ROOT/bootstrap.js\"")?;
            }
            Language::Java => {
                let files = ["Bootstrap.java", "Profiles.java"].map(|file| sources.join("java").join(file));
                run(Command::new("javac").arg("-d").arg(&folder).args(files))?;
                // The managed Java runtime uses the same options: the serial garbage collector and only the C1 compiler.
                script(
                    &folder,
                    "exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m -cp \"$LAMBDA_TASK_ROOT\" Bootstrap",
                )?;
            }
            Language::Go => {
                let mut build = Command::new("go");
                // The version control stamp fails when another user owns the checkout, as in containers.
                build.args(["build", "-buildvcs=false"]).arg("-o").arg(folder.join("bootstrap")).arg(".");
                run(build.current_dir(sources.join("go")).env("CGO_ENABLED", "0"))?;
            }
        }
        let settings = self.function_toml(example)?;
        fs::write(folder.join("function.toml"), settings)?;
        Ok(folder)
    }

    fn function_toml(&self, example: &Example) -> Result<String> {
        let mut environment: toml::Table =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        environment.insert("WORKLOAD".into(), example.workload.into());
        let mut settings = toml::Table::new();
        settings.insert("runtime".into(), example.language.runtime()?.into());
        // Every example calls the Runtime API itself, so none needs a runtime interface client.
        settings.insert("bootstrap".into(), "bootstrap".into());
        settings.insert("handler".into(), "bootstrap".into());
        settings.insert("memory_mb".into(), i64::from(example.memory_mb).into());
        settings.insert("timeout_s".into(), 30.into());
        settings.insert("environment".into(), environment.into());
        if example.language == Language::ConcurrentPython {
            settings.insert("initialization_type".into(), "lambda-managed-instances".into());
        }
        if example.tunable {
            let tags = ["tailor:tune", "tailor:latest-down"].map(str::to_owned);
            let tags = toml::Table::from_iter(tags.into_iter().zip(["apply".into(), "allow".into()]));
            settings.insert("tags".into(), tags.into());
        }
        Ok(toml::to_string(&settings)?)
    }
}

/// Writes a `bootstrap` that is a shell script.
fn script(folder: &Path, command: &str) -> Result<()> {
    let path = folder.join("bootstrap");
    fs::write(&path, format!("#!/bin/sh\n{command}\n"))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // The kernel refuses writes to a program that is running, but a new file can be created.
    let _ = fs::remove_file(to);
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Runs a command and returns its standard output and standard error. Java prints its version to standard error.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{command:?} failed: {}", text(&output.stderr));
    }
    Ok([text(&output.stdout), text(&output.stderr)].join("\n").trim().to_owned())
}
