-- Registers one address: the whole decision of the registration, in one Redis Cluster slot.
-- Keeps: one record, one live number and one outbox entry an address; every number belongs to one record.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox   KEYS[4] count of registrations
-- KEYS[5] idempotency mark   KEYS[6..] candidate numbers, at least one
-- ARGV[1] user id             ARGV[2] registration id        ARGV[3] owner of the lease
-- ARGV[4] lease in ms, 0 = leave it alone: the mail is due for everybody at once
-- ARGV[5] life in ms, 0 = for ever                           ARGV[6] layout version
-- ARGV[7] what every number key of the shard starts with
-- ARGV[8] registrations allowed in a window, 0 = any number  ARGV[9] the window in ms
-- ARGV[10] fingerprint of the request                        ARGV[11] its mark's life in ms, 0 = no mark
-- ARGV[12] age in ms at which a mark without an answer is no longer a running request (it lives as long)
-- ARGV[13..] for each candidate: its digest, its sealed record
--
-- Returns {'registered', index of the candidate from 1, now in ms, 1 if the lease was taken else 0}
--      or, with nothing changed: {'taken'} when every candidate belongs to somebody
--         {'limited', ms until the window ends}   {'running'}: the same request is still being answered
--         {'reused'}: the mark belongs to another request
--         {'replayed', delivery, created in ms}: it was answered before (an answer that a crash
--         swallowed is made up for from the record)
-- Fields of the record, short because there are many: v layout version, r registration id, n digest of the
-- number, c created (ms), s delivery state, a attempts to mail, m mailed (ms), e error code, x expires (ms),
-- t age counts from (ms), w wrong numbers in a row, d0 to d3 the sealed record. That is cut because Redis keeps
-- a hash compactly (at half the memory) while no value is longer than 64 bytes.
local user, sender, outbox, sends, mark = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, registration, owner, version, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[6], ARGV[7]
local lease_ms, life_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local limit, window_ms, mark_ms = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[11])
local running_ms = tonumber(ARGV[12])
local fingerprint, FIRST_KEY, FIRST_ARGUMENT, SHORT = ARGV[10], 6, 13, 64
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The old number's key cannot be declared: touch it before the first write, so that a slot on the move
-- stops the script whole.
local old = redis.call('HGET', user, 'n')
if old then redis.call('EXISTS', prefix .. old) end
local lease_left = redis.call('PTTL', sender)

local seen = mark_ms > 0 and redis.call('GET', mark)
if seen then
  local known, made, created, delivery = string.match(seen, '^(%w+)|(%w+)|(%d+)|(%w*)$')
  if known ~= fingerprint then return {'reused'} end
  if delivery == '' and now - created < running_ms then return {'running'} end
  local record = delivery == '' and redis.call('HMGET', user, 'r', 's')
  if record and record[1] then
    delivery = record[1] == made and record[2] == 'sent' and 'sent' or 'pending'
    redis.call('SET', mark, table.concat({known, made, created, delivery}, '|'), 'PX', mark_ms)
  end
  -- Without an answer and without a record it came to nothing: carry it out.
  if delivery ~= '' then return {'replayed', delivery, created} end
end
if limit > 0 and tonumber(redis.call('GET', sends) or 0) >= limit then
  return {'limited', redis.call('PTTL', sends)}
end

local chosen
for index = FIRST_KEY, #KEYS do
  if redis.call('SET', KEYS[index], id, 'NX') then
    chosen = index - FIRST_KEY
    break
  end
end
if not chosen then return {'taken'} end

if old then redis.call('DEL', prefix .. old) end
redis.call('DEL', user)
local sealed = ARGV[FIRST_ARGUMENT + 1 + 2 * chosen]
local part = #sealed <= 4 * SHORT and SHORT or #sealed
local record = {'v', version, 'r', registration, 'n', ARGV[FIRST_ARGUMENT + 2 * chosen], 'c', now,
  's', 'pending', 'a', 0, 'd0', string.sub(sealed, 1, part)}
for index = 1, math.ceil(#sealed / part) - 1 do
  record[#record + 1] = 'd' .. index
  record[#record + 1] = string.sub(sealed, index * part + 1, (index + 1) * part)
end
redis.call('HSET', user, unpack(record))
if life_ms > 0 then
  redis.call('HSET', user, 'x', now + life_ms)
  redis.call('PEXPIREAT', user, now + life_ms)
  redis.call('PEXPIREAT', KEYS[FIRST_KEY + chosen], now + life_ms)
end

local taken, due = 0, now
if lease_left > 0 then
  due = now + lease_left
elseif lease_ms > 0 then
  redis.call('SET', sender, owner, 'PX', lease_ms)
  taken, due = 1, now + lease_ms
end
redis.call('ZADD', outbox, due, id)
if limit > 0 and redis.call('INCR', sends) == 1 then redis.call('PEXPIRE', sends, window_ms) end
if mark_ms > 0 then
  redis.call('SET', mark, table.concat({fingerprint, registration, now, ''}, '|'),
    'PX', math.max(mark_ms, running_ms))
end
return {'registered', chosen + 1, now, taken}
