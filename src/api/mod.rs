//! The HTTP endpoint: `/metrics`, `/livez`, `/readyz`, `/status`. Loopback by default, never blocks the rest.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};

use crate::status::{Board, Status};

/// A bound endpoint.
#[derive(Debug)]
pub struct Api {
    listener: TcpListener,
    /// Where it listens: the port is known even when 0 was asked for.
    pub address: SocketAddr,
}

/// The endpoint cannot listen.
#[derive(Debug, Error)]
#[error("http.listen {address}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// Why not.
    pub source: std::io::Error,
}

#[derive(Clone)]
struct Shared {
    board: Arc<Board>,
    metrics: PrometheusHandle,
}

impl Api {
    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let refused = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self, board: Arc<Board>, metrics: PrometheusHandle, mut stop: watch::Receiver<bool>) {
        let router = Router::new()
            .route("/metrics", get(render))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/status", get(status))
            .with_state(Shared { board, metrics });
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        if let Err(failure) = axum::serve(self.listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(error = %failure, "the HTTP endpoint ended");
        }
    }
}

async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render())
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let reasons = shared.board.read().not_ready;
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready:\n{}\n", reasons.join("\n")))
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    Json(shared.board.read())
}
