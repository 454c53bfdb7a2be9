-- Counts one request of one client in every window of CLIENT_LIMIT, or in none where one of them is full.
-- Keeps: no window holds more requests than its limit; every counter has a TTL. Windows are fixed: each begins
-- with the first request after the last one ended.
--
-- KEYS[1..] counters, one for each limit   ARGV[1..] for each limit: requests in its window, the window in ms
--
-- Returns 0 when the request was counted, else the ms until every full window has ended.
local budgets = {}
for n, counter in ipairs(KEYS) do
  budgets[n] = budget(counter, ARGV[2 * n - 1], ARGV[2 * n])
end

local wait_ms = used_up_ms(budgets)
if wait_ms then return wait_ms end
spend(budgets)
return 0
