//! Sums of the bill of one function per day and per hour. They are stored with the function's summaries, so that the bill of a
//! large fleet in any window adds up whole days, and hours at its ends only.

use std::collections::BTreeMap;

use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::units::{Architecture, Megabytes};

use super::material::{BilledEnvironment, BilledSeries, SeriesSums, WindowSums};
use crate::report::MeasuredBy;
use crate::report::varint::{put, take};
use crate::store::{Environments, HOUR_US, StoredRollup, SummaryKind, Window};

const DAY_HOURS: u64 = 24;

/// The version of the encoding.
const ENCODING: u128 = 1;

/// Numbers of a series in a span. At most as many as a mask of 16 bits has.
const NUMBERS: usize = 12;

/// Sums of one span by the index of their series.
type Cells = BTreeMap<usize, SeriesSums>;

/// The kind of summary with these sums. They are of no window.
pub(in crate::report) fn spans_kind() -> SummaryKind {
    SummaryKind { hours: 0, strategy: "bill-spans".to_owned() }
}

/// The sums of one day.
#[derive(Debug, Default)]
struct Day {
    /// Rollups of the whole day: its hours are not known any more.
    merged: Cells,
    /// The sum of `hours`.
    hourly: Cells,
    /// By hours since the Unix epoch.
    hours: BTreeMap<u64, Cells>,
}

/// The sums to store: all rollups and environments of one function.
pub(in crate::report) fn encode(rollups: &[StoredRollup], environments: &Environments) -> Vec<u8> {
    let mut series: BTreeMap<BilledSeries, usize> =
        rollups.iter().map(|stored| (BilledSeries::of(&stored.key), 0)).collect();
    series.values_mut().enumerate().for_each(|(index, place)| *place = index);
    let mut days: BTreeMap<u64, Day> = BTreeMap::new();
    for stored in rollups {
        let Some(index) = series.get(&BilledSeries::of(&stored.key)) else { continue };
        let sums = SeriesSums::of(&stored.rollup);
        let day = days.entry(stored.from_hour / DAY_HOURS).or_default();
        if stored.hours == 1 {
            day.hourly.entry(*index).or_default().merge(&sums);
            day.hours.entry(stored.from_hour).or_default().entry(*index).or_default().merge(&sums);
        } else {
            day.merged.entry(*index).or_default().merge(&sums);
        }
    }
    let mut bytes = vec![];
    put(&mut bytes, ENCODING);
    encode_environments(environments, &mut bytes);
    put(&mut bytes, series.len() as u128);
    for BilledSeries { version, memory, architecture } in series.keys() {
        put_text(&mut bytes, version);
        put(&mut bytes, memory.0.into());
        put(&mut bytes, u128::from(*architecture == Architecture::Arm64));
    }
    put(&mut bytes, days.len() as u128);
    let mut last = 0;
    for (day, sums) in &days {
        let encoded = encode_day(*day, sums);
        put(&mut bytes, u128::from(day - last));
        put(&mut bytes, encoded.len() as u128);
        bytes.extend(encoded);
        last = *day;
    }
    bytes
}

fn encode_day(day: u64, sums: &Day) -> Vec<u8> {
    let start_hour = day.saturating_mul(DAY_HOURS);
    let mut bytes = vec![];
    encode_cells(start_hour, &sums.merged, &mut bytes);
    encode_cells(start_hour, &sums.hourly, &mut bytes);
    put(&mut bytes, sums.hours.len() as u128);
    for (hour, cells) in &sums.hours {
        put(&mut bytes, u128::from(hour - start_hour));
        encode_cells(*hour, cells, &mut bytes);
    }
    bytes
}

/// Times are stored as differences from the start of the span, and numbers that are zero are left out.
fn encode_cells(hour: u64, cells: &Cells, bytes: &mut Vec<u8>) {
    put(bytes, cells.len() as u128);
    for (index, sums) in cells {
        put(bytes, *index as u128);
        let numbers = numbers(hour.saturating_mul(HOUR_US), sums);
        let mask = numbers.iter().rev().fold(0u128, |mask, number| (mask << 1) | u128::from(*number > 0));
        put(bytes, mask);
        numbers.iter().filter(|number| **number > 0).for_each(|number| put(bytes, u128::from(*number)));
    }
}

fn numbers(start_us: u64, sums: &SeriesSums) -> [u64; NUMBERS] {
    let first = &sums.initializations;
    [
        sums.invocations,
        sums.billed_ms,
        sums.first_at_us.wrapping_sub(start_us),
        sums.last_at_us.wrapping_sub(sums.first_at_us),
        sums.measured,
        sums.sent_bytes,
        sums.init_us,
        first.on_demand,
        first.proactive,
        first.provisioned_concurrency,
        first.snap_start,
        first.inside_invocation,
    ]
}

/// Stores of which environment the newest batch is, and when the newest batches of extensions and of imports were received.
fn encode_environments(environments: &Environments, bytes: &mut Vec<u8>) {
    let (mut layer, mut logs) = (0, 0);
    for (received_at_us, header) in environments.headers() {
        let newest = if header.environment.is_imported() { &mut logs } else { &mut layer };
        *newest = received_at_us.saturating_add(1).max(*newest);
    }
    put(bytes, u128::from(layer));
    put(bytes, u128::from(logs));
    let environment = environments.newest_header().map(|header| &header.environment);
    put_text(bytes, environment.map_or("", |environment| environment.runtime.as_str()));
    put(bytes, environment.map_or(0, |environment| environment.ephemeral_mb.into()));
    put(bytes, environment.is_some_and(|environment| environment.is_managed_instances()).into());
}

/// The sums of a window; `None` when `bytes` are damaged or of another version.
///
/// As in the store, a day whose hours are not known belongs to the window when its last hour does.
pub(super) fn decode(mut bytes: &[u8], window: Window) -> Option<WindowSums> {
    let bytes = &mut bytes;
    if take(bytes)? != ENCODING {
        return None;
    }
    let environment = decode_environments(bytes, window)?;
    let mut series: Vec<(BilledSeries, Option<SeriesSums>)> = vec![];
    for _ in 0..take(bytes)? {
        let (version, memory) = (take_text(bytes)?, Megabytes(next(bytes)?));
        let architecture = if take(bytes)? == 1 { Architecture::Arm64 } else { Architecture::X86_64 };
        series.push((BilledSeries { version, memory, architecture }, None));
    }
    let mut add = |index: usize, sums: &SeriesSums| {
        series.get_mut(index)?.1.get_or_insert_default().merge(sums);
        Some(())
    };
    let mut day = 0u64;
    for _ in 0..take(bytes)? {
        day = day.checked_add(next(bytes)?)?;
        let length = next(bytes)?;
        let (encoded, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        decode_day(day, encoded, window, &mut add)?;
    }
    let series = series.into_iter().filter_map(|(key, sums)| Some((key, sums?))).collect();
    bytes.is_empty().then_some(WindowSums { series, environment })
}

/// Adds the part of a day that is in the window. Hours are read only when a part of the day is outside.
fn decode_day(
    day: u64,
    mut bytes: &[u8],
    window: Window,
    add: &mut impl FnMut(usize, &SeriesSums) -> Option<()>,
) -> Option<()> {
    let bytes = &mut bytes;
    let start_hour = day.checked_mul(DAY_HOURS)?;
    let end_hour = start_hour.checked_add(DAY_HOURS)?;
    if end_hour <= window.from_hour || start_hour >= window.until_hour {
        return Some(());
    }
    decode_cells(start_hour, bytes, add)?;
    if window.from_hour <= start_hour && end_hour <= window.until_hour {
        return decode_cells(start_hour, bytes, add);
    }
    decode_cells(start_hour, bytes, &mut |_, _| Some(()))?;
    for _ in 0..take(bytes)? {
        let hour = start_hour.checked_add(next(bytes)?)?;
        if (window.from_hour..window.until_hour).contains(&hour) {
            decode_cells(hour, bytes, add)?;
        } else {
            decode_cells(hour, bytes, &mut |_, _| Some(()))?;
        }
    }
    Some(())
}

fn decode_cells(
    hour: u64,
    bytes: &mut &[u8],
    add: &mut impl FnMut(usize, &SeriesSums) -> Option<()>,
) -> Option<()> {
    let start_us = hour.saturating_mul(HOUR_US);
    for _ in 0..take(bytes)? {
        let index = next(bytes)?;
        let mask = take(bytes)?;
        let mut numbers = [0u64; NUMBERS];
        for (place, number) in numbers.iter_mut().enumerate() {
            if (mask >> place) & 1 == 1 {
                *number = next(bytes)?;
            }
        }
        add(index, &sums(start_us, numbers))?;
    }
    Some(())
}

/// The reverse of [`numbers`].
fn sums(start_us: u64, numbers: [u64; NUMBERS]) -> SeriesSums {
    let [
        invocations,
        billed_ms,
        first,
        last,
        measured,
        sent_bytes,
        init_us,
        on_demand,
        proactive,
        provisioned_concurrency,
        snap_start,
        inside_invocation,
    ] = numbers;
    let first_at_us = first.wrapping_add(start_us);
    SeriesSums {
        invocations,
        billed_ms,
        init_us,
        initializations: Initializations {
            on_demand,
            proactive,
            provisioned_concurrency,
            snap_start,
            inside_invocation,
        },
        measured,
        sent_bytes,
        first_at_us,
        last_at_us: last.wrapping_add(first_at_us),
    }
}

/// What is known of the environments that sent a batch since the start of the window.
fn decode_environments(bytes: &mut &[u8], window: Window) -> Option<BilledEnvironment> {
    let (layer, logs): (u64, u64) = (next(bytes)?, next(bytes)?);
    let (runtime, ephemeral_mb, is_managed) = (take_text(bytes)?, next(bytes)?, take(bytes)? == 1);
    let is_in_window = |received: u64| received > window.from_us();
    if !is_in_window(layer.max(logs)) {
        return Some(BilledEnvironment::default());
    }
    let measured_by = MeasuredBy::of(is_in_window(layer), is_in_window(logs));
    Some(BilledEnvironment { runtime, ephemeral_mb, is_managed, measured_by })
}

fn next<T: TryFrom<u128>>(bytes: &mut &[u8]) -> Option<T> {
    T::try_from(take(bytes)?).ok()
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, text.len() as u128);
    bytes.extend(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = next(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use agent_proto::batch::{BatchHeader, Environment, InitializationType, Lost, Overhead};
    use proptest::prelude::*;
    use tailor_sizing::telemetry::invocation::Work;
    use tailor_sizing::telemetry::rollup::{Rollup, WorkSum};

    use super::*;
    use crate::report::bill::material::BillMaterial;
    use crate::report::evaluation::Material;
    use crate::report::summaries::{merged, since};
    use crate::store::{EnvironmentState, FunctionKey, SeriesKey};

    /// The beginning of a day, hours since the Unix epoch.
    const START_HOUR: u64 = 20_000 * DAY_HOURS;
    const HOURS: u64 = 240;

    fn stored() -> impl Strategy<Value = StoredRollup> {
        let series = (0..3u32, 1..3u32, any::<bool>());
        let numbers = prop::array::uniform5(0..1u64 << 36);
        (0..HOURS, any::<bool>(), series, numbers).prop_map(
            |(hour, is_day, (version, size, arm), numbers)| {
                let (from_hour, hours) =
                    if is_day { (hour - hour % DAY_HOURS, DAY_HOURS) } else { (hour, 1) };
                let from_hour = START_HOUR + from_hour;
                let function = FunctionKey {
                    account: "123456789012".to_owned(),
                    region: "eu-west-1".to_owned(),
                    name: "f".to_owned(),
                };
                let architecture = if arm { Architecture::Arm64 } else { Architecture::X86_64 };
                let key = SeriesKey {
                    function,
                    version: version.to_string(),
                    memory: Megabytes(128 * size),
                    architecture,
                };
                let [billed_ms, init_us, sent_bytes, first, last] = numbers;
                let first_at_us = from_hour * HOUR_US + first % HOUR_US;
                let rollup = Rollup {
                    invocations: last % 1_000,
                    billed_ms,
                    init_us,
                    initializations: Initializations {
                        on_demand: billed_ms % 3,
                        proactive: init_us % 3,
                        provisioned_concurrency: sent_bytes % 3,
                        snap_start: first % 3,
                        inside_invocation: last % 3,
                    },
                    first_at_us,
                    last_at_us: first_at_us + last % HOUR_US,
                    warm: WorkSum {
                        invocations: first % 2,
                        work: Work { network_tx_bytes: sent_bytes, ..Work::default() },
                        ..WorkSum::default()
                    },
                    ..Rollup::default()
                };
                StoredRollup { key, from_hour, hours, rollup }
            },
        )
    }

    /// The environments that sent their newest batch in these hours.
    fn environments(received: &[(u64, bool, bool)]) -> Environments {
        let state = |(id, &(hour, is_imported, is_managed)): (usize, &(u64, bool, bool))| {
            let own = crate::report::losses::tests::environment();
            let environment = Environment {
                runtime: format!("runtime{id}"),
                ephemeral_mb: 512 + u32::try_from(hour).unwrap(),
                initialization_type: if is_managed {
                    InitializationType::ManagedInstances
                } else {
                    InitializationType::OnDemand
                },
                extension_version: if is_imported {
                    Environment::imported_by("1")
                } else {
                    own.extension_version.clone()
                },
                ..own
            };
            let received_at_us = (START_HOUR + hour) * HOUR_US;
            let header = BatchHeader {
                environment,
                sequence: 1,
                sent_at_us: received_at_us,
                lost: Lost::default(),
                overhead: Overhead::default(),
                unsent: 0,
                interval: None,
            };
            EnvironmentState::first(header, received_at_us)
        };
        Environments { live: received.iter().enumerate().map(state).collect(), ended: vec![] }
    }

    proptest! {
        #[test]
        fn any_window_has_the_plain_sum_of_its_rollups(
            rollups in prop::collection::vec(stored(), 1..80),
            received in prop::collection::vec((0..HOURS, any::<bool>(), any::<bool>()), 0..4),
            from in 0..HOURS,
            length in 1..HOURS,
            is_open in any::<bool>(),
        ) {
            let from_hour = START_HOUR + from;
            let until_hour = if is_open { Window::ALL.until_hour } else { from_hour + length };
            let window = Window { from_hour, until_hour };
            let environments = environments(&received);
            let plain = Material {
                series: merged(&rollups, window),
                environments: since(&environments, window.from_us()),
                changes: vec![],
            };
            let read = decode(&encode(&rollups, &environments), window);
            prop_assert!(read.is_some());
            prop_assert_eq!(read.and_then(BillMaterial::of_sums), BillMaterial::of(&plain));
        }

        #[test]
        fn sums_that_are_cut_are_not_read(rollups in prop::collection::vec(stored(), 1..8)) {
            let bytes = encode(&rollups, &environments(&[(3, false, true)]));
            for length in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..length], Window::ALL), None, "cut after {} bytes", length);
            }
        }
    }
}
