# syntax=docker/dockerfile:1
# docker build -t nice-knovvu .                            the daemon
# docker build -t nice-knovvu-sim --target nice-sim .      the simulated NICE, for demonstrations

FROM rust:1.95-bookworm AS build
# The queue on Fluvio is built in only where it is asked for: --build-arg FEATURES=nice-knovvu/fluvio
ARG FEATURES=""
WORKDIR /src
COPY . .
# Registry and target directory stay on the building machine, so that a second build compiles what has changed only.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p nice-knovvu -p nice-sim --features "$FEATURES" \
    && install -D -t /out target/release/nice-knovvu target/release/nice-sim \
    && install -d -m 700 /out/state

# The same C library as above, a shell for the health check, and nothing installed.
FROM debian:12.12-slim AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 10001:10001

FROM base AS nice-sim
COPY --from=build /out/nice-sim /usr/local/bin/nice-sim
# It ends at Ctrl-C.
STOPSIGNAL SIGINT
ENTRYPOINT ["nice-sim"]

FROM base AS nice-knovvu
COPY --from=build /out/nice-knovvu /usr/local/bin/nice-knovvu
COPY --from=build --chown=10001:10001 /out/state /var/lib/nice-knovvu
ENV NICE_KNOVVU_STATE__DIR=/var/lib/nice-knovvu
VOLUME /var/lib/nice-knovvu
# Alive, not ready: a producer that waits for the lease is in order.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["bash", "-c", "\
    admin=${NICE_KNOVVU_ADMIN__LISTEN:-127.0.0.1:9464}; \
    host=${admin%:*}; host=${host#[}; host=${host%]}; \
    exec 3<>/dev/tcp/$host/${admin##*:} && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3"]
# Drains within [flow] grace and 5 s: give it that long (docker stop --time 40).
STOPSIGNAL SIGTERM
ENTRYPOINT ["nice-knovvu"]
CMD ["run"]
