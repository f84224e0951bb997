-- Puts what PostgreSQL says about one customer in place of whatever stands there, unless that is newer.
--
-- KEYS  status, tokens, budget
-- ARGV  version, owner of the slot or '', milliseconds the slot is kept, milliseconds the rest is kept, budget value,
--       then token id and its JSON, again and again
-- Reply {1, names of keys that held something foreign ...}, or {0} if what stands there is newer
--
-- Versions come from a PostgreSQL sequence and are taken before reading, so of two writers the one with the higher
-- version has read the newer facts. The version at which an owner first stands here is its fencing number.

local version = tonumber(ARGV[1])
local types = {'string', 'hash', 'string'}
local reply = {1}
for i = 1, 3 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= types[i] then
    reply[#reply + 1] = KEYS[i]
    redis.call('DEL', KEYS[i])
  end
end

local budget = redis.call('GET', KEYS[3])
if budget then
  if #budget >= 57 and string.sub(budget, 1, 4) == 'RRB2' and struct.unpack('<I4', budget, 5) == #budget then
    local ahead = struct.unpack('<d', budget, 23) - version
    if ahead > 0 and ahead < 1000000000 then return {0} end
    if ahead > 0 then reply[#reply + 1] = KEYS[3] end -- no sequence jumps so far
  else
    reply[#reply + 1] = KEYS[3]
  end
end

local status = redis.call('GET', KEYS[1])
local holder = status and string.match(status, '^([%w_]+):%d+$')
if status and not holder then reply[#reply + 1] = KEYS[1] end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
elseif holder == ARGV[2] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2] .. ':' .. ARGV[1], 'PX', ARGV[3])
end

redis.call('DEL', KEYS[2])
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
return reply
