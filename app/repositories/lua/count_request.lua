-- Counts one request of one client in every window of CLIENT_LIMIT, or in none where one of them is full.
-- Keeps: no window holds more requests than its limit; every counter has a TTL. Windows are fixed: each begins
-- with the first request after the last one ended.
--
-- KEYS[1..] counters, one for each limit   ARGV[1..] for each limit: requests in its window, the window in ms
--
-- Returns 0 when the request was counted, else the ms until every full window has ended.
local full = {}
for n, counter in ipairs(KEYS) do
  full[n] = tonumber(redis.call('GET', counter) or 0) >= tonumber(ARGV[2 * n - 1])
end

local wait_ms = 0
for n, counter in ipairs(KEYS) do
  if full[n] then
    local left_ms, window_ms = redis.call('PTTL', counter), tonumber(ARGV[2 * n])
    if left_ms < 0 or left_ms > window_ms then  -- the clock of Redis was set back: no wait is that long
      redis.call('PEXPIRE', counter, window_ms)
      left_ms = window_ms
    end
    wait_ms = math.max(wait_ms, left_ms, 1)
  end
end
if wait_ms > 0 then return wait_ms end

for n, counter in ipairs(KEYS) do
  if redis.call('INCR', counter) == 1 then redis.call('PEXPIRE', counter, ARGV[2 * n]) end
end
return 0
