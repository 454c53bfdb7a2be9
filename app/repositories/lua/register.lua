-- Registers one address: the whole decision of the registration, in one Redis Cluster slot.
-- Keeps: one record, one live number and one outbox entry an address; every number belongs to one record.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox   KEYS[4..] candidate numbers, at least one
-- ARGV[1] user id             ARGV[2] registration id        ARGV[3] owner of the lease
-- ARGV[4] lease in ms, 0 = leave the lease alone             ARGV[5] wait in ms where nobody sends now
-- ARGV[6] life in ms, 0 = for ever                           ARGV[7] layout version
-- ARGV[8] what every number key of the shard starts with
-- ARGV[9..] for each candidate: its digest, its sealed record
--
-- Returns {'registered', index of the candidate from 1, now in ms, 1 if the lease was taken else 0}
--      or {'taken'} when every candidate belongs to somebody; nothing is changed then.
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local id, registration, owner = ARGV[1], ARGV[2], ARGV[3]
local lease_ms, wait_ms, life_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The old number's key cannot be declared: touch it before the first write, so that a slot on the move
-- stops the script whole.
local old = redis.call('HGET', user, 'number')
if old then redis.call('EXISTS', ARGV[8] .. old) end
local lease_left = redis.call('PTTL', sender)

local chosen
for index = 4, #KEYS do
  if redis.call('SET', KEYS[index], id, 'NX') then
    chosen = index - 3
    break
  end
end
if not chosen then return {'taken'} end

if old then redis.call('DEL', ARGV[8] .. old) end
redis.call('DEL', user)
redis.call('HSET', user, 'v', ARGV[7], 'registration', registration,
  'number', ARGV[7 + 2 * chosen], 'data', ARGV[8 + 2 * chosen],
  'created_ms', now, 'delivery', 'pending', 'attempts', 0)
if life_ms > 0 then
  redis.call('PEXPIREAT', user, now + life_ms)
  redis.call('PEXPIREAT', KEYS[3 + chosen], now + life_ms)
end

local taken, due = 0, now + wait_ms
if lease_left > 0 then
  due = now + lease_left
elseif lease_ms > 0 then
  redis.call('SET', sender, owner, 'PX', lease_ms)
  taken, due = 1, now + lease_ms
end
redis.call('ZADD', outbox, due, id)
return {'registered', chosen, now, taken}
