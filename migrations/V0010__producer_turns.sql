-- What a tenant's producers know together, so that whoever takes over goes on where the one before stood.

create table producer_turns (
    tenant_id      text collate "C" primary key,
    turn           bigint not null default 0 check (turn >= 0),
    begun_at       timestamptz,
    poll_watermark timestamptz,
    held_back      bigint not null default 0,
    worked_since   timestamptz
);
comment on table producer_turns is 'the last turn of each tenant''s producer, and what its turns know together';
comment on column producer_turns.turn is 'the number of the last turn; what an earlier one writes is refused';
comment on column producer_turns.poll_watermark is 'up to where the poll has found everything';
comment on column producer_turns.held_back is 'how often the watermark was held back';
comment on column producer_turns.worked_since is 'when the tenant was first worked for';

-- Asked by every statement that writes in a turn. The row is locked until that is committed: another turn begins before,
-- and the statement fails, or after it. A statement without a turn is an operator's, and needs no right to the table.
create function fence_turn(tenant text, number bigint) returns boolean language plpgsql as $$
begin
    if number is not null then
        perform from producer_turns t where t.tenant_id = tenant and t.turn = number for share;
        if not found then
            raise exception 'another turn of the producer has begun' using errcode = 'KT001';
        end if;
    end if;
    return true;
end
$$;
comment on function fence_turn is 'true, or an error once another turn of the tenant''s producer has begun';
