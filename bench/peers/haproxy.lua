-- Judge a request by its task token and path, and give it the service's credential.

local credential = "Bearer " .. os.getenv("BENCH_KEY")
local presented = { ["Bearer " .. os.getenv("BENCH_TOKEN")] = true }

-- Rules such as `GET /v1/charges/*`, by method and by what comes before the last segment.
local allowed = {}
for line in io.lines(os.getenv("BENCH_RULES")) do
  local method, folder = line:match("^(%u+) (/.*/)%*$")
  if not method then error("a rule that this script cannot read: " .. line) end
  allowed[method .. " /api" .. folder] = true
end

core.register_action("decide", { "http-req" }, function(txn)
  local token = txn.sf:req_fhdr("authorization")
  local folder = txn.sf:path():match("^(/.*/)[^/]+$")
  if presented[token] and folder and allowed[txn.sf:method() .. " " .. folder] then
    txn.http:req_set_header("authorization", credential)
  else
    txn:set_var("txn.denied", true)
  end
end)
