//! The few calls of Lambda's control plane that the tuner makes, and AWS's SDK behind them.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::DisplayErrorContext;
use aws_sdk_lambda::types::LastUpdateStatus;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::Mutex;

use tailor_sizing::units::Megabytes;

use crate::store::FunctionKey;

/// The longest one call may take, retries included.
const CALL_DEADLINE: Duration = Duration::from_secs(20);

/// How far Lambda is with the last update of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// It is in force.
    Successful,
    /// Invocations still run as before it.
    InProgress,
    /// It was not carried out.
    Failed,
}

/// What Lambda says of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its account, from its name in full; empty when that could not be read.
    pub account: String,
    /// Memory size of `$LATEST`.
    pub memory: Megabytes,
    /// Changes with every update: a write names the revision it was decided on.
    pub revision_id: String,
    /// Which code it runs.
    pub code_sha256: String,
    /// How far the last update is.
    pub update: Update,
    /// Whether published versions start from snapshots.
    pub snap_start: bool,
    /// Its tags.
    pub tags: HashMap<String, String>,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LambdaError {
    /// There is no such function.
    #[error("Lambda knows no function `{0}` in this account and region")]
    NoFunction(String),
    /// The function was changed since the revision that was named, or is being changed now.
    #[error("the function was changed meanwhile: {0}")]
    Changed(String),
    /// Anything else.
    #[error("Lambda refused: {0}")]
    Other(String),
}

/// What the tuner asks of Lambda.
#[async_trait]
pub trait Lambda: Send + Sync {
    /// Reads a function's configuration and tags.
    async fn configuration(&self, function: &FunctionKey) -> Result<Configuration, LambdaError>;

    /// Sets the memory size, if the function still is at that revision.
    async fn set_memory(
        &self,
        function: &FunctionKey,
        memory: Megabytes,
        revision_id: &str,
    ) -> Result<(), LambdaError>;
}

/// Lambda itself, or whatever serves its API at the endpoint that is set.
pub struct AwsLambda {
    shared: SdkConfig,
    endpoint: Option<String>,
    // One client for each region; held while one is made.
    clients: Mutex<HashMap<String, Client>>,
}

impl AwsLambda {
    /// Credentials come from where AWS's tools find them; so does the endpoint unless one is given.
    pub async fn new(endpoint: Option<String>) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder().operation_timeout(CALL_DEADLINE).build();
        // Each function's own region is used. This one only keeps the SDK from asking around for a default.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(Region::new("us-east-1"));
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            .http_client(http)
            .timeout_config(timeouts)
            .load()
            .await;
        Self { shared, endpoint, clients: Mutex::new(HashMap::new()) }
    }

    async fn client(&self, region: &str) -> Client {
        let mut clients = self.clients.lock().await;
        let make = || {
            let mut config =
                aws_sdk_lambda::config::Builder::from(&self.shared).region(Region::new(region.to_owned()));
            // Unset, it is what AWS's own variables and files say.
            if let Some(endpoint) = &self.endpoint {
                config.set_endpoint_url(Some(endpoint.clone()));
            }
            Client::from_conf(config.build())
        };
        clients.entry(region.to_owned()).or_insert_with(make).clone()
    }
}

#[async_trait]
impl Lambda for AwsLambda {
    async fn configuration(&self, function: &FunctionKey) -> Result<Configuration, LambdaError> {
        let client = self.client(&function.region).await;
        // One call for both; it also has the widest of Lambda's control-plane quotas.
        let answer =
            client.get_function().function_name(&function.name).send().await.map_err(|error| match error
                .as_service_error()
            {
                Some(service) if service.is_resource_not_found_exception() => {
                    LambdaError::NoFunction(function.name.clone())
                }
                _ => LambdaError::Other(DisplayErrorContext(&error).to_string()),
            })?;
        let incomplete = || LambdaError::Other(format!("the answer about `{}` is incomplete", function.name));
        let configuration = answer.configuration().ok_or_else(incomplete)?;
        let memory = configuration.memory_size().and_then(|size| u32::try_from(size).ok());
        Ok(Configuration {
            account: account_of(configuration.function_arn().unwrap_or_default()).to_owned(),
            memory: Megabytes(memory.ok_or_else(incomplete)?),
            revision_id: configuration.revision_id().ok_or_else(incomplete)?.to_owned(),
            code_sha256: configuration.code_sha256().unwrap_or_default().to_owned(),
            update: match configuration.last_update_status() {
                // Functions that were never updated have no status.
                None | Some(LastUpdateStatus::Successful) => Update::Successful,
                Some(LastUpdateStatus::Failed) => Update::Failed,
                Some(_) => Update::InProgress,
            },
            snap_start: configuration
                .snap_start()
                .and_then(|snap_start| snap_start.apply_on())
                .is_some_and(|apply_on| apply_on.as_str() != "None"),
            tags: answer.tags().cloned().unwrap_or_default(),
        })
    }

    async fn set_memory(
        &self,
        function: &FunctionKey,
        memory: Megabytes,
        revision_id: &str,
    ) -> Result<(), LambdaError> {
        let size = i32::try_from(memory.0).map_err(|_| LambdaError::Other(format!("{memory} is no size")))?;
        let client = self.client(&function.region).await;
        let call = client
            .update_function_configuration()
            .function_name(&function.name)
            .memory_size(size)
            .revision_id(revision_id);
        call.send().await.map(drop).map_err(|error| {
            let text = DisplayErrorContext(&error).to_string();
            match error.as_service_error() {
                Some(service) if service.is_resource_not_found_exception() => {
                    LambdaError::NoFunction(function.name.clone())
                }
                Some(service)
                    if service.is_precondition_failed_exception()
                        || service.is_resource_conflict_exception() =>
                {
                    LambdaError::Changed(text)
                }
                _ => LambdaError::Other(text),
            }
        })
    }
}

/// The account in `arn:aws:lambda:REGION:ACCOUNT:function:NAME`.
fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}
