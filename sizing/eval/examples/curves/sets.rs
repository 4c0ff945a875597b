//! Reads the published curves. Each file is comma-separated with a header and no quoted cells.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

/// Memory in MB and mean duration in ms, in ascending order of memory.
pub(crate) type Curve = Vec<(u32, f64)>;

/// Curves of one source.
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) curves: Vec<Curve>,
}

/// Fewest sizes of a curve, so that some remain to be predicted.
const FEWEST_SIZES: usize = 4;

/// For each file: its name, the column that identifies the set, the columns that identify the curve, and the column of
/// the duration.
const FILES: [(&str, &str, &[&str], &str); 3] = [
    (
        "benchmark-2025-warm-and-cold.csv",
        "start",
        &["run", "workload", "runtime", "arch"],
        "duration_ms_mean",
    ),
    ("cold-start-by-runtime.csv", "package", &["runtime", "arch"], "first_duration_ms_mean"),
    ("power-tuning-published.csv", "start", &["curve"], "duration_ms"),
];

pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<Set>> {
    let mut sets = Vec::new();
    for (file, set_column, keys, duration) in FILES {
        let path = folder.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut groups: BTreeMap<String, BTreeMap<String, BTreeMap<u32, f64>>> = BTreeMap::new();
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let column = |name: &str| {
            header
                .iter()
                .position(|cell| *cell == name)
                .with_context(|| format!("no column `{name}` in {file}"))
        };
        let (set_column, memory, duration) = (column(set_column)?, column("memory_mb")?, column(duration)?);
        let keys = keys.iter().map(|name| column(name)).collect::<anyhow::Result<Vec<_>>>()?;
        for line in lines {
            let cells: Vec<&str> = line.split(',').collect();
            let cell = |index: usize| cells.get(index).copied().unwrap_or_default();
            let (Ok(memory), Ok(ms)) = (cell(memory).parse::<u32>(), cell(duration).parse::<f64>()) else {
                continue;
            };
            let name = format!("{} {}", file.trim_end_matches(".csv"), cell(set_column));
            let key = keys.iter().map(|&index| cell(index)).collect::<Vec<_>>().join(" ");
            groups.entry(name).or_default().entry(key).or_default().insert(memory, ms);
        }
        sets.extend(groups.into_iter().map(|(name, curves)| {
            Set {
                name: name.trim().to_owned(),
                curves: curves
                    .into_values()
                    .map(|curve| curve.into_iter().filter(|(_, ms)| *ms > 0.0).collect::<Curve>())
                    .filter(|curve| curve.len() >= FEWEST_SIZES)
                    .collect(),
            }
        }));
    }
    sets.retain(|set| !set.curves.is_empty());
    Ok(sets)
}
