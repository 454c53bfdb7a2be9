-- Hands out the first event of one user, for an attempt to deliver it.
-- Keeps: one attempt a user at a time, so that the next event waits for this one. No event waits longer than the
-- longest wait, even when the clock of Redis is set back. The keys of an event that is attempted live on.
--
-- KEYS[1] events   KEYS[2] schedule
-- ARGV[1] its entry in the schedule
--
-- Returns {'claimed', event, now in ms}: see events.lua; the event counts this attempt, and so proves the claim
--      or {'later', ms}      or {'none'}: no event waits
local events, schedule = KEYS[1], KEYS[2]
local member = ARGV[1]
local now = now_ms()

local due = redis.call('ZSCORE', schedule, member)
local event = redis.call('LINDEX', events, 0)
if not event then
  redis.call('ZREM', schedule, member)
  return {'none'}
end
local left_ms = tonumber(due or now) - now
if left_ms > 0 and left_ms <= LONGEST_EVENT_WAIT_MS then return {'later', left_ms} end
local what, attempts = string.match(event, '^(.*)|(%d+)$')
event = what .. '|' .. attempts + 1
redis.call('LSET', events, 0, event)
redis.call('ZADD', schedule, now + CLAIM_MS + CLAIMED, member)
redis.call('PEXPIRE', events, EVENTS_LIVE_MS)
redis.call('PEXPIRE', schedule, EVENTS_LIVE_MS)
return {'claimed', event, now}
