-- The one place where a run changes. KEYS[1] is the run's hash; ARGV is the verb, then
-- names and values. The answer is {code, now, state before, told, head, extra...};
-- the head's values are one, with NUL between them: a client reads many slowly.
--
-- Fields by who writes them: doc (lease holder), asked (web), seen (every beat),
-- lease, hop, worker, begun, stuck, mark (begin), cursor, and what every verb moves.
-- All times are this server's, in milliseconds. run.py's TRANSITIONS says what may
-- lead where; every verb may arrive twice.

local KEEP_UNFINISHED = 7 * 86400000
local KEEP_FINISHED = 2 * 86400000 -- progress_prune, once a day, finds what is not in the history
local MARK_GRACE = 60000 -- a copy may wait for a slot before its mark is forgotten
local HEAD = {'epoch', 'rev', 'state', 'asked', 'attempt', 'reason', 'due', 'queued',
              'started', 'ended', 'seen', 'changed', 'error'}
local COUNTED = {rev = true, attempt = true, due = true, queued = true, started = true,
                 ended = true, seen = true, changed = true}
local FINISHED = {succeeded = true, failed = true, cancelled = true}

local key, verb, a = KEYS[1], ARGV[1], {}
for i = 2, #ARGV, 2 do a[ARGV[i]] = ARGV[i + 1] end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A lease is a number that grows with every begin, even where the hash was lost.
local micros = time[1] * 1000000 + time[2]
local function int(value) return string.format('%.0f', value) end

local names = {'epoch', 'rev', 'state', 'asked', 'reason', 'attempt', 'seen', 'started',
               'lease', 'seq', 'hop', 'begun', 'stuck', 'worker', 'mark', 'mark_due',
               'nonce', 'silence', 'cursor'}
local h = {}
for i, value in ipairs(redis.call('HMGET', key, unpack(names))) do h[names[i]] = value end
local exists, was = h.state and true, h.state or ''
for _, name in ipairs({'rev', 'attempt', 'seen', 'lease', 'seq', 'hop', 'begun', 'stuck',
                       'mark_due', 'silence'}) do
  h[name] = tonumber(h[name] or 0)
end
for _, name in ipairs({'hop', 'lease', 'seq', 'lost', 'max', 'delay'}) do
  if a[name] then a[name] = tonumber(a[name]) end
end
local running = h.state == 'running'
local silent = running and now - h.seen > (a.lost or 0)

local moved = false

-- The group message of a change, where the channel layer is this very server and `channel`
-- its group's; layer.py's `message`. What the server forbids, the caller sends.
local function tell(values)
  if not moved or not a.channel or not cmsgpack then return 0 end
  local head = {now = now}
  for i, name in ipairs(HEAD) do
    local value = values[i]
    head[name] = COUNTED[name] and tonumber(value) or value ~= '' and value
  end
  head.error = head.error or 'null'
  local message = {type = 'progress.run', run = a.run, head = head,
                   text = redis.call('HGET', key, 'doc')}
  return type(redis.pcall('PUBLISH', a.channel, cmsgpack.pack(message))) == 'number' and 1 or 0
end

local function answer(code, ...)
  local values = redis.call('HMGET', key, unpack(HEAD))
  for i, value in ipairs(values) do values[i] = value or '' end
  return {code, int(now), was, tell(values), table.concat(values, '\0'), ...}
end

local function put(fields)
  local list = {}
  for name, value in pairs(fields) do
    list[#list + 1] = name
    list[#list + 1] = value
  end
  redis.call('HSET', key, unpack(list))
end

-- A visible change: the state and what else is given, the next rev, a longer life.
local function move(state, fields)
  fields.state = state
  fields.rev = h.rev + 1
  fields.changed = int(now)
  if FINISHED[state] then
    fields.ended = int(now)
    fields.due = ''
  end
  put(fields)
  moved = true
  redis.call('PEXPIRE', key, FINISHED[state] and KEEP_FINISHED or KEEP_UNFINISHED)
end

-- The fields of a new hash, with what its writer knows.
local function seed()
  return {epoch = a.epoch, owner = a.owner or '', doc = a.doc or '', hop = a.hop or 1,
          attempt = a.attempt or 1, queued = a.queued or int(now), seen = int(now),
          started = a.started or '', lease = 0, seq = 0, begun = 0, stuck = 0,
          asked = a.asked or '', cursor = a.cursor or '', worker = a.worker or ''}
end

local function begin()
  if not exists then
    if not a.make then return answer('missing') end
    local fields = seed()
    move('queued', fields)
    for name in pairs(h) do h[name] = nil end
    h = {rev = 1, state = 'queued', attempt = tonumber(fields.attempt), lease = 0,
         hop = a.hop, begun = 0, stuck = 0, mark_due = 0, silence = 0, cursor = fields.cursor,
         asked = fields.asked, seen = now}
    running, silent = false, false
  end
  if a.nonce == h.nonce and running then
    return answer('begun', int(h.lease), h.cursor or '', redis.call('HGET', key, 'doc'),
                  int(h.silence))
  elseif a.nonce == h.nonce and (FINISHED[h.state] or h.state == 'paused') then
    return answer('ended')
  end
  if FINISHED[h.state] or h.state == 'paused' then return answer(h.state) end
  if a.hop < h.hop then return answer('old') end

  local same = a.hop == h.hop
  local known = a.mark == h.mark or a.fresh == h.mark -- its copy, or itself sent twice
  -- A redelivery is never dropped: whoever was to publish the copy may have died first.
  if same and now < h.mark_due and not known and a.redelivered ~= '1' then
    return answer('dropped')
  end
  if same and running then
    if not silent and a.dead ~= int(h.lease) then
      local due = h.seen + a.lost
      redis.call('HSET', key, 'mark', a.fresh, 'mark_due', int(due + MARK_GRACE))
      return answer('duplicate', int(due - now), int(h.lease), h.worker or '')
    end
    if a.redelivered == '1' then
      redis.call('HSET', key, 'mark', a.fresh, 'mark_due', int(now + MARK_GRACE))
      return answer('afresh')
    end
  end

  if not same then h.begun, h.stuck = 0, 0 end
  if h.asked == 'cancel' then
    move('cancelled', {reason = 'asked', hop = a.hop, nonce = a.nonce})
    return answer('ended')
  elseif h.asked == 'pause' then
    move('paused', {asked = '', reason = '', due = '', hop = a.hop, nonce = a.nonce})
    return answer('ended')
  elseif h.stuck >= a.max then
    move('failed', {reason = 'restarts', error = a.error, hop = a.hop, nonce = a.nonce})
    return answer('ended')
  end
  local again = h.begun > 0 or a.kind == 'retry'
  local lease = math.max(micros, h.lease + 1)
  local fields = {lease = int(lease), seq = 0, hop = a.hop, nonce = a.nonce,
                  begun = h.begun + 1, stuck = h.stuck + 1, worker = a.worker,
                  attempt = h.attempt + (again and 1 or 0), mark = '', mark_due = 0,
                  seen = int(now), reason = '', due = '', error = ''}
  if not h.started or h.started == '' then fields.started = int(now) end
  if running and now - h.seen > h.silence then fields.silence = int(now - h.seen) end
  if again then fields.doc = a.doc end
  -- Another task goes on: the cursor was the replaced one's.
  if a.kind == 'replace' and h.begun == 0 then h.cursor, fields.cursor = '', '' end
  move('running', fields)
  local silence = fields.silence or int(h.silence)
  return answer('begun', int(lease), h.cursor or '', redis.call('HGET', key, 'doc'), silence)
end

-- Whether the writer holds the lease; else the code that tells it what to do.
local function fence()
  if exists and a.lease < h.lease then return 'superseded' end
  local over = FINISHED[h.state] or h.state == 'paused'
  if not exists or (a.lease > h.lease and not over) then
    if not a.restore then return 'vanished' end
    local fields = seed()
    fields.lease, fields.begun, fields.stuck = int(a.lease), 1, 1
    if h.asked and h.asked ~= '' then fields.asked = h.asked end
    h = {rev = 0, asked = fields.asked, seq = -1, lease = a.lease, seen = now,
         silence = 0, cursor = fields.cursor}
    redis.call('DEL', key)
    move('running', fields)
    h.rev, running = 1, true
    return nil
  end
  if not running then
    -- Its own end, sent twice, gets its first answer again.
    if a.seq == h.seq and a.lease == h.lease and verb == 'end' then return 'ok' end
    return 'superseded'
  end
  -- An end is the last word of its lease, even where a late beat overtook it.
  if verb == 'report' and a.seq <= h.seq then return 'ok' end
  return nil
end

local function heard(fields)
  fields.seq = a.seq
  fields.seen = int(now)
  if now - h.seen > h.silence then fields.silence = int(now - h.seen) end
  if a.cursor and a.cursor ~= h.cursor then fields.cursor, fields.stuck = a.cursor, 0 end
  if a.doc then fields.doc = a.doc end
  return fields
end

local function report()
  local code = fence()
  if code then return answer(code) end
  local fields = heard({})
  if a.doc then
    move('running', fields)
  else
    put(fields)
  end
  return answer('ok')
end

local function finish()
  local code = fence()
  if code then return answer(code) end
  local state = a.state
  local fields = heard({reason = a.reason or '', error = a.error or '', due = ''})
  if h.asked == 'cancel' and state ~= 'succeeded' then
    state, fields.reason, fields.error = 'cancelled', 'asked', ''
  elseif h.asked == 'pause' and state == 'waiting' then
    state = 'paused'
  end
  if state == 'paused' then fields.asked, fields.reason = '', '' end
  -- A successor was published: whatever still carries this hop is done with.
  if a.next then
    fields.hop, fields.begun, fields.stuck = a.next, 0, 0
    fields.mark, fields.mark_due = '', 0
  end
  if state == 'waiting' then
    if a.delay then fields.due = int(now + a.delay) end
    if a.tame then fields.stuck = 0 end
  end
  move(state, fields)
  return answer('ok')
end

-- By a worker's main process, of a hop whose child died or whose message it dropped.
local function bury()
  if not exists then return answer('missing') end
  local state, reason, error = a.state, a.reason or '', a.error or ''
  if h.asked == 'cancel' and state ~= 'succeeded' then
    state, reason, error = 'cancelled', 'asked', ''
  end
  if h.state == state and h.reason == reason and h.hop == a.hop then return answer('ok') end
  if FINISHED[h.state] or h.state == 'paused' then return answer(h.state) end
  if a.hop ~= h.hop then return answer('old') end
  if running and (a.lease or 0) ~= h.lease then return answer('other', int(h.lease), h.worker or '') end
  move(state, {reason = reason, error = error})
  return answer('ok')
end

local function create()
  if exists and h.reason == 'withdrawn' and h.state == 'cancelled' then
    move('queued', {hop = h.hop + 1, nonce = a.nonce, reason = '', ended = '',
                    asked = '', queued = int(now), seen = int(now), doc = a.doc})
    return answer('created', h.hop + 1)
  elseif exists then
    local code = a.nonce == h.nonce and h.state == 'queued' and 'created' or 'exists'
    return answer(code, h.hop)
  end
  local fields = seed()
  fields.nonce = a.nonce
  move('queued', fields)
  return answer('created', fields.hop)
end

local function ask_cancel()
  if not exists then
    if not a.make then return answer('missing') end
    put(seed()) -- whatever still comes of it finds that it is over
  end
  if h.state == 'cancelled' and h.reason == 'asked' then return answer('done') end
  if FINISHED[h.state] then return answer(h.state) end
  if running and not silent then
    if h.asked ~= 'cancel' then move('running', {asked = 'cancel'}) end
    return answer('asked', int(h.lease), h.worker or '')
  end
  move('cancelled', {asked = 'cancel', reason = 'asked', error = ''})
  return answer('done')
end

local function ask_pause()
  if not exists then return answer('missing') end
  if h.state == 'paused' then return answer('done') end
  if FINISHED[h.state] then return answer(h.state) end
  if running then
    if h.asked == '' or not h.asked then move('running', {asked = 'pause'}) end
    return answer('asked')
  end
  move('paused', {asked = '', reason = '', due = ''})
  return answer('done')
end

local function resume()
  if not exists then
    if not a.make then return answer('missing') end
    move('paused', seed())
    h.rev, h.state, h.hop = 1, 'paused', a.hop
  end
  if a.nonce == h.nonce and h.state == 'queued' then return answer('resumed', h.hop) end
  if h.state ~= 'paused' then return answer(h.state) end
  move('queued', {hop = h.hop + 1, begun = 0, stuck = 0, nonce = a.nonce,
                  reason = 'resume', mark = '', mark_due = 0})
  return answer('resumed', h.hop + 1)
end

-- Take a publication back, unless somebody has begun on it.
local function unpublish(state, reason)
  if not exists then return answer('missing') end
  if h.state == state and h.reason == reason and h.hop == a.hop then return answer('done') end
  if h.state ~= 'queued' or h.hop ~= a.hop then return answer(h.state) end
  move(state, {reason = reason})
  return answer('done')
end

-- An anonymous owner has signed in: what was theirs is the user's.
local function claim()
  if not exists then return answer('missing') end
  local owner = redis.call('HGET', key, 'owner')
  if owner ~= a.from and owner ~= a.owner then return answer('other') end
  redis.call('HSET', key, 'owner', a.owner)
  return answer('done')
end

-- The copy that a mark was kept for could not be published.
local function unmark()
  if h.mark == a.mark then redis.call('HSET', key, 'mark', '', 'mark_due', 0) end
  return answer('done')
end

if verb == 'create' then return create()
elseif verb == 'begin' then return begin()
elseif verb == 'report' then return report()
elseif verb == 'end' then return finish()
elseif verb == 'bury' then return bury()
elseif verb == 'cancel' then return ask_cancel()
elseif verb == 'pause' then return ask_pause()
elseif verb == 'resume' then return resume()
elseif verb == 'repause' then return unpublish('paused', '')
elseif verb == 'withdraw' then return unpublish('cancelled', 'withdrawn')
elseif verb == 'claim' then return claim()
elseif verb == 'unmark' then return unmark()
end
return redis.error_reply('ERR unknown verb ' .. verb)
