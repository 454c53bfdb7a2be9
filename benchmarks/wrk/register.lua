-- A fresh address for every request. PREFIX keeps runs apart; each thread has its own range.
local prefix = os.getenv("BENCH_PREFIX") or "a"
local prefer = os.getenv("BENCH_PREFER")
local key = os.getenv("BENCH_KEY")
local idempotent = os.getenv("BENCH_IDEMPOTENT")
local same = tonumber(os.getenv("BENCH_SAME") or "0")
local token = string.rep("t", 64)
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("id", threads)
end

function init()
  count = 0
  headers = { ["Content-Type"] = "application/json" }
  if prefer then headers["Prefer"] = prefer end
  if key then headers["Authorization"] = "Bearer " .. key end
end

function request()
  count = count + 1
  local n = same > 0 and count * 7919 % same or count -- a prime's stride: all of them, none twice in a row
  if idempotent then headers["Idempotency-Key"] = prefix .. id .. "-" .. count end
  local body = string.format('{"email":"%s%d.%d@example.com","token":"%s"}', prefix, id, n, token)
  return wrk.format("POST", "/api/users", headers, body)
end
