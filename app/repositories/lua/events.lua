-- The events of one user: what its service is still to be told, in the order in which it happened. Scripts that write
-- some begin with this file.
--
-- An event is `kind|when in ms|registration created in ms|service|attempts`. The list of a user stands in the schedule
-- of its shard as `service|user id`, by when its first event is due (ms). `waiting` counts the events in this shard: in
-- `<service>` those that wait, in `<service>:dropped` those that were left out; until `<service>:full` (ms) all are.
-- Each of the keys ends by itself a week after the last event.
local EVENTS_LIVE_MS = 7 * 86400000

-- The queue of one user; nil where its service wants no events. Reads whatever `announce` writes to, so that it does
-- not fail.
local function event_queue(events, schedule, waiting, id, service, now)
  if not service then return nil end
  local member = service .. '|' .. id
  redis.call('LLEN', events)
  redis.call('ZSCORE', schedule, member)
  local full_until = redis.call('HGET', waiting, service .. ':full')
  return {events = events, schedule = schedule, waiting = waiting, service = service, member = member, now = now,
    full = full_until and now < tonumber(full_until)}
end

-- Writes that something happened to a registration.
local function announce(queue, kind, created, at)
  if not queue then return end
  if queue.full then
    redis.call('HINCRBY', queue.waiting, queue.service .. ':dropped', 1)
  else
    redis.call('RPUSH', queue.events, table.concat({kind, at, created, queue.service, 0}, '|'))
    redis.call('ZADD', queue.schedule, 'NX', queue.now, queue.member)
    redis.call('HINCRBY', queue.waiting, queue.service, 1)
    redis.call('PEXPIRE', queue.events, EVENTS_LIVE_MS)
    redis.call('PEXPIRE', queue.schedule, EVENTS_LIVE_MS)
  end
  redis.call('PEXPIRE', queue.waiting, EVENTS_LIVE_MS)
end

-- Takes events off the list, or all of it, and from what is counted.
local function withdraw(events, schedule, waiting, member, service, count)
  redis.call('LTRIM', events, count, -1)
  redis.call('ZREM', schedule, member)
  if redis.call('HINCRBY', waiting, service, -count) <= 0 then redis.call('HDEL', waiting, service) end
end

