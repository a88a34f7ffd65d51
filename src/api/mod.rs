//! The HTTP endpoint: `/metrics`, `/livez`, `/readyz`, `/status`. Loopback by default, never blocks the rest.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

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

use crate::{
    metrics::{LaneMetrics, lanes_behind},
    status::{Board, Status},
};

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
    /// The lanes' gauges, by lane. One scrape at a time sets them and reads them.
    lanes: Arc<Mutex<HashMap<String, LaneMetrics>>>,
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
            .with_state(Shared { board, metrics, lanes: Arc::default() });
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        if let Err(failure) = axum::serve(self.listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(error = %failure, "the HTTP endpoint ended");
        }
    }
}

async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.scrape())
}

impl Shared {
    /// Every metric as of now. Numbers that belong together are read together: in each scrape, what a lane received is
    /// what it committed, rejected and has pending.
    fn scrape(&self) -> String {
        let mut gauges = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut behind = 0;
        for entry in self.board.lanes() {
            let status = entry.read();
            let venue = entry.lane.venue.name;
            gauges.entry(status.lane.clone()).or_insert_with(|| LaneMetrics::new(venue, &status.lane)).set(&status);
            behind += u32::from(status.is_behind);
        }
        lanes_behind().set(f64::from(behind));
        self.metrics.render()
    }
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
