-- Keys that the users of a shard share for their events. Scripts that use some begin with this file.
--
-- Where something else stands there that somebody else has written, registrations and mails of the shard go on: what
-- should stand there is left out. Sweeps tell the operator of such keys.

-- The answer to a command that reads; nil where the key is of the wrong type. Any other fault stops the script.
local function read(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then return nil end
  return redis.call(...)
end

