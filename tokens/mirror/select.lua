-- Which of a customer's tokens may be charged, and from when: one call, nothing written.
--
-- KEYS  status, budget
-- ARGV  the request; its layout and that of the budget are documented in packing.py
-- Reply a string: A and the keys of all tokens: each may be charged at once, in this order
--       R, how many may go at once, how many later, their places in rank order, the instants of the later ones, the
--         keys of all tokens by place
--       D dead | L and the owner: locked | C nothing stored | X unreadable | S history does not reach back far enough
--
-- Marks that have left a window are pruned by position: of sorted times only the limit-th newest can hold anything
-- back. Round trips cost most, then every unpack and every table, so the usual case (rules without dates, one amount)
-- is written out flat and the rest stands in functions that are not even created unless needed.

local stored = redis.call('MGET', KEYS[1], KEYS[2])
local status, data, request = stored[1], stored[2], ARGV[1]
local read = struct.unpack
local from, needed, amount, currency, invoice, owner_size, rules_at = read('<dddI3dB', request)
if status then
  local owner = string.match(status, '^([%w_]+):%d+$')
  if not owner then return 'X' end
  if owner ~= string.sub(request, rules_at, rules_at + owner_size - 1) then return 'L' .. owner end
end
if not data then
  return redis.call('EXISTS', KEYS[2]) == 1 and 'X' or 'C'
end
local length = #data
if length < 57 then return 'X' end
local magic, size, since, live, dead, invoices, more_invoices, version, soonest_expiry, latest_wait, value, code, keys_at =
  read('<I4I4dHHBBddddI3', data)
if magic ~= 843207250 or size ~= length then return 'X' end -- RRB2
if since > needed then return 'S' end
rules_at = rules_at + owner_size

local short = false -- the answer needs more history than is stored
local exact -- the general calculation, created when first needed
local same, mixed = value == amount and code == currency or value == -1, value == -2
local known, plain, by_amount, limit, window, by_amount_2, limit_2, window_2 = -1
local order, ready, later, later_at, waiting = nil, 0, nil, nil, 0
local record = keys_at + 8 * live
local details = record + 5 * live

for place = 1, live do
  local network, kind, marks, first
  network, kind, marks, first, record = read('<BBBH', data, record)
  if network ~= known then
    known = network
    plain, by_amount, limit, window, by_amount_2, limit_2, window_2 =
      read('<BBHHBHH', request, rules_at + 13 * network)
    window, window_2 = 3600000000 * window, 3600000000 * window_2
  end

  local instant = from
  if latest_wait > from then
    local wait = read('<d', data, details + 18 * place - 18)
    if wait > from then instant = wait end
  end
  if plain == 1 and kind < 2 then
    if marks >= limit or marks >= limit_2 then
      local fits = same
      if mixed and (by_amount == 1 or by_amount_2 == 1) then
        local amount_here, code_here = read('<dI3', data, first - 14)
        fits = amount_here == amount and code_here == currency or amount_here == -1
      end
      if marks >= limit and (by_amount == 0 or fits) then
        local release = read('<d', data, first + 8 * (marks - limit)) + window
        if release > instant then instant = release end
      end
      if marks >= limit_2 and (by_amount_2 == 0 or fits) then
        local release = read('<d', data, first + 8 * (marks - limit_2)) + window_2
        if release > instant then instant = release end
      end
    end
  else
    if not exact then
      local DAY, INVOICE = 86400000000, 2
      local floor, byte = math.floor, string.byte
      local releases_of, parsed, invoice_group = {}, {}, nil
      local at = details + 18 * live
      for _ = 1, invoices do
        local number, position
        number, position, at = read('<dH', data, at)
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
          value, code, flags, marks, at = read('<dI3BH', data, at)
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

      -- Each {key, counts all, limit, window, starts, ends}, of every date still to come.
      local function rules_of(network)
        local rules = parsed[network]
        if not rules then
          local plain, key_1, limit_1, hours_1, key_2, limit_2, hours_2, at =
            read('<BBHHBHHH', request, rules_at + 13 * network)
          if plain == 1 then
            rules = {{key_1, 0, limit_1, 3600000000 * hours_1, 0, 0}}
            if limit_2 < 65535 then rules[2] = {key_2, 0, limit_2, 3600000000 * hours_2, 0, 0} end
          else
            local number
            number, at = read('<B', request, rules_at + at)
            rules = {}
            for i = 1, number do
              local key, all, limit, hours, starts, ends
              key, all, limit, hours, starts, ends, at = read('<BBHHdd', request, at)
              rules[i] = {key, all, limit, 3600000000 * hours, starts, ends, network = network}
            end
          end
          parsed[network] = rules
        end
        return rules
      end

      -- A rule blocks from its start until its release or its end, and never again, so the loop ends.
      exact = function(network, group, instant)
        local name = network + 256 * group
        local rules, releases = rules_of(network), releases_of[name]
        if not releases then
          releases = {}
          for i = 1, #rules do
            local rule = rules[i]
            if rule[1] ~= INVOICE then
              releases[i] = release(rule, group) or 0
            elseif invoice_group then
              releases[i] = release(rule, invoice_group) or 0
            else
              releases[i] = 0
              if more_invoices == 1 then short = true end
            end
          end
          releases_of[name] = releases
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
    instant = exact(network, read('<H', data, details + 18 * place - 2), instant)
  end

  if instant >= soonest_expiry and instant >= read('<d', data, details + 18 * place - 10) then
    instant = nil -- the card's last month is over by then
  end
  if instant == from and not order then
    ready = ready + 1
  else
    -- Records come in the order that breaks ties, so order of arrival and a stable insertion rank them.
    if not order then
      order, later, later_at = {}, {}, {}
      for at = 1, ready do order[at] = at end
    end
    if instant == from then
      ready = ready + 1
      order[ready] = place
    elseif instant then
      local at = waiting
      while at > 0 and later_at[at] > instant do
        later_at[at + 1], later[at + 1] = later_at[at], later[at]
        at = at - 1
      end
      later_at[at + 1], later[at + 1] = instant, place
      waiting = waiting + 1
    end
  end
end

if short then return 'S' end
local tokens = string.sub(data, keys_at, keys_at + 8 * live - 1)
if not order then
  return (live > 0 or dead == 0) and 'A' .. tokens or 'D'
end
if ready + waiting == 0 then return 'D' end
for i = 1, waiting do order[ready + i] = later[i] end
return string.char(82, ready, waiting, unpack(order)) .. struct.pack('<' .. string.rep('d', waiting), unpack(later_at))
  .. tokens
