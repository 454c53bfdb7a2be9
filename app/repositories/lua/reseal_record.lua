-- Puts a record's new seal in the place of the old one, if it is still the record that was read.
-- Keeps: everything but the seal, the life of the key included. A record that was replaced, verified, erased
-- or sealed anew meanwhile stays as it is, and one that is gone stays gone.
--
-- KEYS[1] user record
-- ARGV[1] registration id   ARGV[2] the seal as it was read   ARGV[3] the new seal, of the same length
-- Fields of the record: see record.lua
--
-- Returns 1, or 0 when the record has changed.
local user, registration, old, new = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

local live, d0, d1, d2, d3 = unpack(redis.call('HMGET', user, 'r', 'd0', 'd1', 'd2', 'd3'))
if live ~= registration or joined(d0, d1, d2, d3) ~= old or #new ~= #old then return 0 end

redis.call('HSET', user, unpack(cut(new)))  -- into the same fields, as it is as long
return 1
