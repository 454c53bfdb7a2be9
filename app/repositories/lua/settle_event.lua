-- Writes down what came of an attempt to deliver the first event of one user.
-- Keeps: an event goes only with the last claim under which it was handed out, also where that has ended and nobody
-- claimed it since.
--
-- KEYS[1] events   KEYS[2] schedule   KEYS[3] waiting
-- ARGV[1] its entry in the schedule   ARGV[2] service   ARGV[3] the event, as it was claimed
-- ARGV[4] ms until the next attempt, -1 = there is none: it was taken, or given up
--
-- Returns 'waits', 'more' where the next event is due, 'empty' where there is none,
--      or 'lost' with nothing changed: somebody else has claimed it since, or it is gone
local events, schedule, waiting = KEYS[1], KEYS[2], KEYS[3]
local member, service, claim, wait_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = now_ms()

local left = redis.call('LLEN', events)
redis.call('ZSCORE', schedule, member)
if redis.call('LINDEX', events, 0) ~= claim then return 'lost' end
if wait_ms >= 0 then
  redis.call('ZADD', schedule, now + wait_ms, member)
  return 'waits'
end
withdraw(events, waiting, service, 1)
if left > 1 then
  redis.call('ZADD', schedule, now, member)
  return 'more'
end
redis.call('ZREM', schedule, member)
return 'empty'
