//! The calls to Lambda's control plane that the tuner makes, through the AWS SDK.

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

/// Timeout of one call, including its retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// The status of the last update of a function (`LastUpdateStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// New invocations use the updated configuration.
    Successful,
    /// New invocations still use the previous configuration.
    InProgress,
    /// The update failed.
    Failed,
}

/// The configuration of a function, as Lambda returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its account, from its ARN; empty when the ARN has none.
    pub account: String,
    /// Memory size of `$LATEST`.
    pub memory: Megabytes,
    /// Changes with every update. A write names the revision on which it was decided.
    pub revision_id: String,
    /// SHA-256 of its code.
    pub code_sha256: String,
    /// Status of the last update.
    pub update: Update,
    /// Whether SnapStart applies to published versions.
    pub snap_start: bool,
    /// Its tags.
    pub tags: HashMap<String, String>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LambdaError {
    /// The function does not exist.
    #[error("function `{0}` does not exist in this account and region")]
    NoFunction(String),
    /// The function was updated since the named revision, or is being updated.
    #[error("the function was changed in the meantime: {0}")]
    Changed(String),
    /// Any other error.
    #[error("the Lambda API returned an error: {0}")]
    Other(String),
}

/// The calls that the tuner makes.
#[async_trait]
pub trait Lambda: Send + Sync {
    /// Reads a function's configuration and tags.
    async fn configuration(&self, function: &FunctionKey) -> Result<Configuration, LambdaError>;

    /// Sets the memory size, if the function still has this revision.
    async fn set_memory(
        &self,
        function: &FunctionKey,
        memory: Megabytes,
        revision_id: &str,
    ) -> Result<(), LambdaError>;
}

/// The Lambda API, or a compatible server at the configured endpoint.
pub struct AwsLambda {
    shared: SdkConfig,
    endpoint: Option<String>,
    // One client for each region. The mutex is held while a client is created.
    clients: Mutex<HashMap<String, Client>>,
}

impl AwsLambda {
    /// Credentials come from the default provider chain of the AWS SDK, and so does the endpoint unless `endpoint` is set.
    pub async fn new(endpoint: Option<String>) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build();
        // Calls use the region of each function. This default only prevents a lookup of the region by the SDK.
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

    /// The settings that all clients share.
    pub(crate) const fn shared(&self) -> &SdkConfig {
        &self.shared
    }

    /// The client of a region.
    pub(crate) async fn client(&self, region: &str) -> Client {
        let mut clients = self.clients.lock().await;
        let create = || {
            let mut config =
                aws_sdk_lambda::config::Builder::from(&self.shared).region(Region::new(region.to_owned()));
            // Without it, the SDK uses AWS's environment variables and configuration files.
            if let Some(endpoint) = &self.endpoint {
                config.set_endpoint_url(Some(endpoint.clone()));
            }
            Client::from_conf(config.build())
        };
        clients.entry(region.to_owned()).or_insert_with(create).clone()
    }
}

#[async_trait]
impl Lambda for AwsLambda {
    async fn configuration(&self, function: &FunctionKey) -> Result<Configuration, LambdaError> {
        let client = self.client(&function.region).await;
        // `GetFunction` returns both configuration and tags, and has the highest request quota of the control plane.
        let response =
            client.get_function().function_name(&function.name).send().await.map_err(|error| match error
                .as_service_error()
            {
                Some(service) if service.is_resource_not_found_exception() => {
                    LambdaError::NoFunction(function.name.clone())
                }
                _ => LambdaError::Other(DisplayErrorContext(&error).to_string()),
            })?;
        let incomplete = || LambdaError::Other(format!("the response for `{}` is incomplete", function.name));
        let configuration = response.configuration().ok_or_else(incomplete)?;
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
            tags: response.tags().cloned().unwrap_or_default(),
        })
    }

    async fn set_memory(
        &self,
        function: &FunctionKey,
        memory: Megabytes,
        revision_id: &str,
    ) -> Result<(), LambdaError> {
        let size = i32::try_from(memory.0)
            .map_err(|_| LambdaError::Other(format!("{memory} is not a valid memory size")))?;
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
