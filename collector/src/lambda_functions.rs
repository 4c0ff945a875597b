//! Functions of Lambda as the calls of the tuner and of experiments name and compare them.

use crate::store::FunctionKey;

/// The unpublished version.
pub(crate) const LATEST: &str = "$LATEST";

/// A function as the calls name it, or a version or an alias of it. With its account, where that is known: it is a partial ARN
/// then, so that credentials of another account are refused. A name alone means the function of this name in the account of the
/// credentials.
pub(crate) fn function_name(key: &FunctionKey, qualifier: Option<&str>) -> String {
    let mut name = match key.account.as_str() {
        "" => key.name.clone(),
        account => format!("{account}:function:{}", key.name),
    };
    if let Some(qualifier) = qualifier {
        name.push(':');
        name.push_str(qualifier);
    }
    name
}

/// The account in `arn:aws:lambda:REGION:ACCOUNT:function:NAME`; empty when there is none.
pub(crate) fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// The SHA-256 digest of the settings that change what an invocation does, without the memory size. The SDK has several types
/// with a function's configuration and the same methods.
macro_rules! settings_digest {
    ($configuration:expr) => {{
        let read = $configuration;
        let environment = read.environment().and_then(|environment| environment.variables());
        let mut variables: Vec<(&String, &String)> = environment.into_iter().flatten().collect();
        variables.sort_unstable();
        let layers: Vec<Option<&str>> = read.layers().iter().map(|layer| layer.arn()).collect();
        let text = format!(
            "{:?}",
            (
                (read.runtime(), read.handler(), read.role(), read.timeout()),
                (variables, layers, read.architectures(), read.ephemeral_storage()),
                (read.vpc_config(), read.dead_letter_config(), read.kms_key_arn()),
                (read.file_system_configs(), read.tracing_config()),
                (read.logging_config(), read.image_config_response()),
            )
        );
        <sha2::Sha256 as sha2::Digest>::digest(text)
    }};
}
pub(crate) use settings_digest;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_with_its_account_where_it_is_known() {
        let key = |account: &str| FunctionKey {
            account: account.to_owned(),
            region: "eu-west-1".to_owned(),
            name: "shop".to_owned(),
        };
        assert_eq!(function_name(&key("123456789012"), None), "123456789012:function:shop");
        assert_eq!(function_name(&key("123456789012"), Some("live")), "123456789012:function:shop:live");
        assert_eq!(function_name(&key(""), None), "shop");
        assert_eq!(function_name(&key(""), Some("live")), "shop:live");
        assert_eq!(account_of("arn:aws:lambda:eu-west-1:123456789012:function:shop"), "123456789012");
        assert_eq!(account_of("shop"), "");
    }
}
