//! Which failures are tried again, beside those of the SDK.

use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};

/// Connections that the server broke: for example, it answered before it was sent a request. The SDK does not know their kind,
/// and does not try them again. A repeated request reads, or writes the same object again.
#[derive(Debug)]
pub(super) struct BrokenConnection;

impl ClassifyRetry for BrokenConnection {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(|result| result.err());
        match error.and_then(|error| error.as_connector_error()) {
            Some(error) if !error.is_user() => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "broken connection"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_runtime_api::client::interceptors::context::Input;
    use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
    use aws_smithy_runtime_api::client::result::ConnectorError;

    #[test]
    fn a_broken_connection_is_tried_again_and_an_invalid_request_is_not() {
        let action = |error: ConnectorError| {
            let mut context = InterceptorContext::new(Input::erase(()));
            context.set_output_or_error(Err(OrchestratorError::connector(error)));
            BrokenConnection.classify_retry(&context)
        };
        let broken = ConnectorError::other("received unexpected message from connection".into(), None);
        assert_eq!(action(broken), RetryAction::transient_error());
        assert_eq!(action(ConnectorError::user("no host".into())), RetryAction::NoActionIndicated);
    }
}
