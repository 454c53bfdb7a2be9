-- Counts a try, then compares the number with the address's live one; the right one consumes the registration.
-- Keeps: a token is handed out at most once. A guess that cannot be counted is not compared: where Redis refuses
-- the count (OOM, MISCONF, READONLY, NOREPLICAS), right and wrong numbers of known and unknown addresses fail
-- alike. Under OOM it lets DEL through, so a count after the comparison would let the right number through.
--
-- A request that names itself (Idempotency-Key) and got the token gets it again for a while: it may have lost the
-- answer. That costs no try; with another name or number it is a request like any other. Other numbers under the
-- name are counted before anything is compared. After OTHER_NUMBERS of them the answer is no longer kept: somebody who
-- knows the name could search for the number.
--
-- KEYS[1] user record   KEYS[2] outbox   KEYS[3] count of wrong numbers
-- KEYS[4] what was handed out last: `fingerprint|digest of the number|other numbers under it|sealed record`
-- KEYS[5] events   KEYS[6] schedule   KEYS[7] waiting   KEYS[8] expiry   KEYS[9] expiries: see events.lua, expiry.lua
-- ARGV[1] user id   ARGV[2] digest of the number   ARGV[3] what every number key of the shard starts with
-- ARGV[4] wrong numbers allowed in a window, 0 = any number   ARGV[5] the window in ms
-- ARGV[6] first bytes of the seals that we can open          ARGV[7] fingerprint of the request's name, '' = none
-- ARGV[8] 1 = its service is a test service now, else 0
-- Fields of the record: see record.lua
--
-- Returns {'verified', sealed record}   {'replayed', sealed record}: the same request got it before
--         {'wrong', tries left, -1 = any number}
--      or, with nothing changed but the count in KEYS[4]: {'limited', ms until the window ends}
--         {'newer'}: only a newer process can read the record   {'foreign'}: it is sealed with a key we lack
local user, outbox, tries, verified = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events, schedule, waiting, expiry, expiries = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local id, number, prefix, readable, fingerprint = ARGV[1], ARGV[2], ARGV[3], ARGV[6], ARGV[7]
local limit, window_ms, test = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[8] == '1'
local now = now_ms()
local function opens(seal) return string.find(readable, string.sub(seal, 1, 1), 1, true) end

local version, live, wrong, d0, d1, d2, d3, created, service, heard, was_test = unpack(
  redis.call('HMGET', user, 'v', 'n', 'w', 'd0', 'd1', 'd2', 'd3', 'c', 'u', 'h', 'z'))
local live_number = number_key(prefix, live)
redis.call('ZSCORE', outbox, id)
local queue = event_queue(events, schedule, waiting, id, service, now)
local ends = service and noted_end(expiry, expiries, id)
local handed_out = fingerprint ~= '' and redis.call('GET', verified) or ''
local known, its_number, others, its_record = string.match(handed_out, '^(%w+)|([%w_-]+)|(%d+)|(.*)$')
local tried, in_a_row = (redis.call('GET', tries) or 0) + 0, (wrong or 0) + 1
if known == fingerprint then
  if not opens(its_record) then return {'foreign'} end
  redis.call('SET', verified, table.concat({known, its_number, others + 1, its_record}, '|'), 'KEEPTTL')
  if its_number == number then
    redis.call('SET', verified, handed_out, 'KEEPTTL')
    return {'replayed', its_record}
  end
  if others + 1 >= OTHER_NUMBERS then redis.call('DEL', verified) end
end
if limit > 0 and tried >= limit then return {'limited', time_left(tries, window_ms)} end
if version and tonumber(version) > LAYOUT_VERSION then return {'newer'} end
if live and not opens(d0) then return {'foreign'} end

-- Counted without a limit, too: it is the write that Redis may refuse.
redis.call('INCR', tries)
if live then redis.call('HSET', user, 'w', in_a_row) end

local right = live == number
if tried == 0 and not right and limit > 0 then
  redis.call('PEXPIRE', tries, window_ms)
elseif right or limit == 0 then  -- costs no try
  if tried == 0 then redis.call('DEL', tries) else redis.call('SET', tries, tried, 'KEEPTTL') end
end
if right or (live and in_a_row >= WRONG_IN_A_ROW) then
  redis.call('DEL', user, live_number)
  redis.call('ZREM', outbox, id)
  if ends then forget_end(expiry, expiries, id) end
end
if not right then return {'wrong', limit > 0 and limit - tried - 1 or -1} end
local seal = joined(d0, d1, d2, d3)
if test or not was_test then  -- else it was shown instead of mailed, and confirms nothing
  -- Who knows the number has the mail, also where its acceptance is not written down yet.
  if not heard then announce(queue, 'sent', created, now) end
  announce(queue, 'verified', created, now)
end
if fingerprint ~= '' then
  redis.call('SET', verified, table.concat({fingerprint, number, 0, seal}, '|'), 'PX', REPLAY_MS)
end
return {'verified', seal}
