-- Erases everything of one address but its two budgets and the lease of whoever is mailing it now.
--
-- KEYS[1] user record   KEYS[2] outbox
-- ARGV[1] user id   ARGV[2] what every number key of the shard starts with
--
-- Returns 1, or 0 when there was nothing.
local number = redis.call('HGET', KEYS[1], 'n')
if not number then return 0 end
redis.call('EXISTS', ARGV[2] .. number)
redis.call('DEL', KEYS[1], ARGV[2] .. number)
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
