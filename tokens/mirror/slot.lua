-- The slot's owner, and nobody else, keeps its entry longer or takes it away.
--
-- KEYS  status
-- ARGV  owner, fencing number or '' (whichever it has), milliseconds to keep it from now or 0 to take it away
-- Reply 1, or 0 if somebody else (or nobody) stands there: then nothing is changed

local status = redis.call('GET', KEYS[1])
local owner, fence = string.match(status or '', '^([%w_]+):(%d+)$')
if owner ~= ARGV[1] or (ARGV[2] ~= '' and ARGV[2] ~= fence) then return 0 end
if ARGV[3] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
