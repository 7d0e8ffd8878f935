-- How long after its end a call is first asked for its recording: learned by all consumers together. A hint: without it
-- every call is asked for at once, and again until its recording is there.

create table recording_readiness (
    tenant_id       text collate "C" primary key,
    first_look_secs double precision not null check (first_look_secs >= 0)
);
comment on table recording_readiness is 'the learned time from the end of a call until the first look for its recording';
