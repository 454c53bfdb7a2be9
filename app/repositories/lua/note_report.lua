-- Writes down what was reported of the mail of one registration, if that is still the live one.
-- Keeps: only the live registration changes, and it stays live with its number; an address is held back only
-- together with what its record says; no mail is owed to an address that is held back.
--
-- KEYS[1] user record   KEYS[2] outbox   KEYS[3] suppression
-- KEYS[4] events   KEYS[5] schedule   KEYS[6] waiting: see events.lua
-- ARGV[1] user id   ARGV[2] registration id   ARGV[3] bounced | complained | soft
-- ARGV[4] error code to leave   ARGV[5] ms for which the address is held back
-- ARGV[6] which mail it is about, by how often the mail had been asked for again
-- Fields of the record: see record.lua
--
-- Returns 'noted', or 'again' where the record said so already, or more
--      or, with nothing changed: 'gone': this registration is no longer live
--         'newer': only a newer process can read the record
-- The suppression is `kind|since when in ms|until when in ms`.
local user, outbox, suppressed, events, schedule, waiting = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, registration, kind, error_code = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local suppress_ms, mail = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()

local version, live, reported, state, created, service, heard = unpack(
  redis.call('HMGET', user, 'v', 'r', 'b', 's', 'c', 'u', 'h'))
redis.call('ZSCORE', outbox, id)
local queue = event_queue(events, schedule, waiting, id, service, now)
if not version or live ~= registration then return 'gone' end
if tonumber(version) > LAYOUT_VERSION then return 'newer' end

local is_news = queue and mail > tonumber(heard or -1)
if kind == 'soft' then
  if not reported then redis.call('HSET', user, 'e', error_code) end  -- what was for good says more
  return 'noted'
end
-- A complaint stays one whatever bounces: else the two in turn would be news for ever.
local says_less = state == 'complained' and kind == 'bounced'
if not says_less then
  redis.call('HSET', user, 's', kind, 'e', error_code, 'b', now)
  redis.call('SET', suppressed, table.concat({kind, now, now + suppress_ms}, '|'), 'PX', suppress_ms)
end
redis.call('ZREM', outbox, id)
-- What came back was accepted before, also where that is not written down yet.
if is_news then
  announce(queue, 'sent', created, now)
  redis.call('HSET', user, 'h', mail)
end
if state == kind or says_less then return 'again' end
announce(queue, kind, created, now)
return 'noted'
