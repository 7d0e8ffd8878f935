-- The media hosts that may lead to an address of a private network: an interface endpoint of S3, say. Each of them is
-- on media_hosts, too.

alter table nice_settings add column private_media_hosts text[] not null default '{}';
