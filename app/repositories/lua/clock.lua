-- The clock of Redis, by which everything is due and ends. Scripts that ask for the time begin with this file.

-- Unix time in ms. On a cluster each node has a clock of its own.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The ms until a key ends; it has at most `longest_ms`. More, or no end at all, means that the clock of Redis was
-- set back: then it ends after `longest_ms` from now.
local function time_left(key, longest_ms)
  local left_ms = redis.call('PTTL', key)
  if left_ms >= 0 and left_ms <= longest_ms then return left_ms end
  redis.call('PEXPIRE', key, longest_ms)
  return longest_ms
end

