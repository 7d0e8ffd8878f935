-- Dead letters that a system's failures made, and not the call: they go back to the queue by themselves.
--
-- A program of before writes none of them, and reads the others as before.

alter table dead_letters
    add column cause     text,
    add column replay_at timestamptz;
comment on column dead_letters.cause is 'the system that failed, where the call was not to blame for certain';
comment on column dead_letters.replay_at is 'when the letter goes back to the queue by itself, at the earliest';

create index dead_letters_due on dead_letters (replay_at, id) where replay_at is not null;
create index dead_letters_by_age on dead_letters (at);
