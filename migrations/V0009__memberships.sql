-- When each agent was in the group, and what is held of a group's last reading.
--
-- An agent's calls are imported if it was a member at their end. Of agents that an earlier program wrote it is not known
-- since when they are members: their stretches stay null, and count since ever, up to member_until.

alter table agents add column memberships jsonb;
comment on column agents.memberships is
    'the stretches of time in the group, [{"since": …, "until": …}], the newest last; null: since ever, up to member_until';

-- A reading may be held before one was ever believed.
alter table agents_read alter column read_at drop not null;
alter table agents_read add column standing jsonb;
comment on column agents_read.read_at is 'when a reading of the group was last believed; null: never';
comment on column agents_read.standing is 'a reading that is held, and how many hidden agents were accepted; no names';
