-- Registers one address: the whole decision of the registration, in one Redis Cluster slot.
-- Keeps: one record, one live number and one outbox entry an address; every number belongs to one record.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox
-- KEYS[4] events   KEYS[5] schedule   KEYS[6] waiting   KEYS[7] expiry   KEYS[8] expiries: see events.lua, expiry.lua
-- KEYS[9] count of the address's mails   KEYS[10] count of the mailbox's mails, over all services
-- KEYS[11] idempotency mark   KEYS[12] suppression: there while the address is held back
-- KEYS[13..] candidate numbers, at least one
-- ARGV[1] user id             ARGV[2] registration id, which owns the lease, too
-- ARGV[3] lease in ms, 0 = take none: the mail is due at once, for every sender
-- ARGV[4] life in ms, 0 = for ever                           ARGV[5] what every number key of the shard starts with
-- ARGV[6] mails to the address allowed in a window, 0 = any number    ARGV[7] the window in ms
-- ARGV[8] mails to the mailbox allowed in a window, 0 = any number    ARGV[9] the window in ms
-- ARGV[10] fingerprint of the request                        ARGV[11] its mark's life in ms, 0 = no mark
-- ARGV[12] service that is told what becomes of the registration, '' = none      ARGV[13] 1 = it is a test, else 0
-- ARGV[14..] for each candidate: its digest, its sealed record
--
-- Returns {'registered', index of the candidate from 0, now in ms, 1 if the lease was taken else 0}
--         {'replayed', delivery, created in ms, expires in ms, 0 = never}: it was carried out before
--      or, with nothing changed: {'taken'} when every candidate belongs to somebody
--         {'limited', ms until no window is full}   {'running'}: the same request was stored a moment ago
--         {'reused'}: the mark belongs to another request
--         {'newer'}: only a newer process can read the record or the mark
--         {'suppressed'}: a report (note_report.lua) holds the address back
--
-- The mark is `fingerprint|registration id|created in ms|expires in ms|delivery`, delivery empty until the
-- request is answered. It is written in the commit of the registration, so it tells that the registration was
-- stored. A mark that stays empty belongs to a request that waits for its mail, whose answer was lost (503) or
-- whose process died; it does not tell which. After RUNNING_MS a repetition is answered from the record, and that
-- answer is kept in the mark. The record notes that it was promised (`p`): it is not taken back any more when the
-- mail server refuses the address (settle_mail.lua). Without a record the request came to nothing and is carried
-- out.
--
-- Fields of the record: see record.lua
local user, sender, outbox = KEYS[1], KEYS[2], KEYS[3]
local events, schedule, waiting, expiry, expiries = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local sends, mailbox, mark, suppressed = KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local id, registration, prefix = ARGV[1], ARGV[2], ARGV[5]
local lease_ms, life_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local limit, window_ms, mailbox_limit, mailbox_window_ms = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local fingerprint, mark_ms = ARGV[10], tonumber(ARGV[11])
local told, test = ARGV[12], ARGV[13] == '1'
local FIRST_KEY, FIRST_ARGUMENT = 13, 14
local ACCEPTED = {sent = true, bounced = true, complained = true}
local now = now_ms()

local stored, digest, live, state, before = unpack(redis.call('HMGET', user, 'v', 'n', 'r', 's', 'c'))
local old = number_key(prefix, digest)
redis.call('ZSCORE', outbox, id)
local held_ms = lease_left(sender)
local budgets = {budget(sends, limit, window_ms), budget(mailbox, mailbox_limit, mailbox_window_ms)}
local held_back = redis.call('GET', suppressed)
local seen = mark_ms > 0 and redis.call('GET', mark)
local ended_created, ended, ended_service = noted_end(expiry, expiries, id)
local queue = event_queue(events, schedule, waiting, id, ended_service, now)
if stored and tonumber(stored) > LAYOUT_VERSION then return {'newer'} end
-- Services tell registrations of an address apart by when they were created, also those of one ms. What lies further
-- ahead was written before the clock of Redis was set back. The mail is due now all the same.
local due_from, ahead_ms = now, (tonumber(before) or 0) - now
if ahead_ms >= 0 and ahead_ms < 1000 then now = now + ahead_ms + 1 end

if seen then
  local known, made, created, expires, delivery = string.match(seen, '^(%w+)|(%w+)|(%d+)|(%d+)|(%w*)$')
  if not known then return {'newer'} end
  if known ~= fingerprint then return {'reused'} end
  local age = now - created  -- below 0 where the clock of Redis was set back
  if delivery == '' and age >= 0 and age < RUNNING_MS then return {'running'} end
  if delivery == '' and stored then
    local is_live = live == made
    delivery = is_live and ACCEPTED[state] and 'sent' or 'pending'
    redis.call('SET', mark, table.concat({known, made, created, expires, delivery}, '|'), 'PX', mark_ms)
    if is_live then redis.call('HSET', user, 'p', 1) end
  end
  if delivery ~= '' then return {'replayed', delivery, created, expires} end
end
if held_back then return {'suppressed'} end
local wait_ms = used_up_ms(budgets)
if wait_ms then return {'limited', wait_ms} end

local expires = life_ms > 0 and now + life_ms or 0
local ending = life_ms > 0 and {'PXAT', expires} or {}
local chosen
for index = FIRST_KEY, #KEYS do
  if redis.call('SET', KEYS[index], id, 'NX', unpack(ending)) then
    chosen = index - FIRST_KEY
    break
  end
end
if not chosen then return {'taken'} end

if ended then  -- of the registration before this one
  if not stored then announce(queue, 'expired', ended_created, ended) end
  forget_end(expiry, expiries, id)
end

redis.call('DEL', user, old or user)
local number, seal = ARGV[FIRST_ARGUMENT + 2 * chosen], ARGV[FIRST_ARGUMENT + 2 * chosen + 1]
local record = {'v', LAYOUT_VERSION, 'r', registration, 'n', number, 'c', now, 's', 'pending', 'a', 0,
  unpack(cut(seal))}
local function put(name, value) record[#record + 1], record[#record + 2] = name, value end
if told ~= '' then put('u', told) end
if told ~= '' and test then put('z', 1) end
if life_ms > 0 then put('x', expires) end
redis.call('HSET', user, unpack(record))
if life_ms > 0 then
  redis.call('PEXPIREAT', user, expires)
  if told ~= '' then note_end(expiry, expiries, id, now, expires, told, now) end
end

local taken, due = take_lease(sender, registration, lease_ms, held_ms, due_from)
redis.call('ZADD', outbox, due, id)
spend(budgets)
if mark_ms > 0 then
  redis.call('SET', mark, table.concat({fingerprint, registration, now, expires, ''}, '|'),
    'PX', math.max(mark_ms, RUNNING_MS))
end
return {'registered', chosen, now, taken}
