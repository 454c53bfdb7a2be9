-- The events of one user: what its service is still to be told, in the order in which it happened. Scripts that write
-- some begin with this file.
--
-- An event is `kind|when in ms|registration created in ms|service|attempts`. The list of a user stands in the schedule
-- of its shard as `service|user id`, by when its first event is due (ms). `waiting` counts the events in this shard: in
-- `<service>` those that wait, in `<service>:dropped` those that were left out; until `<service>:full` (ms) all are.
-- Each of the keys ends by itself a week (EVENTS_LIVE_MS: scripts.py) after the last event, or after somebody worked on
-- it. A fault in the events stops no registration: a count that is no number counts as none; what cannot be counted
-- (`waiting` is of the wrong type) is written all the same; what cannot be scheduled is left out. See shared.lua.
-- A due time that ends in CLAIMED is the end of a claim.
local CLAIMED = 0.5
local FULL_AT_MOST_MS = 60000  -- what lies further ahead was written before the clock of Redis was set back

-- The queue of one user; nil where its service wants no events. Reads all that `announce` writes to, so that those
-- writes do not fail.
local function event_queue(events, schedule, waiting, id, service, now)
  if not service then return nil end
  local member = service .. '|' .. id
  redis.call('LLEN', events)
  local can_schedule = read('ZSCORE', schedule, member) ~= nil
  local counts = read('HMGET', waiting, service, service .. ':dropped', service .. ':full')
  local count, dropped, full = unpack(counts or {})
  local full_ms = (tonumber(full) or 0) - now
  return {events = events, schedule = schedule, waiting = waiting, service = service, member = member, now = now,
    can_count = counts ~= nil, count = tonumber(count) or 0, dropped = tonumber(dropped) or 0,
    full = full_ms > 0 and full_ms <= FULL_AT_MOST_MS or not can_schedule}
end

local function note_count(queue, field, count)
  if not queue.can_count then return end
  redis.call('HSET', queue.waiting, field, count)
  redis.call('PEXPIRE', queue.waiting, EVENTS_LIVE_MS)
end

-- Writes that something happened to a registration.
local function announce(queue, kind, created, at)
  if not queue then return end
  if queue.full then
    queue.dropped = queue.dropped + 1
    note_count(queue, queue.service .. ':dropped', queue.dropped)
  else
    queue.count = queue.count + 1
    redis.call('RPUSH', queue.events, table.concat({kind, at, created, queue.service, 0}, '|'))
    redis.call('ZADD', queue.schedule, 'NX', queue.now, queue.member)
    note_count(queue, queue.service, queue.count)
    redis.call('PEXPIRE', queue.events, EVENTS_LIVE_MS)
    redis.call('PEXPIRE', queue.schedule, EVENTS_LIVE_MS)
  end
end

-- Takes events off the list, from its beginning, and from what is counted. What it writes to was read before, all but
-- the count.
local function withdraw(events, waiting, service, count)
  local counted = read('HGET', waiting, service)
  redis.call('LTRIM', events, count, -1)
  if counted == nil then return end
  local left = (tonumber(counted) or 0) - count
  if left > 0 then redis.call('HSET', waiting, service, left) else redis.call('HDEL', waiting, service) end
end

