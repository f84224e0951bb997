-- Which of a customer's tokens may be charged, and from when: one call, nothing written.
--
-- KEYS  status, budget
-- ARGV  the request; its layout and that of the budget are documented in packing.py
-- Reply a string: R, number of tokens, 1 if their instants follow, places in rank order, instants, token keys
--       D dead | L and the owner: locked | C nothing stored | X unreadable | S history does not reach back far enough
--
-- Marks that have left a window are pruned by position: of sorted times only the limit-th newest can hold anything
-- back. Round trips cost most, then every unpack and every table, so the usual case (rules without dates, one amount)
-- is written out flat and the rest stands in functions that are not even created unless needed.

local stored = redis.call('MGET', KEYS[1], KEYS[2])
local status, data, request = stored[1], stored[2], ARGV[1]
local read = struct.unpack
local from, needed, amount, currency, invoice, owner_size, rules_at = read('<dddc3dB', request)
if status then
  local owner = string.match(status, '^([%w_]+):%d+$')
  if not owner then return 'X' end
  if owner ~= string.sub(request, rules_at, rules_at + owner_size - 1) then return 'L' .. owner end
end
if not data then
  return redis.call('EXISTS', KEYS[2]) == 1 and 'X' or 'C'
end
if #data < 30 then return 'X' end
local magic, size, version, since, live, dead, invoices, more_invoices, keys_at = read('<c4I4ddHHBB', data)
if magic ~= 'RRB1' or size ~= #data then return 'X' end
if since > needed then return 'S' end
rules_at = rules_at + owner_size

local short = false -- the answer needs more history than is stored
local exact -- the general calculation, created when first needed
local networks = {}
local order, instants = {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}
local count, waits, record = 0, 0, keys_at + 8 * live

for place = 1, live do
  local network, wait, expires, group, classes, value, code, flags, marks, first
  network, wait, expires, group, classes, value, code, flags, marks, first, record =
    read('<BddI4Bdc3BHI4', data, record)

  local rules = networks[network]
  if not rules then
    local number, plain, at = read('<BB', request, rules_at + read('<H', request, rules_at + 2 * network))
    rules = {plain = plain == 1, network = network}
    for i = 1, number do
      local key, all, limit, window, starts, ends
      key, all, limit, window, starts, ends, at = read('<BBHddd', request, at)
      rules[i] = {key, all, limit, window, starts, ends}
    end
    networks[network] = rules
  end

  local instant = from
  if wait > instant then instant = wait end
  if rules.plain and classes <= 1 and flags <= 1 then
    if flags == 1 then
      for i = 1, #rules do
        local rule = rules[i]
        local limit = rule[3]
        if marks >= limit and (rule[1] == 0 or value == amount and code == currency or value == -1) then
          local release = read('<d', data, first + 8 * (marks - limit)) + rule[4]
          if release > instant then instant = release end
        end
      end
    end
  else
    if not exact then
      local DAY, INVOICE = 86400000000, 2
      local floor, byte = math.floor, string.byte
      local known, invoice_group = {}, nil
      local at = record + 39 * (live - place)
      for _ = 1, invoices do
        local number, position
        number, position, at = read('<dI4', data, at)
        if number == invoice then invoice_group = position end
      end

      -- The first instant of the month after t, UTC, by counting days in 400-year eras that begin on 1 March.
      local function month_end(t)
        local days = floor(t / DAY) + 719468
        local era = floor(days / 146097)
        local day = days - era * 146097
        local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
        local month = floor((5 * (day - 365 * year - floor(year / 4) + floor(year / 100)) + 2) / 153) + 1
        year = year + 400 * era
        if month == 12 then month, year = 0, year + 1 end
        era = floor(year / 400)
        year = year - 400 * era
        day = 365 * year + floor(year / 4) - floor(year / 100) + floor((153 * month + 2) / 5)
        return (era * 146097 + day - 719468) * DAY
      end

      -- From when fewer marks than the limit are inside the rule's window, or nil.
      local function release(rule, group)
        local key, all, limit, window = rule[1], rule[2], rule[3], rule[4]
        local times, total, at = {}, 0, group + 1
        for _ = 1, byte(data, group) do
          local value, code, flags, marks
          value, code, flags, marks, at = read('<dc3BH', data, at)
          local counts = (flags % 2 == 1 or all == 1) and (
            key == 0 or value == -1
            or key == 1 and value == amount and code == currency
            or key == INVOICE and (value == rule.network or value == 0))
          if counts then
            if flags >= 2 and marks < limit then short = true end
            for i = marks > limit and marks - limit or 0, marks - 1 do
              total = total + 1
              times[total] = read('<d', data, at + 8 * i)
            end
          end
          at = at + 8 * marks
        end
        if total < limit then return nil end
        table.sort(times)
        local oldest = times[total - limit + 1]
        return window == 0 and month_end(oldest) or oldest + window
      end

      -- A rule blocks from its start until its release or its end, and never again, so the loop ends.
      exact = function(rules, group, instant)
        local name = rules.network + 256 * group
        local releases = known[name]
        if not releases then
          releases = {}
          for i = 1, #rules do
            local rule = rules[i]
            rule.network = rules.network
            if rule[1] ~= INVOICE then
              releases[i] = release(rule, group) or 0
            elseif invoice_group then
              releases[i] = release(rule, invoice_group) or 0
            else
              releases[i] = 0
              if more_invoices == 1 then short = true end
            end
          end
          known[name] = releases
        end
        local moved = true
        while moved do
          moved = false
          for i = 1, #rules do
            local rule, stop = rules[i], releases[i]
            local starts, ends = rule[5], rule[6]
            if ends > 0 and ends < stop then stop = ends end
            if starts <= instant and instant < stop then instant, moved = stop, true end
          end
        end
        return instant
      end
    end
    instant = exact(rules, group, instant)
  end

  if instant < expires then
    if instant > from then waits = 1 end
    -- Records come in the order that breaks ties, so a stable insertion ranks them.
    local at = count
    while at > 0 and instants[at] > instant do
      instants[at + 1], order[at + 1] = instants[at], order[at]
      at = at - 1
    end
    instants[at + 1], order[at + 1] = instant, place
    count = count + 1
  end
end

if short then return 'S' end
if count == 0 and live + dead > 0 then return 'D' end
local packed = ''
if waits == 1 then packed = struct.pack('<' .. string.rep('d', count), unpack(instants, 1, count)) end
return string.char(82, count, waits, unpack(order, 1, count)) .. packed
  .. string.sub(data, keys_at, keys_at + 8 * live - 1)
