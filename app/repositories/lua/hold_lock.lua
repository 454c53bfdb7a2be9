-- Takes, keeps or lets go a lock: one holder at a time, and none after its time is up.
--
-- KEYS[1] lock   ARGV[1] owner   ARGV[2] time to hold it in ms, 0 = let it go
--
-- Returns 1 when the lock is (or was) this owner's, else 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
