-- When the registration of one user ends, for the event of it. Scripts that begin or end a registration begin with
-- this file.
--
-- `expiry` is `created in ms|expires in ms|service`, there for services that want events and registrations that have an
-- end; `expiries` holds the users of the shard by that end. An expiry without a record is an end whose event is still
-- to be written: everything else that ends a registration removes it. Where `expiries` is of the wrong type, an end
-- is in `expiry` alone, and the next registration tells it. See shared.lua.
local EXPIRY_STAYS_MS = 7 * 86400000

-- Created, expires and service of an end that is noted, nil where none is.
local function noted_end(expiry, expiries, id)
  local noted = redis.call('GET', expiry)
  read('ZSCORE', expiries, id)
  if not noted then return nil end
  return string.match(noted, '^(%d+)|(%d+)|(.+)$')
end

local function note_end(expiry, expiries, id, created, expires, service, now)
  local stays_ms = expires - now + EXPIRY_STAYS_MS
  redis.call('SET', expiry, table.concat({created, expires, service}, '|'), 'PX', stays_ms)
  if read('ZSCORE', expiries, id) == nil then return end
  redis.call('ZADD', expiries, expires, id)
  if redis.call('PTTL', expiries) < stays_ms then redis.call('PEXPIRE', expiries, stays_ms) end
end

local function forget_end(expiry, expiries, id)
  redis.call('DEL', expiry)
  if read('ZSCORE', expiries, id) ~= nil then redis.call('ZREM', expiries, id) end
end

