//! Proof that what is published works: what is in the zips, and both architectures' binaries started in the
//! sandbox, the foreign one under user-mode emulation.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object};
use tailor_test_kit::build::programs;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{EXAMPLES, Example};
use tailor_test_kit::release::Architecture;
use tailor_test_kit::skip;
use tailor_test_kit::workspace::project;

use super::{build, write};

/// The zips for the architectures that this machine can build for. The tests of one process share them.
static ZIPS: LazyLock<Vec<(Architecture, PathBuf)>> = LazyLock::new(|| {
    let buildable = Architecture::ALL.into_iter().filter(|architecture| architecture.missing().is_none());
    buildable.map(|architecture| (architecture, build(architecture).unwrap().zip)).collect()
});

/// Each architecture with its zip. The architectures that this machine cannot build for are skipped.
fn zips() -> impl Iterator<Item = (Architecture, &'static Path)> {
    for (architecture, missing) in Architecture::ALL.map(|one| (one, one.missing())) {
        if let Some(missing) = missing {
            skip(&format!("the layer for {} needs {missing}", architecture.name()));
        }
    }
    ZIPS.iter().map(|(architecture, zip)| (*architecture, zip.as_path()))
}

fn unpack(zip: &Path) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(File::open(zip).unwrap()).unwrap();
    let names: Vec<_> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let licences =
        ["LICENSE", "THIRD-PARTY-LICENSES"].map(|name| format!("licenses/tailor-extension/{name}"));
    assert_eq!(names, [&["extensions/tailor-extension".to_owned()], licences.as_slice()].concat());
    let mut entry = archive.by_index(0).unwrap();
    assert_eq!(entry.unix_mode().unwrap() & 0o777, 0o755);
    let mut binary = Vec::new();
    entry.read_to_end(&mut binary).unwrap();
    binary
}

/// `build` itself fails when binary or zip is over its limit.
#[test]
fn each_zip_has_one_static_executable_without_data_of_its_builder() {
    for (architecture, zip) in zips() {
        let binary = unpack(zip);
        let elf: ElfFile64<'_, Endianness> = ElfFile64::parse(&*binary).unwrap();
        let machine = match architecture {
            Architecture::X86_64 => object::Architecture::X86_64,
            Architecture::Arm64 => object::Architecture::Aarch64,
        };
        assert_eq!(elf.architecture(), machine);
        let kinds = elf.elf_program_headers().iter().map(|header| header.p_type(elf.endian()));
        let needs = [elf::PT_INTERP, elf::PT_DYNAMIC];
        assert!(!kinds.into_iter().any(|kind| needs.contains(&kind)), "it must be static");
        let home = env::var("HOME").unwrap_or_default();
        for folder in [project().unwrap().display().to_string(), format!("{home}/.")] {
            let found = binary.windows(folder.len()).any(|bytes| bytes == folder.as_bytes());
            assert!(!found, "{folder} is in the binary for {}", architecture.name());
        }
    }
}

#[test]
fn the_zip_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary");
    fs::write(&binary, b"not really an executable").unwrap();
    let (one, two) = (folder.path().join("one.zip"), folder.path().join("two.zip"));
    write(&binary, &one).unwrap();
    write(&binary, &two).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
}

/// The published bytes, attached to a real function: every invocation reaches the collector.
#[test]
fn each_published_extension_measures_a_function() {
    for (architecture, zip) in zips() {
        let folder = tempfile::tempdir().unwrap();
        let layer = if Some(architecture) == Architecture::host() {
            zip.to_owned()
        } else if let Some(emulator) = find_emulator(architecture) {
            emulated(&unpack(zip), &emulator, folder.path())
        } else {
            let name = architecture.name();
            skip(&format!(
                "the start of the layer for {name} needs qemu-{}-static",
                architecture.rust_name()
            ));
            continue;
        };
        let mut programs = programs().unwrap();
        programs.layer = layer;
        let example = Example { memory_mb: 512, tunable: false, ..EXAMPLES[0].clone() };
        let (project, examples) = (project().unwrap(), [example]);
        let mut deployment =
            Deployment::start(&Plan::new(programs, &project, &folder.path().join("deployment"), &examples))
                .unwrap();
        for _ in 0..3 {
            let answer = deployment.lambda.invoke(examples[0].name, r#"{"rounds":1000000}"#).unwrap();
            assert_eq!(answer.function_error, None, "{}", answer.payload);
        }
        deployment.stop_sandbox().unwrap();
        let summary = deployment.summary().unwrap();
        let function = &summary["functions"][0];
        assert_eq!(function["invocations"], 3, "{}: {summary}", architecture.name());
        assert!(function["busy_ms"].as_f64().unwrap() > 0.0, "{}: {summary}", architecture.name());
    }
}

fn find_emulator(architecture: Architecture) -> Option<PathBuf> {
    let name = format!("qemu-{}-static", architecture.rust_name());
    let output = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// A layer in which the extension is a script that runs `binary` under `emulator`.
fn emulated(binary: &[u8], emulator: &Path, folder: &Path) -> PathBuf {
    let layer = folder.join("layer");
    fs::create_dir_all(layer.join("extensions")).unwrap();
    fs::create_dir_all(layer.join("emulated")).unwrap();
    fs::copy(emulator, layer.join("emulated/emulator")).unwrap();
    let script = b"#!/bin/sh\ncd \"$(dirname \"$0\")/../emulated\" && exec ./emulator ./tailor-extension\n";
    for (path, bytes) in [("emulated/tailor-extension", binary), ("extensions/tailor-extension", script)] {
        fs::write(layer.join(path), bytes).unwrap();
        fs::set_permissions(layer.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    layer
}
