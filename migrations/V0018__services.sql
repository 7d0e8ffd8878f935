-- The services that run: each says every few seconds that it lives and how it stands, so that any of them can show all.

create table services (
    -- Chosen anew at each start of a process.
    service_id text primary key,
    -- run, producer or consumer.
    service text not null,
    -- Whose producer it is; null where it serves every tenant.
    tenant_id text,
    host text not null,
    version text not null,
    started_at timestamptz not null,
    -- By this server's clock alone.
    seen_at timestamptz not null default clock_timestamp(),
    -- What it says of itself: stages, systems, what waits.
    report jsonb not null
);
