-- Drops all events of one user.
--
-- KEYS[1] events   KEYS[2] schedule   KEYS[3] waiting
-- ARGV[1] its entry in the schedule   ARGV[2] service
--
-- Returns how many there were
local events, schedule, waiting = KEYS[1], KEYS[2], KEYS[3]
local member, service = ARGV[1], ARGV[2]

local count = redis.call('LLEN', events)
redis.call('ZSCORE', schedule, member)
withdraw(events, waiting, service, count)
redis.call('ZREM', schedule, member)
return count
