-- The attempt that may complete a conversation. Whoever begins to store recordings takes the next number, and looks at
-- what lies under their keys before it does; only the latest attempt completes. One that was overtaken by another,
-- because the broker handed the call out again meanwhile, completes nothing and replaces nothing.

-- No check: that would read the whole table while nobody may write.
alter table conversations add column attempt bigint not null default 0;
comment on column conversations.attempt is 'the last attempt to store the recordings; only that one completes';

-- As roles.sql gives it: consumers do not stand still until it is applied.
do $$
begin
    if exists (select from pg_roles where rolname = 'knovvu_consumer') then
        grant update (attempt) on conversations to knovvu_consumer;
    end if;
end
$$;
