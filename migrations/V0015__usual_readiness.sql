-- Beside the learned delay of first looks: what it was for days, so that an incident of hours does not outlast its end,
-- and how much is known. A process of before goes on writing the delay alone; null: of before.

alter table recording_readiness
    add column usual_secs   double precision check (usual_secs >= 0),
    add column learned_secs double precision check (learned_secs >= 0),
    add column found        bigint check (found >= 0);
comment on column recording_readiness.usual_secs is 'the learned time as it stood for days';
comment on column recording_readiness.learned_secs is 'the time in which recordings were found';
comment on column recording_readiness.found is 'recordings that were found, roughly';
