-- Replays: the nightly comparison's runs get what they need to go on after a crash, and backfills a table of their own.

alter table reconciliation_runs
    add column state  text not null default 'done',
    add column detail jsonb not null default '{}',
    add unique (tenant_id, started_at);
comment on column reconciliation_runs.listed is 'conversations of the group that NICE listed in the window';
comment on column reconciliation_runs.missing is 'of the listed: neither in the catalog nor on their way';
comment on column reconciliation_runs.replayed is 'of the missing: put on the queue';
comment on column reconciliation_runs.detail is 'the run as the producer keeps it, with the place where it goes on';

drop index reconciliation_runs_by_tenant;
create index reconciliation_runs_newest on reconciliation_runs (tenant_id, id);
create index reconciliation_runs_open on reconciliation_runs (tenant_id, id) where state in ('planning', 'running');

create table backfills (
    id          bigint generated always as identity primary key,
    tenant_id   text collate "C" not null,
    window_from timestamptz not null,
    window_to   timestamptz not null,
    listed      bigint not null default 0,
    missing     bigint not null default 0,
    replayed    bigint not null default 0,
    started_at  timestamptz not null,
    finished_at timestamptz,
    state       text not null,
    detail      jsonb not null default '{}',
    unique (tenant_id, started_at)
);
create index backfills_newest on backfills (tenant_id, id);
create index backfills_open on backfills (tenant_id, id) where state in ('planning', 'running');
comment on table backfills is 'imports of a date range, by the start of the call; columns as those of reconciliation_runs';
