-- Takes the lease of one address whose mail is due, and hands out what is to be mailed.
-- Keeps: one sender an address. An entry without a record is dropped; one that is too old is given up. No mail
-- waits longer than the longest wait, even when the clock of Redis is set back.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- KEYS[4] events   KEYS[5] schedule   KEYS[6] waiting: see events.lua
-- ARGV[1] user id   ARGV[2] owner   ARGV[3] lease in ms      Fields of the record: see record.lua
--
-- Returns {'claimed', registration id, sealed record, asked for in ms, attempts, how often it was asked for again,
--      ms for which the number is still good, -1 = no end}
--      or {'later', ms}: another sender has the lease, or the mail is not due yet
--      or {'newer'} for a record that only a newer process can read; it is left to that process
--      or {'failed', sealed record}: given up   or {'gone'}: nothing is owed. Both let the lease go that the owner held.
local user, sender, outbox, events, schedule, waiting = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, owner, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()

local due = redis.call('ZSCORE', outbox, id)
local version, registration, created, tried, again, resent, expires, d0, d1, d2, d3, service = unpack(
  redis.call('HMGET', user, 'v', 'r', 'c', 'a', 't', 'k', 'x', 'd0', 'd1', 'd2', 'd3', 'u'))
local holder = redis.call('GET', sender)
local queue = event_queue(events, schedule, waiting, id, service, now)
if not due or not version then
  redis.call('ZREM', outbox, id)
  if holder == owner then redis.call('DEL', sender) end  -- or who registers next would wait for its end
  return {'gone'}
end
if holder and holder ~= owner then return {'later', time_left(sender, LONGEST_LEASE_MS)} end
local wait_ms = tonumber(due) - now
if not holder and wait_ms > 0 and wait_ms <= LONGEST_MAIL_WAIT_MS then return {'later', wait_ms} end
if tonumber(version) > LAYOUT_VERSION then
  redis.call('ZADD', outbox, now + lease_ms, id)
  return {'newer'}
end
local asked_for, attempts, resends = (again or created) + 0, tried + 0, (resent or 0) + 0
local left_ms = life_left(expires, now)
if now - asked_for >= GIVE_UP_MAIL_MS then
  redis.call('HSET', user, 's', 'failed')
  redis.call('HSETNX', user, 'e', 'too old')
  announce(queue, 'failed', created, now)
  redis.call('ZREM', outbox, id)
  if holder then redis.call('DEL', sender) end
  return {'failed', joined(d0, d1, d2, d3)}
end
redis.call('SET', sender, owner, 'PX', lease_ms)
redis.call('ZADD', outbox, now + lease_ms, id)
return {'claimed', registration, joined(d0, d1, d2, d3), asked_for, attempts, resends, left_ms}
