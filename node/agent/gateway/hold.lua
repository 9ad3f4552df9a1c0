-- Requests of a tenant under a planned restart wait here for its next route. Entered for held tenants only, so that
-- the others never take the lock around Lua. The wait grows with the time spent: a thousand waiting cost little.
local routes = Map.new(os.getenv("GATEWAY_ROUTES"), Map._str)
local limit_s = tonumber(os.getenv("GATEWAY_HOLD_S"))

core.register_action("hold", { "http-req" }, function(txn)
  local tenant = txn:get_var("txn.tenant")
  local slept_ms, step_ms = 0, 5
  while slept_ms < limit_s * 1000 do
    local value = routes:lookup(tenant)
    if value == nil or string.sub(value, 1, 5) ~= "hold|" then
      return
    end
    core.msleep(step_ms)
    slept_ms = slept_ms + step_ms
    step_ms = math.min(50, step_ms + 1)
  end
end, 0)
