-- Hands in numbers from a file of lines `address number`, each once (BENCH_NUMBERS).
function init()
  lines = io.lines(os.getenv("BENCH_NUMBERS"))
  headers = { ["Content-Type"] = "application/json" }
end

function request()
  local line = lines()
  if not line then
    wrk.thread:stop()
    line = "nobody@example.com 100000000000"
  end
  local address, number = line:match("^(%S+) (%S+)$")
  local body = string.format('{"email":"%s","number":"%s"}', address, number)
  return wrk.format("POST", "/api/users/verify", headers, body)
end
