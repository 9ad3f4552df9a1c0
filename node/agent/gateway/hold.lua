-- Where requests wait: for a held tenant's next route, and for the agent to say where an unknown tenant is. Entered for
-- those alone, so that the others never take the lock around Lua. The wait grows with the time spent: a thousand waiting
-- cost little.
local routes = Map.new(os.getenv("GATEWAY_ROUTES"), Map._str)
local limit_s = tonumber(os.getenv("GATEWAY_HOLD_S"))
local door = os.getenv("GATEWAY_DOOR")
local answer_s = 5
local per_second = 200

local function wait(seconds, over)
  local slept_ms, step_ms = 0, 5
  while slept_ms < seconds * 1000 and not over() do
    core.msleep(step_ms)
    slept_ms = slept_ms + step_ms
    step_ms = math.min(50, step_ms + 1)
  end
end

core.register_action("hold", { "http-req" }, function(txn)
  local tenant = txn:get_var("txn.tenant")
  wait(limit_s, function()
    local value = routes:lookup(tenant)
    return value == nil or string.sub(value, 1, 5) ~= "hold|"
  end)
end, 0)

if door then
  local function call(line)
    local socket = core.tcp()
    socket:settimeout(answer_s)
    if not socket:connect("unix@" .. door) then
      return nil
    end
    socket:send(line .. "\n")
    local answer = socket:receive("*l")
    socket:close()
    return answer
  end

  -- One second's questions. A tenant is asked for once in it, whoever wants to know: the others wait for that answer. An
  -- asker whose client went away leaves a question open; it is asked again in the next second.
  local second, asked, answers = 0, 0, {}

  local function ask(tenant)
    local now = core.now().sec
    if now ~= second then
      second, asked, answers = now, 0, {}
    end
    local mine = answers
    if mine[tenant] == nil then
      if asked >= per_second then
        return "absent too_busy"
      end
      asked = asked + 1
      mine[tenant] = ""
      mine[tenant] = call("where " .. tenant) or "absent agent_away"
    else
      wait(answer_s, function() return mine[tenant] ~= "" end)
    end
    return mine[tenant] ~= "" and mine[tenant] or "absent agent_away"
  end

  -- Sets txn.absent to the reason of a 503, unless the tenant is in the map now or is known to nobody.
  core.register_action("ask", { "http-req" }, function(txn)
    local tenant = txn:get_var("txn.tenant")
    local answer = ask(tenant)
    if answer ~= "nobody" and routes:lookup(tenant) == nil then
      txn:set_var("txn.absent", string.match(answer, "^absent ([a-z0-9_]+)$") or "moved")
    end
  end, 0)

  -- Tenants whose node's gateway does not have them, or does not answer: the agent looks again where they are.
  local doubted = {}

  core.register_converters("doubt", function(tenant)
    doubted[tenant] = true
    return ""
  end)

  core.register_task(function()
    while true do
      core.msleep(100)
      local now = doubted
      doubted = {}
      for tenant in pairs(now) do
        call("doubt " .. tenant)
      end
    end
  end)
end
