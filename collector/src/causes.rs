//! Errors of libraries as text for people: with the causes that their own text leaves out, and without their internal form.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};

/// An error with its causes. A cause that the text before it contains is left out.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// An error of the AWS SDK: the code and the message of the service's answer, or why there is no answer.
pub(crate) fn of_aws<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    let answer = error.as_service_error().map(ProvideErrorMetadata::meta);
    if let Some((code, message)) = answer.and_then(|answer| answer.code().zip(answer.message())) {
        return format!("{message} ({code})");
    }
    let text = with_causes(error);
    if text.contains("loading credentials") || text.contains("no providers in chain provided credentials") {
        return "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
            .to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_lambda::error::ErrorMetadata;
    use aws_sdk_lambda::operation::get_function::GetFunctionError;

    #[test]
    fn causes_follow_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Cause(&'static str, #[source] Option<Box<Cause>>);
        let error = Cause("a: b", Some(Box::new(Cause("b", Some(Box::new(Cause("c", None)))))));
        assert_eq!(with_causes(&error), "a: b: c");
    }

    #[test]
    fn an_answer_of_the_service_is_shown_without_its_internal_form() {
        let answer = ErrorMetadata::builder().code("AccessDeniedException").message("not authorized").build();
        let error = SdkError::service_error(GetFunctionError::generic(answer), ());
        assert_eq!(of_aws(&error), "not authorized (AccessDeniedException)");
        let none = ErrorMetadata::builder().build();
        let error = SdkError::service_error(GetFunctionError::generic(none), ());
        assert!(!of_aws(&error).contains('{'), "{}", of_aws(&error));
        let error: SdkError<GetFunctionError, ()> = SdkError::construction_failure(std::io::Error::other(
            "no providers in chain provided credentials",
        ));
        assert!(of_aws(&error).starts_with("there are no AWS credentials"), "{}", of_aws(&error));
    }
}
