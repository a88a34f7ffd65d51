//! Connections to a venue: TCP, TLS where the URL says so, and the WebSocket handshake.

use std::{pin::Pin, sync::Arc, time::Duration};

use hyper::Uri;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, protocol::WebSocketConfig},
};

/// A TCP or TLS stream.
pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

impl std::fmt::Debug for dyn Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

/// A stream whose kind no longer matters.
pub type BoxStream = Pin<Box<dyn Stream>>;

/// An open WebSocket connection.
pub type WebSocket = WebSocketStream<BoxStream>;

/// Opens connections to venues.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// A dialer with this trust.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    /// Opens a WebSocket connection.
    ///
    /// # Errors
    ///
    /// The URL is not usable, nothing answered in time, TLS or the handshake failed.
    pub async fn websocket(&self, url: &str) -> Result<WebSocket, ConnectError> {
        let stream = self.stream(url).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let handshake = client_async_with_config(url, stream, Some(config));
        let (socket, _response) = timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| ConnectError::Timeout { what: "WebSocket handshake", after: HANDSHAKE_TIMEOUT })?
            .map_err(|source| ConnectError::Handshake(Box::new(source)))?;
        Ok(socket)
    }

    /// Opens the byte stream a URL needs: `ws`, `http` plain; `wss`, `https` with TLS.
    ///
    /// # Errors
    ///
    /// The URL is not usable, nothing answered in time, or TLS failed.
    pub async fn stream(&self, url: &str) -> Result<BoxStream, ConnectError> {
        let bad = |why: &'static str| ConnectError::Url { url: url.into(), why };
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        let host = uri.host().ok_or_else(|| bad("no host"))?.trim_matches(['[', ']']);
        let is_tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err(bad("the scheme must be ws, wss, http or https")),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
            .await
            .map_err(|_| ConnectError::Timeout { what: "TCP connect", after: CONNECT_TIMEOUT })?
            .map_err(|source| ConnectError::Tcp { host: host.into(), port, source })?;
        tcp.set_nodelay(true).map_err(|source| ConnectError::Tcp { host: host.into(), port, source })?;
        if !is_tls {
            return Ok(Box::pin(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| bad("the host is no valid TLS name"))?;
        let tls = timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(self.tls.clone()).connect(name, tcp))
            .await
            .map_err(|_| ConnectError::Timeout { what: "TLS handshake", after: HANDSHAKE_TIMEOUT })?
            .map_err(|source| ConnectError::Tls { host: host.into(), source })?;
        Ok(Box::pin(tls))
    }
}

/// Why a connection could not be opened. All are tried again.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("URL {url:?}: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Nothing answered.
    #[error("{what} took longer than {after:?}")]
    Timeout {
        /// Which step.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The network refused, or the name does not resolve.
    #[error("{host}:{port}: {source}")]
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// TLS failed: not trusted, or not TLS.
    #[error("TLS with {host}: {source}")]
    Tls {
        /// Host.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The venue did not upgrade to WebSocket.
    #[error("WebSocket handshake: {0}")]
    Handshake(#[source] Box<tungstenite::Error>),
    /// The HTTP exchange broke.
    #[error("HTTP exchange: {0}")]
    Http(#[source] hyper::Error),
    /// The HTTP request could not be built.
    #[error("HTTP request: {0}")]
    Request(#[source] hyper::http::Error),
    /// The HTTP answer was too large.
    #[error("HTTP answer is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
}

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a TLS or WebSocket handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest WebSocket message taken; a larger one ends the connection. The journal's limit is the same.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes asked from the socket at once: many small frames a read. The WebSocket library zeroes as many before each
/// read, so more is not better: 256 KiB cost 5 % of the daemon.
const READ_BUFFER_BYTES: usize = 32 << 10;
