//! The calls to Lambda's control plane, through the AWS SDK.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::operation::get_function::GetFunctionOutput;
use aws_sdk_lambda::types::{AliasRoutingConfiguration, FunctionConfiguration, LastUpdateStatus, State};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::sync::Mutex;
use tokio::time::Instant;

use tailor_sizing::units::Megabytes;

use super::lambda::{Alias, Configuration, Lambda, LambdaError, ListedVersions, Live, Update};
use crate::causes;
use crate::changes::Write;
use crate::lambda_functions::{LATEST, account_of, function_name, settings_digest};
use crate::store::FunctionKey;

/// Timeout of one call, including its retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Pages of versions that are read of one function; 50 versions each.
const MAX_PAGES: usize = 40;

/// A role that is assumed for the calls.
#[derive(Debug, Clone)]
pub struct Role {
    /// ARN of the role; `{account}` stands for the account of the function.
    pub arn: String,
    /// External id of its trust policy.
    pub external_id: Option<String>,
}

/// The Lambda API, or a compatible server at the configured endpoint.
pub struct AwsLambda {
    shared: SdkConfig,
    endpoint: Option<String>,
    role: Option<Role>,
    /// One client for each account and region. The mutex is held while a client is created.
    clients: Mutex<HashMap<(String, String), Client>>,
    /// Minimum time between two calls, and when the next one may start.
    pace: (Duration, Mutex<Instant>),
}

impl AwsLambda {
    /// Credentials come from the default provider chain of the AWS SDK, and so does the endpoint unless `endpoint` is set.
    /// At most `requests_per_second` calls are made.
    pub async fn new(endpoint: Option<String>, role: Option<Role>, requests_per_second: f64) -> Self {
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
        let pause = Duration::from_secs_f64(1.0 / requests_per_second.clamp(0.01, 1_000.0));
        let pace = (pause, Mutex::new(Instant::now()));
        Self { shared, endpoint, role, clients: Mutex::new(HashMap::new()), pace }
    }

    /// The settings that all clients share.
    pub(crate) const fn shared(&self) -> &SdkConfig {
        &self.shared
    }

    /// The client of a region, with the credentials of the process.
    pub(crate) async fn client_in(&self, region: &str) -> Client {
        let key = FunctionKey { account: String::new(), region: region.to_owned(), name: String::new() };
        self.client(&key).await
    }

    /// The client of a function's account and region, when a call may be made.
    async fn client(&self, function: &FunctionKey) -> Client {
        let start = {
            let mut next = self.pace.1.lock().await;
            let start = (*next).max(Instant::now());
            *next = start + self.pace.0;
            start
        };
        tokio::time::sleep_until(start).await;
        let mut clients = self.clients.lock().await;
        let key = (function.account.clone(), function.region.clone());
        if let Some(client) = clients.get(&key) {
            return client.clone();
        }
        let region = Region::new(function.region.clone());
        let mut config = aws_sdk_lambda::config::Builder::from(&self.shared).region(region.clone());
        // Without it, the SDK uses AWS's environment variables and configuration files.
        if let Some(endpoint) = &self.endpoint {
            config.set_endpoint_url(Some(endpoint.clone()));
        }
        if let Some(role) = &self.role {
            let mut provider = AssumeRoleProvider::builder(role.arn.replace("{account}", &function.account))
                .session_name("lambda-tailor-tuner")
                .region(region)
                .configure(&self.shared);
            if let Some(external_id) = &role.external_id {
                provider = provider.external_id(external_id);
            }
            config = config.credentials_provider(provider.build().await);
        }
        let client = Client::from_conf(config.build());
        clients.insert(key, client.clone());
        client
    }

    /// Whether Lambda answers in a region, and accepts the credentials. A missing permission is an answer.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub async fn reach(&self, region: Option<&str>) -> Result<String, String> {
        let default = self.shared.region().map_or("us-east-1", Region::as_ref).to_owned();
        let region = region.unwrap_or(&default);
        let function = FunctionKey { account: String::new(), region: region.to_owned(), name: String::new() };
        let response = self.client(&function).await.get_account_settings().send().await;
        match response {
            Ok(_) => Ok(format!("Lambda in {region} accepts the credentials")),
            Err(error) => match error.code() {
                Some("AccessDeniedException") => Ok(format!(
                    "Lambda in {region} answers; the credentials do not permit lambda:GetAccountSettings"
                )),
                _ => Err(causes::of_aws(&error)),
            },
        }
    }

    /// The tags of a function.
    ///
    /// # Errors
    /// [`LambdaError`] when Lambda does not return the function.
    pub async fn tags(&self, function: &FunctionKey) -> Result<HashMap<String, String>, LambdaError> {
        let client = self.client(function).await;
        let response = client.get_function().function_name(function_name(function, None)).send().await;
        let response = response.map_err(|error| failed(&function.name, &error))?;
        tags_of(&function.name, &response)
    }

    async fn aliases(
        &self,
        function: &FunctionKey,
        aliases: &mut HashMap<String, Alias>,
    ) -> Result<(), LambdaError> {
        let mut marker = None;
        for _ in 0..MAX_PAGES {
            let client = self.client(function).await;
            let call = client.list_aliases().function_name(function_name(function, None));
            let page = call.set_marker(marker.take()).send().await;
            let page = page.map_err(|error| failed(&function.name, &error))?;
            for alias in page.aliases() {
                aliases.insert(alias.name().unwrap_or_default().to_owned(), alias_of(alias));
            }
            marker = page.next_marker().map(str::to_owned);
            if marker.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// The versions and aliases with provisioned concurrency.
    async fn provisioned(&self, function: &FunctionKey) -> Result<Vec<String>, LambdaError> {
        let client = self.client(function).await;
        let call = client.list_provisioned_concurrency_configs().function_name(function_name(function, None));
        let page = call.send().await.map_err(|error| failed(&function.name, &error))?;
        let configs = page.provisioned_concurrency_configs().iter();
        let qualifier = |arn: &str| arn.rsplit(':').next().unwrap_or_default().to_owned();
        Ok(configs.filter_map(|config| config.function_arn().map(qualifier)).collect())
    }
}

#[async_trait]
impl Lambda for AwsLambda {
    async fn read(&self, function: &FunctionKey) -> Result<Live, LambdaError> {
        let client = self.client(function).await;
        // `GetFunction` returns both configuration and tags, and has the highest request quota of the control plane.
        let response = client.get_function().function_name(function_name(function, None)).send().await;
        let response = response.map_err(|error| failed(&function.name, &error))?;
        let incomplete = || LambdaError::Other(format!("the response for `{}` is incomplete", function.name));
        let configuration = response.configuration().ok_or_else(incomplete)?;
        let account = account_of(configuration.function_arn().unwrap_or_default()).to_owned();
        if !function.account.is_empty() && account != function.account {
            return Err(LambdaError::OtherAccount { expected: function.account.clone(), found: account });
        }
        let concurrency = response.concurrency().and_then(|it| it.reserved_concurrent_executions());
        let mut live = Live {
            account,
            latest: configuration_of(configuration).ok_or_else(incomplete)?,
            revision_id: configuration.revision_id().ok_or_else(incomplete)?.to_owned(),
            update: match configuration.last_update_status() {
                // Functions that were never updated have no status.
                None | Some(LastUpdateStatus::Successful) => Update::Successful,
                Some(LastUpdateStatus::Failed) => Update::Failed,
                Some(_) => Update::InProgress,
            },
            modified_at_us: configuration.last_modified().and_then(micros).unwrap_or(0),
            timeout_ms: u64::try_from(configuration.timeout().unwrap_or(0)).unwrap_or(0) * 1_000,
            snap_start: configuration
                .snap_start()
                .and_then(|snap_start| snap_start.apply_on())
                .is_some_and(|apply_on| apply_on.as_str() != "None"),
            managed_instances: configuration.capacity_provider_config().is_some(),
            reserved_concurrency: concurrency.and_then(|reserved| u32::try_from(reserved).ok()),
            provisioned: Vec::new(),
            aliases: HashMap::new(),
            versions: HashMap::new(),
            listed_versions: ListedVersions::None,
            tags: tags_of(&function.name, &response)?,
        };
        self.aliases(function, &mut live.aliases).await?;
        // Of a function without an alias, both are rarely needed.
        if !live.aliases.is_empty() {
            self.list_versions(function, &mut live).await?;
            live.provisioned = self.provisioned(function).await?;
        }
        Ok(live)
    }

    async fn list_versions(&self, function: &FunctionKey, live: &mut Live) -> Result<(), LambdaError> {
        live.listed_versions = ListedVersions::Part;
        let mut marker = None;
        for _ in 0..MAX_PAGES {
            let client = self.client(function).await;
            let call = client.list_versions_by_function().function_name(function_name(function, None));
            let page = call.set_marker(marker.take()).send().await;
            let page = page.map_err(|error| failed(&function.name, &error))?;
            for version in page.versions() {
                let number = version.version().unwrap_or_default();
                if let (true, Some(configuration)) = (number != LATEST, configuration_of(version)) {
                    live.versions.insert(number.to_owned(), configuration);
                }
            }
            marker = page.next_marker().map(str::to_owned);
            if marker.is_none() {
                live.listed_versions = ListedVersions::All;
                break;
            }
        }
        Ok(())
    }

    async fn write(&self, function: &FunctionKey, write: &Write) -> Result<(), LambdaError> {
        let client = self.client(function).await;
        let (name, reference) = (&function.name, function_name(function, None));
        match write {
            Write::SetMemory { memory_mb, revision_id } => {
                let size = i32::try_from(*memory_mb)
                    .map_err(|_| LambdaError::Refused(format!("{memory_mb} is not a valid memory size")))?;
                let call = client.update_function_configuration().function_name(reference).memory_size(size);
                call.revision_id(revision_id).send().await.map(drop).map_err(|error| failed(name, &error))
            }
            Write::Publish { revision_id, code_sha256, description } => {
                let call = client.publish_version().function_name(reference).revision_id(revision_id);
                let call = call.code_sha256(code_sha256).description(description);
                call.send().await.map(drop).map_err(|error| failed(name, &error))
            }
            Write::SetAlias { alias, version, additional, description, revision_id } => {
                let mut routing =
                    AliasRoutingConfiguration::builder().set_additional_version_weights(Some(HashMap::new()));
                if let Some((version, weight)) = additional {
                    routing = routing.additional_version_weights(version, f64::from(*weight) / 10_000.0);
                }
                let call =
                    client.update_alias().function_name(reference).name(alias).function_version(version);
                let call = call.routing_config(routing.build()).description(description);
                call.revision_id(revision_id).send().await.map(drop).map_err(|error| failed(name, &error))
            }
            Write::DeleteVersion { version } => {
                let call = client.delete_function().function_name(reference).qualifier(version);
                call.send().await.map(drop).map_err(|error| failed(name, &error))
            }
        }
    }
}

/// The tags of a response. An error is no absence of tags, which would end a change.
fn tags_of(name: &str, response: &GetFunctionOutput) -> Result<HashMap<String, String>, LambdaError> {
    let Some(error) = response.tags_error() else { return Ok(response.tags().cloned().unwrap_or_default()) };
    let (code, message) = (error.error_code(), error.message());
    let text = format!("the tags of `{name}` cannot be read: {code}: {message}");
    if code.contains("AccessDenied") {
        Err(LambdaError::Refused(text))
    } else {
        Err(LambdaError::Other(text))
    }
}

fn failed<E, R>(name: &str, error: &SdkError<E, R>) -> LambdaError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let text = causes::of_aws(error);
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some("ResourceNotFoundException") => LambdaError::NoFunction(name.to_owned()),
        Some("PreconditionFailedException" | "ResourceConflictException") => LambdaError::Changed(text),
        Some(
            "AccessDeniedException" | "InvalidParameterValueException" | "CodeVerificationFailedException",
        ) => LambdaError::Refused(text),
        _ => LambdaError::Other(text),
    }
}

fn alias_of(alias: &aws_sdk_lambda::types::AliasConfiguration) -> Alias {
    let weights = alias.routing_config().and_then(|routing| routing.additional_version_weights());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a weight is a number from 0 to 1"
    )]
    let additional = weights
        .and_then(|weights| weights.iter().next())
        .map(|(version, weight)| (version.clone(), (weight.clamp(0.0, 1.0) * 10_000.0).round() as u32));
    Alias {
        version: alias.function_version().unwrap_or_default().to_owned(),
        additional,
        description: alias.description().unwrap_or_default().to_owned(),
        revision_id: alias.revision_id().unwrap_or_default().to_owned(),
    }
}

fn configuration_of(configuration: &FunctionConfiguration) -> Option<Configuration> {
    let memory = configuration.memory_size().and_then(|size| u32::try_from(size).ok())?;
    Some(Configuration {
        memory: Megabytes(memory),
        code_sha256: configuration.code_sha256().unwrap_or_default().to_owned(),
        digest: hex::encode(&settings_digest!(configuration)[..16]),
        description: configuration.description().unwrap_or_default().to_owned(),
        active: matches!(configuration.state(), None | Some(State::Active | State::Inactive)),
    })
}

/// `2026-11-28T12:00:00.000+0000` in microseconds since the Unix epoch.
fn micros(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let date = super::dates::date(date)?;
    let mut parts = time.get(..8)?.split(':');
    let mut part = || parts.next()?.parse::<u8>().ok();
    let time = time::Time::from_hms(part()?, part()?, part()?).ok()?;
    let seconds = time::PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    u64::try_from(seconds).ok()?.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex as Lock};

    use aws_sdk_lambda::config::Credentials;

    use super::*;

    const ACCOUNT: &str = "123456789012";

    fn key(account: &str) -> FunctionKey {
        FunctionKey { account: account.to_owned(), region: "eu-west-1".to_owned(), name: "orders".to_owned() }
    }

    /// Answers each request with this function, and keeps the paths of the requests.
    fn serve(function: String) -> (String, Arc<Lock<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (url, paths) = (format!("http://{}", listener.local_addr().unwrap()), Arc::default());
        let kept: Arc<Lock<Vec<String>>> = Arc::clone(&paths);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                answer(&connection.unwrap(), &function, &kept);
            }
        });
        (url, paths)
    }

    fn answer(mut connection: &TcpStream, body: &str, paths: &Lock<Vec<String>>) {
        let mut reader = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        paths.lock().unwrap().push(head.split(' ').nth(1).unwrap().to_owned());
        let head = head.to_ascii_lowercase();
        let length =
            head.split_once("content-length: ").map_or("0", |(_, rest)| rest.lines().next().unwrap());
        reader.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
        let length = body.len();
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .unwrap();
    }

    async fn lambda(url: String) -> AwsLambda {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .http_client(http)
            .credentials_provider(Credentials::new("any", "any", None, None, "test"))
            .load()
            .await;
        let pace = (Duration::ZERO, Mutex::new(Instant::now()));
        AwsLambda { shared, endpoint: Some(url), role: None, clients: Mutex::default(), pace }
    }

    /// A function of an account, as `GetFunction` returns it, with more members.
    fn function(account: &str, more: &str) -> String {
        format!(
            r#"{{"Configuration":{{"FunctionArn":"arn:aws:lambda:eu-west-1:{account}:function:orders","MemorySize":512,
               "RevisionId":"r"}}{more}}}"#
        )
    }

    #[tokio::test]
    async fn a_function_of_another_account_is_an_error_and_not_a_deleted_function() {
        let (url, paths) = serve(function(ACCOUNT, ""));
        let client_of = lambda(url).await;
        assert_eq!(client_of.read(&key(ACCOUNT)).await.unwrap().account, ACCOUNT);
        let first = || std::mem::take(&mut *paths.lock().unwrap()).swap_remove(0);
        assert_eq!(first(), "/2015-03-31/functions/123456789012%3Afunction%3Aorders");
        // Earlier logs have no account.
        assert_eq!(client_of.read(&key("")).await.unwrap().account, ACCOUNT);
        assert_eq!(first(), "/2015-03-31/functions/orders");
        let other = client_of.read(&key("999999999999")).await;
        assert!(matches!(other, Err(LambdaError::OtherAccount { .. })), "{other:?}");
        let write = Write::SetMemory { memory_mb: 256, revision_id: "r".to_owned() };
        client_of.write(&key(ACCOUNT), &write).await.unwrap();
        let last = paths.lock().unwrap().pop().unwrap();
        assert_eq!(last, "/2015-03-31/functions/123456789012%3Afunction%3Aorders/configuration");
    }

    #[tokio::test]
    async fn an_error_of_the_tags_is_no_absence_of_tags() {
        let error = |code: &str| {
            function(ACCOUNT, &format!(r#","TagsError":{{"ErrorCode":"{code}","Message":"busy"}}"#))
        };
        let read = async |answer: String| lambda(serve(answer).0).await.read(&key(ACCOUNT)).await;
        let tags = read(function(ACCOUNT, r#","Tags":{"tailor:tune":"apply"}"#)).await.unwrap().tags;
        assert_eq!(tags["tailor:tune"], "apply");
        let busy = read(error("InternalServerException")).await;
        assert!(matches!(&busy, Err(LambdaError::Other(text)) if text.contains("busy")), "{busy:?}");
        let refused = read(error("AccessDeniedException")).await;
        assert!(matches!(&refused, Err(LambdaError::Refused(_))), "{refused:?}");
        let busy = lambda(serve(error("InternalServerException")).0).await.tags(&key(ACCOUNT)).await;
        assert!(matches!(busy, Err(LambdaError::Other(_))), "{busy:?}");
    }
}
