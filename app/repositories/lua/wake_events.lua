-- Makes due what waits for one service in one shard. What is being delivered is left alone.
--
-- KEYS[1] schedule
-- ARGV[1] what the entries of the service begin with
--
-- Returns how many users' events are due now and were not
local schedule = KEYS[1]
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local woken = 0
local later = redis.call('ZRANGEBYSCORE', schedule, '(' .. now, '+inf', 'WITHSCORES')
for index = 1, #later, 2 do
  local member, is_claimed = later[index], later[index + 1] % 1 ~= 0
  if string.sub(member, 1, #prefix) == prefix and not is_claimed then
    redis.call('ZADD', schedule, now, member)
    woken = woken + 1
  end
end
return woken
