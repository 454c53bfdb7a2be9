-- Gives up one mail that is owed. The registration stays.
-- Keeps: a mail that is being sent is not given up.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- ARGV[1] user id   ARGV[2] error code to leave   ARGV[3] newest layout version we can read
-- Fields of the record: see record.lua
--
-- Returns 'dropped', or, with nothing changed, 'sending' while a sender has the lease, 'none',
--      or 'newer': only a newer process can read the record.
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local id, error_code, newest = ARGV[1], ARGV[2], tonumber(ARGV[3])

local version = redis.call('HGET', user, 'v')
local holder = redis.call('GET', sender)
if not redis.call('ZSCORE', outbox, id) then return 'none' end
if version and tonumber(version) > newest then return 'newer' end
if holder then return 'sending' end

redis.call('ZREM', outbox, id)
if version then redis.call('HSET', user, 's', 'failed', 'e', error_code) end
return 'dropped'
