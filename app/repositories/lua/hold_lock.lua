-- Takes, keeps or lets go a lock: one holder at a time, and none after its time is up.
-- Keeps: a dead holder is waited for no longer than the time that is asked for, whatever becomes of the clock of
-- Redis, and also where its lock has no end; a live one renews its lock. What is no lock is removed.
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
