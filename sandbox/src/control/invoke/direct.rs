//! Invocations from the command line, without HTTP.

use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use bytes::Bytes;
use uuid::Uuid;

use crate::control::ControlPlane;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::update::ConfigurationUpdate;
use crate::control::invoke::buffered::{CheckedRequest, SentInvocation, new_trace_id, send};
use crate::control::server::error::AwsError;
use crate::environment::invocation::{Completion, Invocation, InvokeResult};

/// An invocation that is over.
pub struct CompletedInvocation {
    /// The response.
    pub result: InvokeResult,
    /// Report and log.
    pub completion: Completion,
}

impl ControlPlane {
    /// Invokes a function, at `memory_mb` if given, and waits until runtime and extensions are done.
    pub async fn invoke_directly(
        &self,
        name: &str,
        memory_mb: Option<u32>,
        payload: Bytes,
    ) -> anyhow::Result<CompletedInvocation> {
        let failed = |error: AwsError| anyhow!("{}: {}", error.exception, error.message);
        let function = FunctionRef::parse(name, None).map_err(failed)?;
        let resolved = {
            let mut catalog = self.catalog();
            let now = Instant::now();
            let current = catalog.record(name, now).map_err(failed)?.latest.config.memory_mb;
            if let Some(memory_mb) = memory_mb.filter(|requested| *requested != current) {
                let update = ConfigurationUpdate::memory(memory_mb);
                let changed = catalog.update_configuration(name, update, now, SystemTime::now());
                let generation = changed.map_err(failed)?.latest.generation;
                self.fleet.retire(name, crate::control::catalog::record::LATEST, generation);
            }
            catalog.resolve(&function, now, 1.0).map_err(failed)?
        };
        let invocation = Invocation {
            request_id: Uuid::new_v4().to_string(),
            payload,
            function_arn: resolved.function_arn.clone(),
            trace_id: new_trace_id(),
            client_context: None,
            cognito_identity: None,
            tenant_id: resolved.target.config.tenant_isolation.then(|| "local".to_owned()),
        };
        let checked = CheckedRequest::trusted(resolved, invocation);
        let SentInvocation { result, completed } = send(self, &checked, None).await.map_err(failed)?;
        let result = result.await?;
        let completion = completed.await.map_err(|_| {
            anyhow!("the environment could not be used: {}", String::from_utf8_lossy(&result.payload))
        })?;
        Ok(CompletedInvocation { result, completion })
    }
}
