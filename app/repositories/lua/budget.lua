-- Budgets: so many in a window of time, counted in a key that ends with the window. Scripts that spend from one
-- begin with this file. A limit of 0 means: no budget.

-- How much of it is used. Fails, before anything is written, where the key holds no number.
local function used(counter, limit)
  return limit > 0 and (redis.call('GET', counter) or 0) + 0 or 0
end

-- The ms until the window ends.
local function window_left(counter, window_ms)
  local left_ms = redis.call('PTTL', counter)
  if left_ms >= 0 and left_ms <= window_ms then return left_ms end
  redis.call('PEXPIRE', counter, window_ms)  -- the clock of Redis was set back: no wait is that long
  return window_ms
end

-- Counts one more. Not INCR: what `used` could read is written without fail.
local function spend(counter, limit, already, window_ms)
  if limit == 0 then return end
  redis.call('SET', counter, already + 1, 'KEEPTTL')
  if already == 0 then redis.call('PEXPIRE', counter, window_ms) end
end

