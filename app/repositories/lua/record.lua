-- The record of one user: what its fields mean. Scripts that find a record's number, or cut or join its
-- seal, begin with this file.
--
-- Field names, short because there are many: v layout version, r registration id, n digest of the number, c created
-- (ms), s delivery state, a attempts to mail, m mailed (ms), e error code, x expires (ms), t its mail was asked for
-- again, from when its age counts (ms), k how often that was, w wrong numbers in a row, p promised to a repetition,
-- b bounced or complained of (ms), until the mail is asked for again, u service that is told what becomes of it (docs/
-- events.md), h the last mail whose acceptance it was told of, by how often the mail had been asked for again, z there
-- where it is told of a test, d0 to d3 the sealed record.
--
-- LAYOUT_VERSION, which stands before every script, is the newest version that this process can read: scripts.py.

-- The key of the record's number, nil without a record. Reads it: a key that cannot be declared is to fail, if it
-- does, before anything is written.
local function number_key(prefix, digest)
  if not digest then return nil end
  redis.call('GET', prefix .. digest)
  return prefix .. digest
end

-- Fields and values for a seal. It is cut because Redis keeps a hash compactly (at half the memory) while no value is
-- longer than 64 bytes; a seal that is too long for four such fields stands whole in the first.
local function cut(seal)
  local length = #seal <= 4 * 64 and 64 or #seal
  local fields = {}
  for index = 0, math.ceil(#seal / length) - 1 do
    fields[#fields + 1] = 'd' .. index
    fields[#fields + 1] = string.sub(seal, index * length + 1, (index + 1) * length)
  end
  return fields
end

-- The seal that d0 to d3 hold together.
local function joined(d0, d1, d2, d3)
  return (d0 or '') .. (d1 or '') .. (d2 or '') .. (d3 or '')
end

-- The ms for which the number is still good, -1 = no end.
local function life_left(expires, now)
  return expires and expires - now or -1
end

