-- Takes the lease of one address whose mail is due, and hands out what is to be mailed.
-- Keeps: one sender an address. An entry without a record is dropped; one that is too old is given up.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- ARGV[1] user id   ARGV[2] owner   ARGV[3] lease in ms   ARGV[4] newest layout version that we can read
-- ARGV[5] age in ms at which a mail is given up          Fields of the record: see register.lua
--
-- Returns {'claimed', registration id, sealed record, created in ms, attempts}
--      or {'later', ms}: another sender has the lease, or the mail is not due yet
--      or {'newer'} for a record that only a newer process can read; it is left to that process
--      or {'failed'}: given up   or {'gone'}: nothing is owed.
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local id, owner, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local due = redis.call('ZSCORE', outbox, id)
if not due then return {'gone'} end
local record = redis.call('HMGET', user, 'r', 'c', 'a', 'v', 't', 'd0', 'd1', 'd2', 'd3')
if not record[1] then
  redis.call('ZREM', outbox, id)
  return {'gone'}
end
local holder = redis.call('GET', sender)
if holder and holder ~= owner then return {'later', redis.call('PTTL', sender)} end
if not holder and tonumber(due) > now then return {'later', tonumber(due) - now} end
if tonumber(record[4]) > tonumber(ARGV[4]) then
  redis.call('ZADD', outbox, now + lease_ms, id)
  return {'newer'}
end
if now - (record[5] or record[2]) >= tonumber(ARGV[5]) then
  redis.call('HSET', user, 's', 'failed')
  redis.call('HSETNX', user, 'e', 'too old')
  redis.call('ZREM', outbox, id)
  if holder then redis.call('DEL', sender) end
  return {'failed'}
end
redis.call('SET', sender, owner, 'PX', lease_ms)
redis.call('ZADD', outbox, now + lease_ms, id)
local sealed = table.concat({record[6], record[7] or '', record[8] or '', record[9] or ''})
return {'claimed', record[1], sealed, record[2], record[3]}
