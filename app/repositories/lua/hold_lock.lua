-- Takes or keeps a lock: one holder at a time, and none after its time is up.
--
-- KEYS[1] lock   ARGV[1] owner   ARGV[2] time to hold it in ms
--
-- Returns 1 when the lock is this owner's, else 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
