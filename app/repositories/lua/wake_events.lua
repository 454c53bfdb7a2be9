-- Makes due what waits for one service in one shard. What is being delivered is left alone.
--
-- KEYS[1] schedule
-- ARGV[1] what the entries of the service begin with   ARGV[2] the longest claim, in ms
--
-- Returns how many users' events are due now and were not
local schedule = KEYS[1]
local prefix, claim_ms = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local woken = 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', schedule, '(' .. now + claim_ms, '+inf')) do
  if string.sub(member, 1, #prefix) == prefix then
    redis.call('ZADD', schedule, now, member)
    woken = woken + 1
  end
end
return woken
