-- Keeps the answer of one request in its mark, or removes the mark where the request came to nothing.
-- Keeps: a mark changes only with the request that wrote it. Another one may have been carried out since, with a mark of
-- its own; and what a repetition was told meanwhile (register.lua) is not taken back.
--
-- KEYS[1] idempotency mark: see register.lua
-- ARGV[1] registration id   ARGV[2] delivery that was answered, '' = the request came to nothing
-- ARGV[3] the mark's life in ms
--
-- Returns 1, or 0 with nothing changed
local mark = KEYS[1]
local registration, answered, mark_ms = ARGV[1], ARGV[2], ARGV[3]

local seen = redis.call('GET', mark) or ''
local request, made, delivery = string.match(seen, '^(%w+|(%w+)|%d+|%d+|)(%w*)$')
if made ~= registration then return 0 end
if answered ~= '' then
  redis.call('SET', mark, request .. answered, 'PX', mark_ms)
elseif delivery == '' then
  redis.call('DEL', mark)
else
  return 0
end
return 1
