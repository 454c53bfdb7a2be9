-- Takes, keeps or lets go a lock: one holder at a time, and none after its time is up.
-- Keeps: the lock of a dead holder lasts no longer than the time that is asked for, also where the clock of Redis was
-- set back, and where the lock has no end; a live holder renews its lock. What is no lock is removed.
--
-- KEYS[1] lock   ARGV[1] owner   ARGV[2] time to hold it in ms, 0 = let it go
--
-- Returns 1 when the lock is (or was) this owner's, else 0.
local lock, owner, ttl_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])

local holder = redis.pcall('GET', lock)
if type(holder) == 'table' then -- WRONGTYPE: it is no lock
  redis.call('DEL', lock)
elseif holder and holder ~= owner then
  if ttl_ms > 0 then time_left(lock, ttl_ms) end
  return 0
end

if ttl_ms == 0 then redis.call('DEL', lock) else redis.call('SET', lock, owner, 'PX', ttl_ms) end
return 1
