-- Lets the number of one registration be mailed again, by a mail of its own.
-- Keeps: number, record and their end stay as they are; every mail counts for both budgets, and is owed in the
-- outbox until the mail server has accepted it.
--
-- KEYS[1] user record   KEYS[2] sender lease   KEYS[3] outbox   KEYS[4] count of the address's mails
-- KEYS[5] count of the mailbox's mails, over all services
-- KEYS[6] suppression: there while the address is held back
-- ARGV[1] user id   ARGV[2] registration id   ARGV[3] owner of the lease
-- ARGV[4] lease in ms, 0 = take none: the mail is due at once, for every sender
-- ARGV[5] mails to the address allowed in a window, 0 = any number   ARGV[6] the window in ms
-- ARGV[7] mails to the mailbox allowed in a window, 0 = any number   ARGV[8] the window in ms
-- Fields of the record: see record.lua
--
-- Returns {'resent', now in ms, 1 if the lease was taken else 0, how often it was asked for, ms left, -1 = no end}
--      or, with nothing changed: {'gone'}: this registration is no longer live
--         {'limited', ms until no window is full}   {'newer'}: only a newer process can read the record
--         {'suppressed'}: a report (note_report.lua) holds the address back
local user, sender, outbox, sends, mailbox, suppressed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, registration, owner, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local limit, window_ms, mailbox_limit, mailbox_window_ms = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local now = now_ms()

local version, live, resent, expires = unpack(redis.call('HMGET', user, 'v', 'r', 'k', 'x'))
redis.call('ZSCORE', outbox, id)
local held_ms = lease_left(sender)
local budgets = {budget(sends, limit, window_ms), budget(mailbox, mailbox_limit, mailbox_window_ms)}
local held_back = redis.call('GET', suppressed)
local resends, left_ms = (resent or 0) + 1, life_left(expires, now)
if not version or live ~= registration then return {'gone'} end
if tonumber(version) > LAYOUT_VERSION then return {'newer'} end
if held_back then return {'suppressed'} end
local wait_ms = used_up_ms(budgets)
if wait_ms then return {'limited', wait_ms} end

local taken, due = take_lease(sender, owner, lease_ms, held_ms, now)
redis.call('HSET', user, 's', 'pending', 'k', resends, 't', now)
redis.call('HDEL', user, 'b')
redis.call('ZADD', outbox, due, id)
spend(budgets)
return {'resent', now, taken, resends, left_ms}
