-- Writes the event of a registration that has reached its end.
-- Keeps: the event is written once, and only for a registration that nothing else has ended.
--
-- KEYS[1] user record   KEYS[2] events   KEYS[3] schedule   KEYS[4] waiting   KEYS[5] expiry   KEYS[6] expiries
-- ARGV[1] user id                                              See events.lua, expiry.lua
--
-- Returns 'expired', 'early' where the record is still there, 'none' where no end is noted
local user, events, schedule, waiting, expiry, expiries = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id = ARGV[1]
local now = now_ms()

local created, expires, service = noted_end(expiry, expiries, id)
local live, told = unpack(redis.call('HMGET', user, 'v', 'u'))
local queue = event_queue(events, schedule, waiting, id, service, now)
if told and created then  -- the end of the live one: registering notes another, or forgets this
  redis.call('ZADD', expiries, math.max(now + 1000, expires), id)
  return 'early'
end
forget_end(expiry, expiries, id)
if not created or live then return 'none' end
announce(queue, 'expired', created, expires)
return 'expired'
