-- Takes the lease of one address whose mail is owed, and hands out what is to be mailed.
-- Keeps: one sender an address. An entry without a record is dropped.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- ARGV[1] user id   ARGV[2] owner   ARGV[3] lease in ms   ARGV[4] newest layout version that we can read
--
-- Returns {'claimed', registration id, sealed record, created in ms, attempts}
--      or {'busy', ms until the other sender's lease ends}
--      or {'newer'} for a record that only a newer process can read; it is left to that process
--      or {'gone'}: nothing is owed.
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local id, owner, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if not redis.call('ZSCORE', outbox, id) then return {'gone'} end
local record = redis.call('HMGET', user, 'registration', 'data', 'created_ms', 'attempts', 'v')
if not record[1] then
  redis.call('ZREM', outbox, id)
  return {'gone'}
end
local holder = redis.call('GET', sender)
if holder and holder ~= owner then
  local left = redis.call('PTTL', sender)
  redis.call('ZADD', outbox, now + left, id)
  return {'busy', left}
end
if tonumber(record[5]) > tonumber(ARGV[4]) then
  redis.call('ZADD', outbox, now + lease_ms, id)
  return {'newer'}
end
redis.call('SET', sender, owner, 'PX', lease_ms)
redis.call('ZADD', outbox, now + lease_ms, id)
return {'claimed', record[1], record[2], record[3], record[4]}
