-- Keeps a sender's lease while its mail is still under way.
-- Keeps: the mail is not due for anybody else before the lease ends.
--
-- KEYS[1] sender lease   KEYS[2] outbox
-- ARGV[1] user id   ARGV[2] owner   ARGV[3] lease in ms
--
-- Returns 1, or 0 when the lease is no longer this owner's.
local sender, outbox = KEYS[1], KEYS[2]
local id, owner, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()

redis.call('ZSCORE', outbox, id)
if redis.call('GET', sender) ~= owner then return 0 end

redis.call('PEXPIRE', sender, lease_ms)
redis.call('ZADD', outbox, 'XX', now + lease_ms, id)
return 1
