//! The calls to Lambda that an experiment makes, through the AWS SDK.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{LastUpdateStatus, LogType, State};
use aws_smithy_types::base64;
use aws_smithy_types::timeout::TimeoutConfig;

use tailor_sizing::units::{Architecture, Megabytes};

use crate::causes;
use crate::lambda_functions::{account_of, function_name, settings_digest};
use crate::store::FunctionKey;

/// Longest invocation of Lambda, and a minute.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(960);
/// Time limit for an update or a new version to become usable. Large images take minutes.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// Pause between two questions whether it is usable.
const READY_PAUSE: Duration = Duration::from_millis(300);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// What was named does not exist.
    #[error("{0} does not exist in this account and region")]
    NotFound(String),
    /// The function that was read is in another account than the one that was named.
    #[error(
        "`{function}` is in the account {found}, and the account {named} was named: use credentials of {named}"
    )]
    OtherAccount {
        /// The function.
        function: String,
        /// The account that was named.
        named: String,
        /// The account of the function.
        found: String,
    },
    /// An update or a new version did not become usable.
    #[error("{0}")]
    NotReady(String),
    /// Any other error.
    #[error("the Lambda API returned an error for {operation}: {text}")]
    Other {
        /// The operation.
        operation: &'static str,
        /// The error with its causes.
        text: String,
    },
}

/// The parts of a function's configuration that an experiment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its ARN.
    pub arn: String,
    /// Memory size.
    pub memory: Megabytes,
    /// Instruction set.
    pub architecture: Architecture,
    /// Description.
    pub description: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the code.
    pub code_sha256: String,
    /// Digest of the settings that change what an invocation does, without the memory size.
    pub settings: String,
    /// Changes with each update.
    pub revision_id: String,
    /// Size of `/tmp`, MB.
    pub ephemeral_mb: u32,
    /// Timeout of an invocation, s.
    pub timeout_s: u32,
    is_ready: bool,
    failure: Option<String>,
}

impl Configuration {
    /// The account of the function; empty when its ARN does not have it.
    #[must_use]
    pub fn account(&self) -> &str {
        account_of(&self.arn)
    }
}

/// An alias as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The version that it serves.
    pub version: String,
    /// Whether a part of its invocations goes to another version.
    pub has_weights: bool,
    /// Description.
    pub description: String,
    /// Changes with each update.
    pub revision_id: String,
}

/// The response of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether the function failed.
    pub is_error: bool,
    /// The end of the log, at most 4 KB.
    pub log: String,
}

/// The calls for one function.
#[derive(Debug, Clone)]
pub struct FunctionCalls {
    client: Client,
    /// The function as the calls name it.
    function: String,
    /// Its account; empty when not known.
    account: String,
}

impl FunctionCalls {
    /// The calls for a function, or for a version or an alias of it, through a client of its region.
    #[must_use]
    pub fn new(client: Client, key: &FunctionKey, qualifier: Option<&str>) -> Self {
        Self { client, function: function_name(key, qualifier), account: key.account.clone() }
    }

    /// Reads the configuration of `$LATEST`, or of a version or an alias.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn configuration(&self, qualifier: Option<&str>) -> Result<Configuration, CallError> {
        let call = self.client.get_function_configuration().function_name(&self.function);
        let response = call.set_qualifier(qualifier.map(str::to_owned)).send().await;
        let read = response.map_err(|error| self.error("GetFunctionConfiguration", &error))?;
        let configuration = self.configuration_of(&read)?;
        // A server other than AWS may ignore the account in the name.
        let found = configuration.account();
        if !self.account.is_empty() && !found.is_empty() && found != self.account {
            return Err(CallError::OtherAccount {
                function: self.function.clone(),
                named: self.account.clone(),
                found: found.to_owned(),
            });
        }
        Ok(configuration)
    }

    fn configuration_of(&self, read: &GetFunctionConfigurationOutput) -> Result<Configuration, CallError> {
        let incomplete = || CallError::Other {
            operation: "GetFunctionConfiguration",
            text: format!("the response for `{}` is incomplete", self.function),
        };
        let is_arm = read.architectures().iter().any(|architecture| architecture.as_str() == "arm64");
        let update = read.last_update_status();
        let is_failed = update == Some(&LastUpdateStatus::Failed) || read.state() == Some(&State::Failed);
        let reason =
            read.last_update_status_reason().or_else(|| read.state_reason()).unwrap_or("no reason given");
        Ok(Configuration {
            arn: read.function_arn().unwrap_or_default().to_owned(),
            memory: read
                .memory_size()
                .and_then(|mb| u32::try_from(mb).ok())
                .map(Megabytes)
                .ok_or_else(incomplete)?,
            architecture: if is_arm { Architecture::Arm64 } else { Architecture::X86_64 },
            description: read.description().unwrap_or_default().to_owned(),
            version: read.version().unwrap_or_default().to_owned(),
            code_sha256: read.code_sha256().unwrap_or_default().to_owned(),
            settings: hex::encode(settings_digest!(read)),
            revision_id: read.revision_id().unwrap_or_default().to_owned(),
            ephemeral_mb: read.ephemeral_storage().and_then(|s| u32::try_from(s.size()).ok()).unwrap_or(512),
            timeout_s: read.timeout().and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(3),
            is_ready: !matches!(update, Some(LastUpdateStatus::InProgress))
                && !matches!(read.state(), Some(State::Pending)),
            failure: is_failed.then(|| reason.to_owned()),
        })
    }

    /// Waits until an update or a new version is usable.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ready(&self, qualifier: Option<&str>) -> Result<Configuration, CallError> {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        loop {
            let configuration = self.configuration(qualifier).await?;
            if let Some(reason) = configuration.failure {
                return Err(CallError::NotReady(format!(
                    "the update of `{}` failed: {reason}",
                    self.function
                )));
            }
            if configuration.is_ready {
                return Ok(configuration);
            }
            if tokio::time::Instant::now() > deadline {
                let text = format!("`{}` was not usable after {} s", self.function, READY_TIMEOUT.as_secs());
                return Err(CallError::NotReady(text));
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Sets memory and description of `$LATEST`, if it still has this revision, and waits until they apply.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn update(
        &self,
        memory: Megabytes,
        description: &str,
        revision_id: &str,
    ) -> Result<Configuration, CallError> {
        let call = self.client.update_function_configuration().function_name(&self.function);
        let call = call.memory_size(i32::try_from(memory.0).unwrap_or(i32::MAX)).description(description);
        let response = call.revision_id(revision_id).send().await;
        response.map_err(|error| self.error("UpdateFunctionConfiguration", &error))?;
        self.ready(None).await
    }

    /// Publishes a version of `$LATEST` with this code and revision, and returns its number.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn publish(&self, code_sha256: &str, revision_id: &str) -> Result<String, CallError> {
        let call = self.client.publish_version().function_name(&self.function).code_sha256(code_sha256);
        let published = call
            .revision_id(revision_id)
            .send()
            .await
            .map_err(|error| self.error("PublishVersion", &error))?;
        Ok(published.version().unwrap_or_default().to_owned())
    }

    /// The numbers and descriptions of all versions.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn versions(&self) -> Result<Vec<(String, String)>, CallError> {
        let mut versions = Vec::new();
        let mut marker = None;
        loop {
            let call =
                self.client.list_versions_by_function().function_name(&self.function).set_marker(marker);
            let page = call.send().await.map_err(|error| self.error("ListVersionsByFunction", &error))?;
            versions.extend(page.versions().iter().map(|version| {
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                (text(version.version()), text(version.description()))
            }));
            marker = page.next_marker().map(str::to_owned);
            if marker.is_none() {
                return Ok(versions);
            }
        }
    }

    /// Deletes a version. One that does not exist is deleted already.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete(&self, version: &str) -> Result<(), CallError> {
        let call = self.client.delete_function().function_name(&self.function).qualifier(version);
        match call.send().await.map_err(|error| self.error("DeleteFunction", &error)) {
            Ok(_) | Err(CallError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads an alias; `None` when it does not exist.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn alias(&self, name: &str) -> Result<Option<Alias>, CallError> {
        let response = self.client.get_alias().function_name(&self.function).name(name).send().await;
        let read = match response.map_err(|error| self.error("GetAlias", &error)) {
            Ok(read) => read,
            Err(CallError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let weights = read.routing_config().and_then(|routing| routing.additional_version_weights());
        Ok(Some(Alias {
            version: read.function_version().unwrap_or_default().to_owned(),
            has_weights: weights.is_some_and(|weights| !weights.is_empty()),
            description: read.description().unwrap_or_default().to_owned(),
            revision_id: read.revision_id().unwrap_or_default().to_owned(),
        }))
    }

    /// Sets an alias to a version, if it still is as it was `before`. An alias that did not exist is created.
    ///
    /// # Errors
    /// [`CallError`], also when the alias was changed or created by others.
    pub async fn set_alias(
        &self,
        name: &str,
        version: &str,
        before: Option<&Alias>,
    ) -> Result<(), CallError> {
        let Some(before) = before else {
            let call = self.client.create_alias().function_name(&self.function).name(name);
            let created = call.function_version(version).send().await;
            return created.map(drop).map_err(|error| self.error("CreateAlias", &error));
        };
        let call = self.client.update_alias().function_name(&self.function).name(name);
        let updated = call.function_version(version).revision_id(&before.revision_id).send().await;
        updated.map(drop).map_err(|error| self.error("UpdateAlias", &error))
    }

    /// Invokes the function, or another one, and waits for the response.
    ///
    /// # Errors
    /// [`CallError`]. An error of the function is in the [`Response`].
    pub async fn invoke(&self, qualifier: Option<&str>, payload: Vec<u8>) -> Result<Response, CallError> {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(INVOKE_TIMEOUT)
            .operation_attempt_timeout(INVOKE_TIMEOUT)
            .read_timeout(INVOKE_TIMEOUT)
            .build();
        let call =
            self.client.invoke().function_name(&self.function).set_qualifier(qualifier.map(str::to_owned));
        let call = call.payload(Blob::new(payload)).log_type(LogType::Tail).customize();
        let call = call.config_override(aws_sdk_lambda::Config::builder().timeout_config(timeouts));
        let response = call.send().await.map_err(|error| self.error("Invoke", &error))?;
        let log = response.log_result().and_then(|log| base64::decode(log).ok()).unwrap_or_default();
        Ok(Response {
            payload: response.payload().map(|payload| payload.as_ref().to_vec()).unwrap_or_default(),
            is_error: response.function_error().is_some(),
            log: String::from_utf8_lossy(&log).into_owned(),
        })
    }

    fn error<E, R>(&self, operation: &'static str, error: &SdkError<E, R>) -> CallError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        match error.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some("ResourceNotFoundException") => CallError::NotFound(format!("`{}`", self.function)),
            _ => CallError::Other { operation, text: causes::of_aws(error) },
        }
    }
}
