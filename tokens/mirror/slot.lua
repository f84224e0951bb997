-- The slot's owner, and nobody else, keeps its slot longer or gives it back.
--
-- KEYS  status
-- ARGV  what must stand there (owner:fence), milliseconds to keep it from now, or 0 to give it back
-- Reply 1, or 0 if somebody else (or nobody) holds it: then nothing is changed

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
