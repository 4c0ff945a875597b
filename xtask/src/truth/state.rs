//! The state file: one line for each measured block, so that an interrupted run can be resumed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tailor_sizing_eval::truth::{MeasuredFunction, MeasuredSize, Row, SCHEMA, Truth};
use tailor_test_kit::random::Random;

use super::corpus::Function;
use super::random::sequence_of;

/// What must be equal in the runs of one state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Protocol {
    pub(super) schema: String,
    /// Environments at each size.
    pub(super) rounds: u32,
    /// Invocations of one environment that are measured.
    pub(super) invocations: usize,
    pub(super) sizes: Vec<u32>,
    pub(super) counters: usize,
}

/// The place of one block in the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) function: String,
    pub(super) round: u32,
    pub(super) memory_mb: u32,
}

/// One block: the invocations of one environment at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    #[serde(flatten)]
    pub(super) place: Place,
    /// Calls before the measurement.
    pub(super) warm_up_calls: usize,
    /// The measurement was not repeated any more, although other work disturbed it.
    pub(super) is_disturbed: bool,
    pub(super) rows: Vec<Row>,
    /// Why the function does not work at this size.
    pub(super) failure: Option<String>,
}

/// The blocks so far.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    blocks: Vec<Block>,
}

impl State {
    /// Begins a new state file, or continues the one at `path` if `resume`.
    pub(super) fn open(path: PathBuf, protocol: &Protocol, resume: bool) -> Result<Self> {
        let shown = path.display();
        if !path.exists() {
            fs::write(&path, serde_json::to_string(protocol)? + "\n")
                .with_context(|| format!("cannot write {shown}"))?;
            return Ok(Self { path, blocks: vec![] });
        }
        ensure!(
            resume,
            "{shown} has the state of an earlier run: continue it with --resume, or delete the file"
        );
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        // A run that was killed may have left a part of a line.
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        if complete.len() < text.len() {
            fs::write(&path, complete).with_context(|| format!("cannot write {shown}"))?;
        }
        let mut lines = complete.lines();
        let first: Protocol = serde_json::from_str(lines.next().unwrap_or_default())
            .with_context(|| format!("{shown} is not a state file"))?;
        ensure!(first == *protocol, "{shown} was begun with other options: use the same, or delete the file");
        let blocks = lines
            .enumerate()
            .map(|(at, line)| serde_json::from_str(line).with_context(|| format!("{shown}:{}", at + 2)))
            .collect::<Result<_>>()?;
        Ok(Self { path, blocks })
    }

    /// Writes a block to the disk.
    pub(super) fn add(&mut self, block: Block) -> Result<()> {
        let line = serde_json::to_string(&block)? + "\n";
        let mut file = File::options().append(true).open(&self.path)?;
        file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))?;
        file.sync_data()?;
        self.blocks.push(block);
        Ok(())
    }

    /// Whether this block need not be measured: it is there, or the function failed at this size.
    pub(super) fn is_done(&self, place: &Place) -> bool {
        self.blocks.iter().any(|block| {
            block.place == *place
                || block.failure.is_some() && {
                    let Place { function, memory_mb, .. } = &block.place;
                    (function, memory_mb) == (&place.function, &place.memory_mb)
                }
        })
    }

    /// The data set of the functions whose blocks are complete.
    pub(super) fn truth(&self, functions: &[Function], protocol: &Protocol) -> Truth {
        let mut measured = BTreeMap::new();
        for function in functions {
            let sizes = self.sizes(&function.name, protocol);
            if let Some(sizes) = sizes.filter(|sizes| !sizes.is_empty()) {
                measured.insert(
                    function.name.clone(),
                    MeasuredFunction { description: function.description(), sizes },
                );
            }
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let cpus =
            std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1));
        Truth { schema: SCHEMA.to_owned(), kernel, cpus, functions: measured }
    }

    /// The sizes of one function without those at which it failed; `None` while a block is missing.
    fn sizes(&self, function: &str, protocol: &Protocol) -> Option<BTreeMap<u32, MeasuredSize>> {
        let blocks: Vec<&Block> =
            self.blocks.iter().filter(|block| block.place.function == function).collect();
        let failed: BTreeSet<u32> = blocks
            .iter()
            .filter(|block| block.failure.is_some())
            .map(|block| block.place.memory_mb)
            .collect();
        let mut sizes = BTreeMap::new();
        for &memory_mb in protocol.sizes.iter().filter(|size| !failed.contains(size)) {
            let of_size: Vec<&&Block> =
                blocks.iter().filter(|block| block.place.memory_mb == memory_mb).collect();
            if of_size.len() < usize::try_from(protocol.rounds).unwrap_or(usize::MAX) {
                return None;
            }
            let mut size = MeasuredSize::default();
            for block in of_size {
                add_halves(&mut size, &block.rows, &mut sequence_of(function, block.place.round + memory_mb));
                size.disturbed_blocks += u32::from(block.is_disturbed);
            }
            sizes.insert(memory_mb, size);
        }
        Some(sizes)
    }
}

/// Adds one invocation of each pair of neighbours to the telemetry, and the other one to the truth, so that both have the same
/// conditions. The choice is random, because garbage is often collected in every second invocation.
fn add_halves(size: &mut MeasuredSize, rows: &[Row], random: &mut Random) {
    for pair in rows.chunks(2) {
        let chosen = usize::from(pair.len() > 1 && random.below(2) == 1);
        for (at, row) in pair.iter().enumerate() {
            if at == chosen { size.telemetry.push(row.clone()) } else { size.truth_us.push(row.0) }
        }
    }
}

/// The state file of the output `out`.
pub(super) fn path_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".state.jsonl");
    out.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailor_sizing_eval::truth::{self, Role};

    #[test]
    fn both_halves_have_invocations_of_each_kind_when_they_alternate() {
        let mut size = MeasuredSize::default();
        let rows: Vec<Row> = (0..60).map(|at| (1_000 + 1_000 * (at % 2), 2, 3, vec![])).collect();
        add_halves(&mut size, &rows, &mut sequence_of("collects-in-every-second", 128));
        let long = size.truth_us.iter().filter(|duration_us| **duration_us == 2_000).count();
        assert!((8..=22).contains(&long), "{long} of 30");
    }

    #[test]
    fn an_interrupted_run_is_resumed_and_complete_functions_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("truth.json.gz");
        let protocol =
            Protocol { schema: "1".into(), rounds: 2, invocations: 4, sizes: vec![128, 256], counters: 37 };
        let place = |function: &str, round, memory_mb| Place { function: function.into(), round, memory_mb };
        let block = |place: Place| Block {
            place,
            warm_up_calls: 20,
            is_disturbed: false,
            rows: (0..4).map(|at| (1_000 + at, 2, 3, vec![5, 6])).collect(),
            failure: None,
        };
        let open = |resume| State::open(path_of(&out), &protocol, resume);
        let mut state = open(false).unwrap();
        for (round, memory_mb) in [(0, 256), (0, 128), (1, 128)] {
            state.add(block(place("a", round, memory_mb))).unwrap();
        }
        let failure = Some("out of memory".to_owned());
        state.add(Block { rows: vec![], failure, ..block(place("b", 0, 128)) }).unwrap();
        drop(state);
        fs::OpenOptions::new()
            .append(true)
            .open(path_of(&out))
            .unwrap()
            .write_all(b"{\"function\":\"a")
            .unwrap();

        assert!(open(false).unwrap_err().to_string().contains("--resume"));
        let mut state = open(true).unwrap();
        assert!(state.is_done(&place("a", 1, 128)) && !state.is_done(&place("a", 1, 256)));
        assert!(state.is_done(&place("b", 1, 128)), "it does not work at this size");
        let function = |name: &str| Function {
            name: name.into(),
            language: "go".into(),
            workload: "w".into(),
            event: "{}".into(),
            kind: "short".into(),
            role: Role::Validation,
            real: true,
        };
        let functions = [function("a"), function("b")];
        assert!(state.truth(&functions, &protocol).functions.is_empty());
        for (name, round) in [("a", 1), ("b", 0), ("b", 1)] {
            state.add(block(place(name, round, 256))).unwrap();
        }
        let measured = open(true).unwrap().truth(&functions, &protocol);
        truth::write(&out, &measured).unwrap();
        let measured_again = truth::read(&out).unwrap();
        assert_eq!(measured_again, measured);
        assert_eq!(measured.functions["b"].sizes.keys().collect::<Vec<_>>(), [&256]);
        let size = &measured.functions["a"].sizes[&128];
        assert_eq!((size.telemetry.len(), size.truth_us.len()), (4, 4));
        let pairs = size.telemetry.iter().map(|row| row.0).zip(size.truth_us.iter().copied());
        assert!(pairs.into_iter().all(|(one, other)| one / 2 == other / 2 && one != other), "{size:?}");
        let cases = measured.cases(Some(Role::Validation));
        assert_eq!(cases.len(), 1, "one size is no case");
        assert!((1.001..=1.002).contains(&cases[0].1.sizes[0].truth_ms));
        assert!(measured.cases(Some(Role::Train)).is_empty());

        let other = Protocol { invocations: 6, ..protocol.clone() };
        assert!(State::open(path_of(&out), &other, true).is_err(), "other options");
    }
}
