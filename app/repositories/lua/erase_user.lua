-- Erases everything of one address but its budgets and the lease of the sender that is mailing it now.
-- Keeps: record, number and outbox entry go together.
--
-- KEYS[1] user record   KEYS[2] outbox   KEYS[3] what was handed out for its last number
-- KEYS[4] expiry   KEYS[5] expiries: see expiry.lua. Events that wait are still delivered: they tell nothing personal.
-- ARGV[1] user id   ARGV[2] what every number key of the shard starts with      Fields of the record: see record.lua
--
-- Returns 'erased', also where only KEYS[3] was there; 'none' when there was nothing,
--      or 'newer': only a newer process knows what belongs to it.
local user, outbox, verified, expiry, expiries = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, prefix = ARGV[1], ARGV[2]

local version, digest = unpack(redis.call('HMGET', user, 'v', 'n'))
local number = number_key(prefix, digest)
redis.call('ZSCORE', outbox, id)
local ends = noted_end(expiry, expiries, id)
if not version then return redis.call('DEL', verified) == 1 and 'erased' or 'none' end
if tonumber(version) > LAYOUT_VERSION then return 'newer' end

redis.call('DEL', user, verified, number or user)
redis.call('ZREM', outbox, id)
if ends then forget_end(expiry, expiries, id) end
return 'erased'
