-- Makes a mail that is pending or was given up due now, and counts its age from now.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- ARGV[1] user id   Fields of the record: see register.lua
--
-- Returns 1, or 0 when there is no registration or its mail was sent.
local delivery = redis.call('HGET', KEYS[1], 's')
if not delivery or delivery == 'sent' then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 's', 'pending', 't', now)
redis.call('ZADD', KEYS[3], now + math.max(0, redis.call('PTTL', KEYS[2])), ARGV[1])
return 1
