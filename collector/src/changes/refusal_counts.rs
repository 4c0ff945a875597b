//! How often guard-rails refused changes, for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::store::Tenant;

/// Refusals since the start, by tenant and code.
#[derive(Debug, Default)]
pub struct RefusalCounts(Mutex<BTreeMap<Tenant, BTreeMap<&'static str, u64>>>);

impl RefusalCounts {
    /// Counts a refusal with this code.
    pub fn count(&self, tenant: &Tenant, code: &'static str) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tenants.entry(tenant.clone()).or_default().entry(code).or_default() += 1;
    }

    /// The refusals of a tenant's functions.
    #[must_use]
    pub fn of(&self, tenant: &Tenant) -> BTreeMap<&'static str, u64> {
        let tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.get(tenant).cloned().unwrap_or_default()
    }
}
