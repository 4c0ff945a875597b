//! Builds the programs that run in an execution environment, with the release settings, for either architecture.
//!
//! They are linked statically with musl: start time and memory are half of those with glibc, and one file runs in every
//! runtime and image. The build is reproducible: the same sources and toolchain give the same bytes on any machine,
//! because the output contains no local paths and does not depend on the C linker.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{cargo_command, is_prebuilt, project, run_cargo, target_folder};

/// The cargo profile of the programs in the layer. The example handlers use it too, so that both share built
/// dependencies.
const LAYER_PROFILE: &str = "layer";

/// An instruction set architecture of Lambda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD.
    X86_64,
    /// Graviton.
    Arm64,
}

impl Architecture {
    /// Both architectures.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// The architecture of this machine; `None` when Lambda does not support it.
    #[must_use]
    pub fn host() -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.rust_name() == env::consts::ARCH)
    }

    /// Name in the Lambda API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// Name in Rust, in C compilers and in QEMU.
    #[must_use]
    pub const fn rust_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.rust_name())
    }

    /// Description of the tool that is missing to build for this architecture; `None` when nothing is missing.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        self.toolchain().err()
    }

    /// The C compiler to use. The error describes the missing compiler or the missing Rust standard library.
    fn toolchain(self) -> Result<String, String> {
        let target = self.target();
        if !has_target(&target) {
            return Err(format!("Rust's standard library for it (rustup target add {target})"));
        }
        self.c_compiler().ok_or_else(|| {
            let gcc = format!("{}-linux-gnu-gcc", self.rust_name());
            let package = format!("gcc-{}-linux-gnu", self.rust_name().replace('_', "-"));
            format!("a C compiler for it ({gcc}, in Debian's package {package}; or clang; or zig)")
        })
    }

    /// A C compiler for the C and assembly sources of `ring`, which do not need a libc.
    fn c_compiler(self) -> Option<String> {
        let rust_name = self.rust_name();
        if Some(self) == Self::host() && runs("cc", &["--version"]) {
            return Some("cc".into());
        }
        let gcc = ["gnu", "musl"].map(|libc| format!("{rust_name}-linux-{libc}-gcc"));
        if let Some(gcc) = gcc.into_iter().find(|gcc| runs(gcc, &["--version"])) {
            return Some(gcc);
        }
        if runs("clang", &["--version"]) {
            return Some("clang".into());
        }
        runs("zig", &["version"]).then(|| format!("zig cc -target {rust_name}-linux-musl"))
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Builds packages for environments on this machine, unless they are prebuilt, and returns the output folder. When the musl
/// target is not available, builds with the machine's libc and prints a note.
///
/// # Errors
/// When cargo fails. Its messages are on standard error.
pub fn build_for_host(packages: &[&str]) -> Result<PathBuf> {
    let missing = match Architecture::host() {
        Some(host) => match host.toolchain() {
            Ok(_) if is_prebuilt() => return output_folder(host),
            Ok(compiler) => return build_with(packages, host, &compiler),
            Err(missing) => missing,
        },
        None => format!("an instruction set that Lambda has (it is {})", env::consts::ARCH),
    };
    if !is_prebuilt() {
        eprintln!("note: this machine does not have {missing}; building with its default libc");
        run_cargo(&mut cargo_build(packages)?)?;
    }
    Ok(target_folder()?.join(LAYER_PROFILE))
}

/// Builds packages for `architecture` and returns the output folder.
///
/// # Errors
/// When a tool is missing ([`Architecture::missing`]) or cargo fails. Cargo's messages are on standard error.
pub fn build(packages: &[&str], architecture: Architecture) -> Result<PathBuf> {
    match architecture.toolchain() {
        Ok(compiler) => build_with(packages, architecture, &compiler),
        Err(missing) => {
            bail!("cannot build for {}: this machine does not have {missing}", architecture.name())
        }
    }
}

fn build_with(packages: &[&str], architecture: Architecture, c_compiler: &str) -> Result<PathBuf> {
    let target = architecture.target();
    let mut command = cargo_build(packages)?;
    command.args(["--target", &target]);
    let compiler = format!("CC_{}", target.replace('-', "_"));
    if env::var_os(&compiler).is_none() {
        command.env(compiler, c_compiler);
    }
    // This variable overrides the user's cargo settings, so that they do not change the output.
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags()?);
    run_cargo(&mut command)?;
    output_folder(architecture)
}

/// The folder of the programs for `architecture`.
fn output_folder(architecture: Architecture) -> Result<PathBuf> {
    Ok(target_folder()?.join(architecture.target()).join(LAYER_PROFILE))
}

fn cargo_build(packages: &[&str]) -> Result<Command> {
    let mut command = cargo_command()?;
    command.args(["build", "--quiet", "--profile", LAYER_PROFILE]);
    packages.iter().for_each(|package| {
        command.args(["-p", package]);
    });
    Ok(command)
}

/// Compiler flags of the release build, in the encoding of `CARGO_ENCODED_RUSTFLAGS`.
fn rust_flags() -> Result<OsString> {
    let mut flags: Vec<OsString> = [
        // Rust's linker supports both architectures, and its output does not depend on the installed C toolchain.
        "-Clinker=rust-lld",
        // A fixed load address: a cold start applies no relocations and copies no pages for them.
        "-Crelocation-model=static",
        "-Clink-arg=-znoseparate-code",
        // Functions with identical code are merged.
        "-Clink-arg=--icf=all",
        "-Clink-arg=--build-id=none",
    ]
    .map(OsString::from)
    .into();
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().map(|home| home.join(".cargo")).context("no home folder and no CARGO_HOME"),
        |home| Ok(PathBuf::from(home)),
    )?;
    let sources = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().flatten();
    // rustc applies the last matching prefix. The target folder is usually inside the project, so it comes last.
    let folders = sources.map(|entry| (entry.path(), "/cargo"));
    let folders = folders.chain([(project()?, "/tailor"), (target_folder()?, "/tailor/target")]);
    flags.extend(folders.map(|(folder, name)| remap(&folder, name)));
    Ok(flags.join(std::ffi::OsStr::new("\u{1f}")))
}

fn remap(folder: &Path, name: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(folder);
    flag.push("=");
    flag.push(name);
    flag
}

/// Whether the standard library of `target` is installed. When it is not, tries to install it with rustup.
fn has_target(target: &str) -> bool {
    let installed = || {
        let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        Command::new(rustc)
            .args(["--print", "target-libdir", "--target", target])
            .output()
            .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    };
    installed() || (runs("rustup", &["target", "add", target]) && installed())
}
