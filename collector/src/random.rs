//! Random bytes of the operating system, for keys and ids.

/// The operating system provides no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system provides no random numbers: {0}")]
pub struct RandomError(getrandom::Error);

/// `N` random bytes.
///
/// # Errors
/// [`RandomError`].
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

/// `N` random bytes as hexadecimal digits.
///
/// # Errors
/// [`RandomError`].
pub(crate) fn hex<const N: usize>() -> Result<String, RandomError> {
    bytes::<N>().map(hex::encode)
}
