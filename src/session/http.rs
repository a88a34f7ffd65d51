//! One HTTP GET to a venue's REST service.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinSet, time::timeout};

use super::connect::{ConnectError, Dialer};

/// What a venue's REST service answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// How long the venue asked to be left alone (`Retry-After`), if it did.
    pub retry_after: Option<Duration>,
    /// The body, at most [`BODY_BYTES_MAX`].
    pub body: Bytes,
}

/// Fetches `url`. One connection a request: resyncs are rare, and a fresh connection cannot be stale.
///
/// # Errors
///
/// No answer with a status came: network, TLS, time, or a body beyond [`BODY_BYTES_MAX`].
pub async fn get(dialer: &Dialer, url: &str) -> Result<Answer, ConnectError> {
    timeout(REQUEST_TIMEOUT, get_untimed(dialer, url))
        .await
        .map_err(|_| ConnectError::Timeout { what: "HTTP answer", after: REQUEST_TIMEOUT })?
}

async fn get_untimed(dialer: &Dialer, url: &str) -> Result<Answer, ConnectError> {
    let stream = dialer.stream(url).await?;
    let uri: Uri = url.parse().map_err(|_| ConnectError::Url { url: url.into(), why: "not a URL" })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ConnectError::Http)?;
    // Ends with this exchange, however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::USER_AGENT, concat!("tapeway/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(ConnectError::Request)?;
    let response = sender.send_request(request).await.map_err(ConnectError::Http)?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ConnectError::Http(*error),
            Err(_) => ConnectError::TooLarge { max: BODY_BYTES_MAX },
        })?
        .to_bytes();
    Ok(Answer { status, retry_after, body })
}

/// Longest wait for a whole answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body taken; the largest known (an instrument list) is about 15 MiB.
pub const BODY_BYTES_MAX: usize = 63 << 20;
