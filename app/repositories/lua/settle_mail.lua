-- Writes down what came out of one sending, compared by mail and by owner of the lease.
-- Keeps: an outbox entry goes only with the mail of the registration that is live, or with its record.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- KEYS[4] events   KEYS[5] schedule   KEYS[6] waiting   KEYS[7] expiry   KEYS[8] expiries: see events.lua, expiry.lua
-- ARGV[1] user id   ARGV[2] mail id   ARGV[3] owner   ARGV[4] lease in ms
-- ARGV[5] sent | pending | failed | refused (erases) | released  ARGV[6] wait in ms before a retry
-- ARGV[7] error code, '' = none
-- ARGV[8] 1 = where another mail is owed by now, keep the lease and hand that out
-- ARGV[9] what every number key of the shard starts with
-- The mail id is the registration's, and from the first resend on with `-` and how often it was asked for again.
-- Fields of the record: see record.lua. `refused` becomes `failed` where a repetition was promised the mail.
-- A mail that was reported to have come back before its acceptance is written down stays so, and is owed no more.
-- Every mail of the live registration that was accepted has one event, however often that is settled (a caller repeats
-- it when its answer is lost); where a report came first, that wrote it.
--
-- Returns {'settled', delivery state}, state '' when the record is erased
--      or {'replaced', …} as {'claimed', …} of claim_mail.lua: the lease is kept
--      or {'left'}: another mail is owed, or only a newer process can read it; left to the relay. Of the mail that
--      was settled nothing is written in either case; at most its event is announced
--      or {'gone'}: erased or expired meanwhile, or another mail was asked for and then one came back: none is owed
--      or {'lost'}: the lease is another's, or ran out and the mail was not accepted; nothing is changed.
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local events, schedule, waiting, expiry, expiries = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local id, mail, owner, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local delivery, wait_ms, error_code = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local go_on, prefix = ARGV[8] == '1', ARGV[9]
local now = now_ms()

local version, live, digest, created, tried, again, promised, resent, expires, d0, d1, d2, d3, reported, told, service,
  heard, failed = unpack(redis.call('HMGET', user, 'v', 'r', 'n', 'c', 'a', 't', 'p', 'k', 'x', 'd0', 'd1', 'd2', 'd3',
    'b', 's', 'u', 'h', 'e'))
local number = number_key(prefix, digest)
redis.call('ZSCORE', outbox, id)
local holder = redis.call('GET', sender)
local queue = event_queue(events, schedule, waiting, id, service, now)
local ends = service and noted_end(expiry, expiries, id)
-- After a lease that ran out and that no other sender took, what the mail server accepted is still the truth, and a
-- number that was replaced meanwhile is mailed (again) after it.
if holder ~= owner and (holder or delivery ~= 'sent') then return {'lost'} end

if not version then
  redis.call('ZREM', outbox, id)
  redis.call('DEL', sender)
  return {'gone'}
end
local newer = tonumber(version) > LAYOUT_VERSION
local owed = live .. (resent and '-' .. resent or '')
local of, nth = string.match(mail, '^(%w+)%-?(%d*)$')
nth = tonumber(nth) or 0
local is_news = queue and not newer and delivery == 'sent' and of == live and nth > tonumber(heard or -1)
local function tell_of_acceptance()
  if not is_news then return end
  announce(queue, 'sent', created, now)
  redis.call('HSET', user, 'h', nth)
end
if newer or owed ~= mail then
  if reported and not newer then
    tell_of_acceptance()
    redis.call('ZREM', outbox, id)
    redis.call('DEL', sender)
    return {'gone'}
  end
  if newer or not go_on then
    tell_of_acceptance()
    redis.call('ZADD', outbox, now + wait_ms, id)
    redis.call('DEL', sender)
    return {'left'}
  end
  local asked_for, attempts, resends = (again or created) + 0, tried + 0, (resent or 0) + 0
  local left_ms = life_left(expires, now)
  tell_of_acceptance()
  redis.call('ZADD', outbox, now + lease_ms, id)
  redis.call('SET', sender, owner, 'PX', lease_ms)
  return {'replaced', live, joined(d0, d1, d2, d3), asked_for, attempts, resends, left_ms}
end

if delivery == 'refused' and promised then delivery = 'failed' end
local attempts, age = tried + 1, now + wait_ms - (again or created)
local state = ({released = 'pending', refused = ''})[delivery] or delivery
if delivery == 'pending' and age >= GIVE_UP_MAIL_MS then state = 'failed' end
if reported and delivery ~= 'refused' then state = told end
tell_of_acceptance()
if delivery == 'refused' then
  redis.call('DEL', user, number or user)
  if ends then forget_end(expiry, expiries, id) end
elseif delivery ~= 'released' then
  local mailed = delivery == 'sent' and {'m', now} or {}
  redis.call('HSET', user, 's', state, 'a', attempts, unpack(mailed))
  if error_code ~= '' and not reported then redis.call('HSET', user, 'e', error_code) end
  if error_code == '' and failed and not reported then redis.call('HDEL', user, 'e') end
  if state == 'failed' then announce(queue, 'failed', created, now) end
end
if state == 'pending' then
  redis.call('ZADD', outbox, now + wait_ms, id)
else
  redis.call('ZREM', outbox, id)
end
redis.call('DEL', sender)
return {'settled', state}
