//! The alias that gets the best size: what it serves before the experiment.

use anyhow::bail;

use crate::experiment::aws::{Alias, Configuration, FunctionCalls};
use crate::tuner::machine::is_marked;

/// Reads an alias; `None` when it does not exist. It is refused when a version of `$LATEST` would release more than a memory
/// size, or when others are changing it.
pub(super) async fn read(
    calls: &FunctionCalls,
    name: &str,
    latest: &Configuration,
) -> anyhow::Result<Option<Alias>> {
    let Some(alias) = calls.alias(name).await? else { return Ok(None) };
    let served = calls.configuration(Some(&alias.version)).await?;
    if let Some(reason) = refusal(name, &alias, &served, latest) {
        bail!(reason);
    }
    Ok(Some(alias))
}

fn refusal(name: &str, alias: &Alias, served: &Configuration, latest: &Configuration) -> Option<String> {
    if alias.has_weights {
        return Some(format!("alias `{name}` has weights: a deployment is in progress"));
    }
    if is_marked(&alias.description) {
        return Some(format!(
            "the description of alias `{name}` has the mark of an unfinished change of the tuner: finish it first"
        ));
    }
    if (&served.code_sha256, &served.settings) != (&latest.code_sha256, &latest.settings) {
        return Some(format!(
            "`$LATEST` has other code or settings than version {}, which alias `{name}` serves: a new version would release what is not released",
            alias.version
        ));
    }
    None
}
