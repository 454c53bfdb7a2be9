-- Compares a number with the address's live one, and consumes the registration when it is right.
-- Keeps: a token is handed out at most once; every wrong number counts, for known and unknown addresses.
--
-- KEYS[1] user record   KEYS[2] outbox   KEYS[3] count of wrong numbers
-- ARGV[1] user id   ARGV[2] digest of the number   ARGV[3] what every number key of the shard starts with
-- ARGV[4] wrong numbers allowed in a window, 0 = any number   ARGV[5] the window in ms
-- ARGV[6] wrong numbers in a row that erase the registration   ARGV[7] newest layout version we can read
-- ARGV[8] first bytes of the seals that we can open         Fields of the record: see register.lua
--
-- Returns {'verified', sealed record}   {'wrong'}
--      or {'limited', ms until the window ends}
--      or {'foreign'} for a record that another process can read and we cannot; nothing is changed, so
--         that a token is not consumed and then lost.
local user, outbox, tries = KEYS[1], KEYS[2], KEYS[3]
local id, number, prefix = ARGV[1], ARGV[2], ARGV[3]
local limit, window_ms = tonumber(ARGV[4]), tonumber(ARGV[5])

local record = redis.call('HMGET', user, 'n', 'v', 'd0', 'd1', 'd2', 'd3')
local live = record[1]
if live then redis.call('EXISTS', prefix .. live) end
if limit > 0 and tonumber(redis.call('GET', tries) or 0) >= limit then
  return {'limited', redis.call('PTTL', tries)}
end
local readable = live and tonumber(record[2]) <= tonumber(ARGV[7])
  and string.find(ARGV[8], string.sub(record[3], 1, 1), 1, true)
if live and not readable then return {'foreign'} end

if live == number then
  redis.call('DEL', user, prefix .. live)
  redis.call('ZREM', outbox, id)
  return {'verified', table.concat({record[3], record[4] or '', record[5] or '', record[6] or ''})}
end
if limit > 0 and redis.call('INCR', tries) == 1 then redis.call('PEXPIRE', tries, window_ms) end
if live and redis.call('HINCRBY', user, 'w', 1) >= tonumber(ARGV[6]) then
  redis.call('DEL', user, prefix .. live)
  redis.call('ZREM', outbox, id)
end
return {'wrong'}
