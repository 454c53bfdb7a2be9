-- Makes due what waits for some services in one shard. What is being delivered is left alone.
--
-- KEYS[1] schedule
-- ARGV[1] the longest claim, in ms   ARGV[2..] services
--
-- Returns how many users' events are due now and were not
local schedule, claim_ms = KEYS[1], tonumber(ARGV[1])
local FIRST_SERVICE = 2
local now = now_ms()

local wanted = {}
for index = FIRST_SERVICE, #ARGV do wanted[ARGV[index]] = true end
local woken = 0
local later = redis.call('ZRANGEBYSCORE', schedule, '(' .. now, '+inf', 'WITHSCORES')
for index = 1, #later, 2 do
  local member, due = later[index], tonumber(later[index + 1])
  local claimed = due % 1 == CLAIMED and due - now <= claim_ms + CLAIMED
  if wanted[string.match(member, '^[^|]*')] and not claimed then
    redis.call('ZADD', schedule, now, member)
    woken = woken + 1
  end
end
return woken
