//! An extension that uses AWS's crate `lambda-extension` as in its documentation, and ignores all events.

use lambda_extension::{Error, LambdaEvent, NextEvent, service_fn};

async fn ignore(event: LambdaEvent) -> Result<(), Error> {
    if let NextEvent::Shutdown(_) = event.next {
        std::process::exit(0);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_extension::run(service_fn(ignore)).await
}
