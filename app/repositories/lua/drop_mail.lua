-- Gives up one mail that is owed. The registration stays.
-- Keeps: a mail that is being sent is not given up.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- KEYS[4] events   KEYS[5] schedule   KEYS[6] waiting: see events.lua
-- ARGV[1] user id   ARGV[2] error code to leave      Fields of the record: see record.lua
--
-- Returns 'dropped', or, with nothing changed, 'sending' while a sender has the lease, 'none',
--      or 'newer': only a newer process can read the record.
local user, sender, outbox, events, schedule, waiting = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, error_code = ARGV[1], ARGV[2]
local now = now_ms()

local version, created, service = unpack(redis.call('HMGET', user, 'v', 'c', 'u'))
local queue = event_queue(events, schedule, waiting, id, service, now)
local holder = redis.call('GET', sender)
if not redis.call('ZSCORE', outbox, id) then return 'none' end
if version and tonumber(version) > LAYOUT_VERSION then return 'newer' end
if holder then return 'sending' end

redis.call('ZREM', outbox, id)
if version then
  redis.call('HSET', user, 's', 'failed', 'e', error_code)
  announce(queue, 'failed', created, now)
end
return 'dropped'
