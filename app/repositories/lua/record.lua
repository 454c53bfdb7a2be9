-- The record of one user, read by the names of its fields. Scripts that read several begin with this file.
--
-- Fields, short because there are many: v layout version, r registration id, n digest of the number, c created
-- (ms), s delivery state, a attempts to mail, m mailed (ms), e error code, x expires (ms), t its mail was asked for
-- again, from when its age counts (ms), k how often that was, w wrong numbers in a row, p promised to a repetition,
-- d0 to d3 the sealed record. That is cut because Redis keeps a hash compactly (at half the memory) while no value
-- is longer than 64 bytes.

-- The fields of these names; false where one is missing.
local function read(user, ...)
  local record, values = {}, redis.call('HMGET', user, ...)
  for index, name in ipairs({...}) do record[name] = values[index] end
  return record
end

-- The sealed record, where d0 to d3 were read.
local function sealed(record)
  return table.concat({record.d0 or '', record.d1 or '', record.d2 or '', record.d3 or ''})
end

-- The ms for which the number is still good, -1 = no end.
local function life_left(record, now)
  return record.x and record.x - now or -1
end

