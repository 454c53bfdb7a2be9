-- Makes a mail that is pending or was given up due now, and counts its age from now.
-- Keeps: a mail that was sent is not sent again; while a sender has the lease, the mail is due at its end.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- ARGV[1] user id      Fields of the record: see record.lua
--
-- Returns 'due', 'none' when there is no registration or its mail was accepted, also where that came back later,
--      or 'newer': only a newer process can read the record.
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
local now = now_ms()

local version, state = unpack(redis.call('HMGET', user, 'v', 's'))
local held_ms = lease_left(sender)
redis.call('ZSCORE', outbox, id)
if not version then return 'none' end
if tonumber(version) > LAYOUT_VERSION then return 'newer' end
if state ~= 'pending' and state ~= 'failed' then return 'none' end

redis.call('HSET', user, 's', 'pending', 't', now)
redis.call('ZADD', outbox, now + math.max(0, held_ms), id)
return 'due'
