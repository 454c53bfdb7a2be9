-- Keeps a sender's lease while its mail is still under way.
--
-- KEYS[1] sender lease   KEYS[2] outbox
-- ARGV[1] user id   ARGV[2] owner   ARGV[3] lease in ms
--
-- Returns 1, or 0 when the lease is no longer this owner's.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], 'XX', now + ARGV[3], ARGV[1])
return 1
