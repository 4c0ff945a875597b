//! The functions for which a change is advised.

use tailor_sizing::advice::Verdict as Advised;

use super::Tuner;
use super::canary::Sample;
use super::guards::Evidence;
use super::known::by_own_goal;
use crate::report::Evaluation;
use crate::store::StoreError;

/// A function whose advice is to change.
pub(super) struct Candidate {
    pub(super) evaluation: Evaluation,
    pub(super) evidence: Evidence,
    pub(super) sample: Sample,
    /// Cost of all functions in the window, dollars.
    pub(super) spend_usd: f64,
}

/// The functions for which a change is advised, the next one to change first.
pub(super) async fn candidates(tuner: &Tuner) -> Result<Vec<Candidate>, StoreError> {
    let evaluations = tuner.telemetry.evaluations(None, tuner.settings.strategy).await?;
    let mut candidates = Vec::new();
    let (mut spend_usd, mut reads) = (0.0, 0);
    for evaluation in evaluations {
        let rates = tuner.telemetry.rates(&evaluation.key, evaluation.architecture);
        let evidence =
            Evidence::of(&evaluation.present, evaluation.memory, evaluation.architecture, rates.as_ref());
        spend_usd += evidence.cost_usd;
        if is_change(&evaluation) || evidence.out_of_memory > 0 {
            let sample = Sample::of(&evaluation.present);
            candidates.push(Candidate { evaluation, evidence, sample, spend_usd: 0.0 });
        } else if let Some(own) = by_own_goal(tuner, &evaluation, &mut reads).await?.filter(is_change) {
            let sample = Sample::of(&own.present);
            candidates.push(Candidate { evaluation: own, evidence, sample, spend_usd: 0.0 });
        }
    }
    candidates.iter_mut().for_each(|candidate| candidate.spend_usd = spend_usd);
    tuner.queue.sort(&mut candidates, tuner.clock.now_us());
    Ok(candidates)
}

fn is_change(evaluation: &Evaluation) -> bool {
    let verdict = evaluation.advice.as_ref().ok().map(|advice| advice.verdict);
    matches!(verdict, Some(Advised::Change | Advised::RaiseForMemory))
}
