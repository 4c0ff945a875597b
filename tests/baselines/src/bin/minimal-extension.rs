//! A minimal extension without any library: it registers and requests events. The additional cost of another extension
//! is caused by that extension's code.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

fn main() -> io::Result<()> {
    let api = env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
    let name = env::args().next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    let mut connection = BufReader::new(TcpStream::connect(&api)?);
    let events = r#"{"events":["INVOKE","SHUTDOWN"]}"#;
    let register = format!(
        "POST /2020-01-01/extension/register HTTP/1.1\r\nhost: {api}\r\nlambda-extension-name: {name}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{events}",
        events.len()
    );
    let (identifier, _) = call(&mut connection, &register)?;
    let next = format!(
        "GET /2020-01-01/extension/event/next HTTP/1.1\r\nhost: {api}\r\n\
         lambda-extension-identifier: {identifier}\r\n\r\n"
    );
    loop {
        let (_, event) = call(&mut connection, &next)?;
        if event.contains(r#""SHUTDOWN""#) {
            return Ok(());
        }
    }
}

/// Sends `request`. Returns the extension identifier in the response (empty when absent) and the body.
fn call(connection: &mut BufReader<TcpStream>, request: &str) -> io::Result<(String, String)> {
    connection.get_mut().write_all(request.as_bytes())?;
    let (mut identifier, mut length, mut line) = (String::new(), 0, String::new());
    while connection.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("lambda-extension-identifier") {
                value.trim().clone_into(&mut identifier);
            } else if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        line.clear();
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok((identifier, String::from_utf8_lossy(&body).into_owned()))
}
