use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

fn profiles(folder: &Path) -> Profiles {
    let profiles = Profiles::in_folder(folder.to_owned(), crate::deliver::outbox::tests::environment());
    profiles.on_invoke("first", 0);
    profiles
}

fn waiting(profiles: &Profiles) -> Vec<(String, String)> {
    let waiting = profiles.waiting.borrow();
    waiting.iter().map(|waiting| (waiting.found.name.clone(), waiting.request_id.clone())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn only_complete_regular_files_of_the_function_are_taken() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.pprof");
    fs::write(&secret, "secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["a.pprof", "b.pb.gz", "c.prof", "d.jfr", "e.cpuprofile"] {
        fs::write(at(name), name).unwrap();
    }
    for name in [".part.pprof", "f.pprof.tmp", "notes.txt", "a b.pprof", "é.pprof"] {
        fs::write(at(name), "no").unwrap();
    }
    symlink(&secret, at("link.pprof")).unwrap();
    fs::hard_link(&secret, at("hard.pprof")).unwrap();
    mkfifo(&at("fifo.pprof"), Mode::S_IRWXU).unwrap();
    fs::create_dir(at("folder.pprof")).unwrap();
    let before = names(folder.path());

    let profiles = profiles(folder.path());
    profiles.collect_last();
    let mut found: Vec<_> = waiting(&profiles).into_iter().map(|(name, _)| name).collect();
    found.sort_unstable();
    assert_eq!(found, ["a.pprof", "b.pb.gz", "c.prof", "d.jfr", "e.cpuprofile"]);
    assert_eq!(names(folder.path()), before, "what is not ours stays");
    profiles.collect_last();
    assert_eq!(waiting(&profiles).len(), 5, "nothing is taken twice");

    let link = outside.path().join("link");
    symlink(folder.path(), &link).unwrap();
    assert_eq!(folder::scan(&link), [], "a link in place of the folder is not followed");
    assert_eq!(folder::scan(&outside.path().join("missing")), []);
}

#[test]
fn a_file_that_changes_is_not_opened_and_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.pprof");
    fs::write(&file, "complete").unwrap();
    let found = folder::scan(folder.path()).remove(0);
    assert!(folder::open(folder.path(), &found).is_some());
    fs::write(&file, "complete and more").unwrap();
    assert!(folder::open(folder.path(), &found).is_none() && !folder::delete(folder.path(), &found));
    // Another file with the same name.
    let other = folder.path().join("other");
    fs::write(&other, "complete").unwrap();
    fs::rename(&other, &file).unwrap();
    assert!(folder::open(folder.path(), &found).is_none() && !folder::delete(folder.path(), &found));
    assert!(folder::delete(folder.path(), &folder::scan(folder.path()).remove(0)));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_profile_belongs_to_the_invocation_that_completed_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.pprof"), "a").unwrap();
    let profiles = profiles(folder.path());
    let at_us = folder::scan(folder.path())[0].completed_at_us;
    // The next invocation began before the file was complete, so that the file is its own.
    profiles.on_invoke("second", at_us - 1);
    profiles.collect();
    assert_eq!(waiting(&profiles), []);
    // The task that takes them may run after several invocations, or at SHUTDOWN.
    profiles.on_invoke("third", at_us + 1);
    profiles.on_invoke("fourth", at_us + 2);
    profiles.collect_last();
    assert_eq!(waiting(&profiles), [("a.pprof".to_owned(), "second".to_owned())]);
}

#[test]
fn what_exceeds_a_limit_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let profiles = profiles(folder.path());
    let large = fs::File::create(folder.path().join("large.jfr")).unwrap();
    large.set_len(MAX_BYTES + 1).unwrap();
    fs::write(folder.path().join("empty.jfr"), "").unwrap();
    profiles.collect_last();
    assert_eq!((waiting(&profiles).len(), names(folder.path()).len(), profiles.dropped.get()), (0, 0, 2));

    for index in 0..MAX_PROFILES + 5 {
        fs::write(folder.path().join(format!("{index}.jfr")), "profile").unwrap();
    }
    profiles.collect_last();
    let count = usize::try_from(MAX_PROFILES).unwrap();
    assert_eq!((waiting(&profiles).len(), names(folder.path()).len()), (count, count));

    profiles.is_rejected.set(true);
    fs::write(folder.path().join("late.jfr"), "profile").unwrap();
    profiles.collect_last();
    assert!(!folder.path().join("late.jfr").exists());
}
