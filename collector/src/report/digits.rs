//! Rounds what the model computes to digits that have a meaning: milliseconds, megabytes, hours, percentages and shares to
//! three decimals. Without it, most numbers have 17 digits in JSON.

use tailor_sizing::advice::{Confidence, CurvePoint, TrialMeasurement};
use tailor_sizing::model::interval::Prediction;
use tailor_sizing::model::memory_floor::MemoryFloor;

use super::round_to_micros as rounded;

pub(super) fn trial(trial: TrialMeasurement) -> TrialMeasurement {
    TrialMeasurement { expected_gain_percent: rounded(trial.expected_gain_percent), ..trial }
}

pub(super) fn floor(floor: MemoryFloor) -> MemoryFloor {
    MemoryFloor {
        peak_mb: rounded(floor.peak_mb),
        processes_peak_mb: rounded(floor.processes_peak_mb),
        environment_peak_mb: rounded(floor.environment_peak_mb),
        margin: rounded(floor.margin),
        ..floor
    }
}

pub(super) fn confidence(confidence: Confidence) -> Confidence {
    Confidence {
        span_hours: rounded(confidence.span_hours),
        duration_within_percent: rounded(confidence.duration_within_percent),
        ..confidence
    }
}

pub(super) fn point(point: CurvePoint) -> CurvePoint {
    CurvePoint {
        mean: prediction(point.mean),
        p50: prediction(point.p50),
        p95: prediction(point.p95),
        p99: prediction(point.p99),
        ..point
    }
}

fn prediction(prediction: Prediction) -> Prediction {
    Prediction {
        mean_ms: rounded(prediction.mean_ms),
        interval_80: prediction.interval_80.map(rounded),
        interval_95: prediction.interval_95.map(rounded),
    }
}
