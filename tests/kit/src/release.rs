//! Building what runs inside an execution environment exactly as it is shipped, for either architecture.
//!
//! Static musl: half the start and memory of glibc, and one file for every runtime and image. The same sources
//! and toolchain give the same bytes on any machine: nothing of its folders or of its C linker gets in.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{cargo_command, project, run_cargo, target_folder};

/// The cargo profile of what is shipped in the layer; the example handlers share its dependencies.
const LAYER_PROFILE: &str = "layer";

/// An instruction set Lambda offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD.
    X86_64,
    /// Graviton.
    Arm64,
}

impl Architecture {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// This machine's; `None` where Lambda has no such machines.
    #[must_use]
    pub fn host() -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.rust_name() == env::consts::ARCH)
    }

    /// Lambda's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's, the C compilers' and QEMU's name.
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

    /// What this machine lacks to build for it, for people; `None` when it can.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        self.toolchain().err()
    }

    /// The C compiler, with Rust's standard library there, too; else what is missing.
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

    /// A C compiler for ring's C and assembly, which need no libc.
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

/// Builds packages for environments on this machine; returns the folder of the results. Where the musl target
/// cannot be had, for the machine's own libc, said so.
///
/// # Errors
/// When cargo fails; it has said why.
pub fn build_for_host(packages: &[&str]) -> Result<PathBuf> {
    let missing = match Architecture::host() {
        Some(own) => match own.toolchain() {
            Ok(compiler) => return build_with(packages, own, &compiler),
            Err(missing) => missing,
        },
        None => format!("an instruction set that Lambda has (it is {})", env::consts::ARCH),
    };
    eprintln!("note: this machine lacks {missing}: building for its own libc");
    run_cargo(&mut cargo_build(packages)?)?;
    Ok(target_folder()?.join(LAYER_PROFILE))
}

/// Builds packages for `architecture`; returns the folder of the results.
///
/// # Errors
/// When this machine lacks something ([`Architecture::missing`]) or cargo fails; it has said why.
pub fn build(packages: &[&str], architecture: Architecture) -> Result<PathBuf> {
    match architecture.toolchain() {
        Ok(compiler) => build_with(packages, architecture, &compiler),
        Err(missing) => bail!("cannot build for {}: this machine lacks {missing}", architecture.name()),
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
    // Beats what the user's own settings say, so that they do not change the bytes.
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags()?);
    run_cargo(&mut command)?;
    Ok(target_folder()?.join(target).join(LAYER_PROFILE))
}

fn cargo_build(packages: &[&str]) -> Result<Command> {
    let mut command = cargo_command()?;
    command.args(["build", "--quiet", "--profile", LAYER_PROFILE]);
    packages.iter().for_each(|package| {
        command.args(["-p", package]);
    });
    Ok(command)
}

/// Flags of the shipped build, in cargo's encoding.
fn rust_flags() -> Result<OsString> {
    let mut flags: Vec<OsString> = [
        // Rust's own linker: both architectures, the same bytes whatever C toolchain is around.
        "-Clinker=rust-lld",
        // A fixed address: no relocations to apply, and no pages to copy for them, at each cold start.
        "-Crelocation-model=static",
        "-Clink-arg=-znoseparate-code",
        // Functions that compile to the same code are kept once.
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
    // The last that fits counts, so the target folder comes after the project it is usually in.
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

/// Whether the standard library of `target` is installed, after trying to have it installed.
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
