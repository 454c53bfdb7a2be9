-- The lease of one address: who is mailing it. Scripts that make a mail due begin with this file.

-- The ms until the lease ends, 0 where no sender has it.
local function lease_left(sender)
  return redis.call('GET', sender) and redis.call('PTTL', sender) or 0
end

-- Takes the lease where no sender has it and one is wanted (`lease_ms` above 0). Returns 1 if it was taken else 0, and
-- when the mail is due for every sender: at the end of the lease, where there is one, or now.
local function take_lease(sender, owner, lease_ms, left_ms, now)
  if left_ms > 0 then return 0, now + left_ms end
  if lease_ms <= 0 then return 0, now end
  redis.call('SET', sender, owner, 'PX', lease_ms)
  return 1, now + lease_ms
end

