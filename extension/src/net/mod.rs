//! HTTP and HTTPS over one connection, and AWS Signature Version 4 with the function's credentials.

pub mod aws;
pub mod client;
pub mod connections;
pub mod credentials;
pub(crate) mod pace;
pub mod proxy;
pub mod sign;
