//! The HTTP requests of one lane: a few at a time, within the venue's weight, retried until answered.

use std::{sync::Arc, time::Duration};

use tapeway_exchanges::adapter::HttpRequest;
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};
use tracing::warn;

use super::{
    VenueLink,
    backoff::Backoff,
    http::{self, Answer},
};

/// Requests waiting and under way. Dropped with the lane's last connection: what they were for starts anew with the next.
#[derive(Debug)]
pub(super) struct Requests {
    link: Arc<VenueLink>,
    http_url: String,
    /// A request takes one when its delay is over: what waits for its time keeps no other waiting.
    slots: Arc<Semaphore>,
    under_way: JoinSet<Answered>,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) tag: String,
    pub(super) answer: Answer,
}

impl Requests {
    pub(super) fn new(link: Arc<VenueLink>, http_url: String) -> Self {
        Self { link, http_url, slots: Arc::new(Semaphore::new(UNDER_WAY_MAX)), under_way: JoinSet::new() }
    }

    /// Adds requests. As many as may run at once start when their delay is over, the others in turn. Adapters ask for
    /// few things at a time for each symbol, so their number is bounded.
    pub(super) fn extend(&mut self, requests: impl Iterator<Item = HttpRequest>) {
        for request in requests {
            let url = format!("{}{}", self.http_url, request.path);
            self.under_way.spawn(answer(self.link.clone(), self.slots.clone(), url, request));
        }
    }

    /// The next answer. Never returns while there is no request; safe to drop and call again.
    pub(super) async fn next(requests: &mut Option<Self>) -> Answered {
        let Some(requests) = requests else { return std::future::pending().await };
        loop {
            match requests.under_way.join_next().await {
                Some(Ok(answered)) => return answered,
                Some(Err(failure)) => warn!(error = %failure, "an HTTP request task ended without an answer"),
                None => std::future::pending().await,
            }
        }
    }
}

async fn answer(link: Arc<VenueLink>, slots: Arc<Semaphore>, url: String, request: HttpRequest) -> Answered {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    sleep(request.delay).await;
    // The semaphore is never closed, so there is always a slot to wait for.
    let _slot = slots.acquire().await;
    loop {
        link.http_weight.take(request.weight).await;
        match http::get(&link.dialer, &url).await {
            Ok(answer) => {
                if matches!(answer.status, 418 | 429 | 503) {
                    link.http_weight.pause(answer.retry_after.unwrap_or(PAUSE_DEFAULT).min(PAUSE_MAX));
                }
                return Answered { tag: request.tag, answer };
            }
            Err(failure) => {
                warn!(url, error = %failure, failures = backoff.failures(), "HTTP request got no answer; will try again");
                backoff.fail();
                sleep(backoff.delay()).await;
            }
        }
    }
}

/// Requests of one lane under way at once.
const UNDER_WAY_MAX: usize = 4;
/// First delay after no answer came, and the cap.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The cap of the delay between tries.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long a venue that says "too many requests" without a time is left alone.
const PAUSE_DEFAULT: Duration = Duration::from_secs(5);
/// Longest pause a venue can impose.
const PAUSE_MAX: Duration = Duration::from_secs(600);
