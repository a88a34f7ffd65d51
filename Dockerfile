# syntax=docker/dockerfile:1
# Two stages: the toolchain stays in the first, the second holds the binary, certificates and a user of its own.

FROM docker.io/library/rust:1.95-bookworm AS builder
WORKDIR /src
COPY . .
# The caches survive a change of the sources, so that only what changed is compiled again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin tapeway \
    && cp target/release/tapeway /usr/local/bin/tapeway

FROM docker.io/library/debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 tapeway \
    && useradd --system --uid 10001 --gid tapeway --home-dir /var/lib/tapeway --shell /usr/sbin/nologin tapeway \
    && install -d -o tapeway -g tapeway -m 0750 /var/lib/tapeway /var/lib/tapeway/journal
COPY --from=builder /usr/local/bin/tapeway /usr/local/bin/tapeway
COPY config /etc/tapeway
# A container's own loopback reaches nobody: listen on its address, and let what runs it publish the port or not.
ENV TAPEWAY_CONFIG=/etc/tapeway \
    TAPEWAY_HTTP_LISTEN=0.0.0.0:9464
USER tapeway
WORKDIR /var/lib/tapeway
# The journal holds what is not committed yet: it has to outlive the container. The configuration can be replaced.
VOLUME ["/var/lib/tapeway/journal", "/etc/tapeway"]
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 CMD ["tapeway", "status", "--quiet"]
ENTRYPOINT ["tapeway"]
CMD ["run"]
