-- The ms until a key ends; it has at most `longest_ms`. More, or no end at all, means that the clock of Redis was
-- set back: then it ends after `longest_ms` from now. Scripts that tell somebody how long to wait begin with this.
local function time_left(key, longest_ms)
  local left_ms = redis.call('PTTL', key)
  if left_ms >= 0 and left_ms <= longest_ms then return left_ms end
  redis.call('PEXPIRE', key, longest_ms)
  return longest_ms
end

