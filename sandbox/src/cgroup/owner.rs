//! Names of groups and folders that contain the sandbox process that created them.

use std::fs;

/// Prefix of all names that a sandbox creates outside its data folder.
const PREFIX: &str = "lambda-sandbox.";

/// A sandbox process, identified by process id and start time, because process ids are used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    started: u64,
}

impl Owner {
    /// This process.
    pub fn current() -> Owner {
        let pid = std::process::id();
        Owner { pid, started: start_time(pid).unwrap_or_default() }
    }

    /// The name of its directories: `lambda-sandbox.PID-STARTTIME`.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}-{}", self.pid, self.started)
    }

    /// The owner of a directory named by [`Owner::name`].
    pub fn parse(name: &str) -> Option<Owner> {
        let (pid, started) = name.strip_prefix(PREFIX)?.split_once('-')?;
        Some(Owner { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Field 22 of `/proc/PID/stat`: clock ticks between boot and the start of the process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may contain any character, so fields are counted from its closing parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_predecessor_is_not() {
        let owner = Owner::current();
        assert!(owner.is_alive());
        assert_eq!(Owner::parse(&owner.name()), Some(owner.clone()));
        assert!(!Owner { started: owner.started + 1, ..owner }.is_alive());
        assert_eq!(Owner::parse("something-else"), None);
    }
}
