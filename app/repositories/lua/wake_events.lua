-- Makes due what waits for some services in one shard. What is being delivered is left alone.
--
-- KEYS[1] schedule   ARGV[1..] services
--
-- Returns how many users' events are due now and were not
local schedule = KEYS[1]
local now = now_ms()

local wanted = {}
for _, service in ipairs(ARGV) do wanted[service] = true end
local woken = 0
local later = redis.call('ZRANGEBYSCORE', schedule, '(' .. now, '+inf', 'WITHSCORES')
for index = 1, #later, 2 do
  local member, due = later[index], tonumber(later[index + 1])
  local claimed = due % 1 == CLAIMED and due - now <= CLAIM_MS + CLAIMED
  if wanted[string.match(member, '^[^|]*')] and not claimed then
    redis.call('ZADD', schedule, now, member)
    woken = woken + 1
  end
end
return woken
