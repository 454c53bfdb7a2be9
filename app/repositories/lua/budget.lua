-- Budgets: a number of uses in a window of time, counted in a key that ends with the window. Scripts that spend from
-- them begin with this file. A limit of 0 means: no budget.

-- Reads one. Fails, before anything is written, where the key holds no number.
local function budget(counter, limit, window_ms)
  limit = tonumber(limit)
  local used = limit > 0 and (redis.call('GET', counter) or 0) + 0 or 0
  return {counter = counter, limit = limit, window_ms = tonumber(window_ms), used = used}
end

-- The ms until none of them is used up; nil where something is left of each.
local function used_up_ms(budgets)
  local wait_ms
  for index = 1, #budgets do
    local each = budgets[index]
    if each.limit > 0 and each.used >= each.limit then
      wait_ms = math.max(wait_ms or 1, time_left(each.counter, each.window_ms))
    end
  end
  return wait_ms
end

-- Counts one more in each. Not INCR: what `budget` could read is written without fail.
local function spend(budgets)
  for index = 1, #budgets do
    local each = budgets[index]
    if each.limit > 0 then
      redis.call('SET', each.counter, each.used + 1, 'KEEPTTL')
      if each.used == 0 then redis.call('PEXPIRE', each.counter, each.window_ms) end
    end
  end
end

