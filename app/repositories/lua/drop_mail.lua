-- Gives up one mail that is owed. The registration stays.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- ARGV[1] user id   ARGV[2] error code to leave   Fields of the record: see register.lua
--
-- Returns 'dropped', 'sending' while a sender has the lease (nothing is changed), or 'none'.
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then return 'none' end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'sending' end
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 's', 'failed', 'e', ARGV[2])
end
return 'dropped'
