-- The queue on Fluvio: which consumer reads which partition, and up to where all is settled. Empty with another queue.

-- The consumers that live, by this server's clock alone.
create table queue_members (
    -- The prefix of the topics: installations that share a database do not meet.
    queue text not null,
    member text not null,
    joined_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp(),
    primary key (queue, member)
);

create table queue_partitions (
    topic text not null,
    number integer not null check (number >= 0),
    queue text not null,
    -- All records before this offset are settled.
    next_offset bigint not null default 0,
    -- No record from this offset on was handed out.
    begun bigint not null default 0,
    -- The consumers that died since next_offset moved last, while they worked on records of the partition.
    deaths integer not null default 0,
    owner text,
    -- Grows with every owner: what a former one still writes has no effect.
    epoch bigint not null default 0,
    primary key (topic, number)
);

create index on queue_partitions (queue);
