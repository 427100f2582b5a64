#!/usr/bin/env python3
"""Measures what the checks cost: a PHP session and a signed request, beside nginx with Lua doing the same.

One HTTP service behind both proxies, one Redis with a session as phpredis writes it, one worker each. Each
request carries the session's cookie, and a signature of its own (HMAC-SHA256 over sorted parameters, with a
nonce that is spent in Redis). nginx does it with lua-resty-redis' pooled connections, both commands in one
pipeline, and OpenSSL's HMAC through FFI: as fast as it is usually written. The proxies take turns
(A B A B ...); what counts is the CPU time of the proxy's process per request.

    off     proxying alone
    redis   both checks, session and nonce each a command to Redis
    warm    both checks, sessions cached and nonces in memory (the gateway alone)
"""
import hashlib, hmac, pathlib, statistics, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from stand import PROXY, Bench, arguments, main, wait_for  # noqa: E402

SECRET = "s3cret"
SESSION = "0123456789abcdef0123456789abcdef"

LUA = r"""
local redis = require "nginx.redis"
local ffi = require "ffi"
ffi.cdef "const void *EVP_sha256(void); unsigned char *HMAC(const void *, const char *, int, const char *, size_t, unsigned char *, unsigned int *);"
local crypto = ffi.load("libcrypto.so.3")
local sha256, digest, length = crypto.EVP_sha256(), ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")
local hex = {} for i = 0, 255 do hex[i] = string.format("%02x", i) end
local secrets = { ["shop-app"] = "SECRET" }

local function signature(secret, text)
  crypto.HMAC(sha256, secret, #secret, text, #text, digest, length)
  local out = {} for i = 0, 31 do out[i + 1] = hex[digest[i]] end
  return table.concat(out)
end

local function same(a, b)
  if #a ~= #b then return false end
  local differ = 0
  for i = 1, #a do differ = bit.bor(differ, bit.bxor(a:byte(i), b:byte(i))) end
  return differ == 0
end

return function()
  local args = ngx.req.get_uri_args()
  local names = {}
  for name in pairs(args) do if name ~= "signature" then names[#names + 1] = name end end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = name .. "=" .. args[name] end
  local secret = secrets[args.app]
  if not secret or math.abs(ngx.time() - tonumber(args.timestamp)) > 300 then return ngx.exit(401) end
  if not same(signature(secret, table.concat(names, "&")), args.signature) then return ngx.exit(401) end
  local store = redis:new()
  store:set_timeout(50)
  if not store:connect("unix:SOCKET") then return ngx.exit(503) end
  store:init_pipeline(2)
  store:get("PHPREDIS_SESSION:" .. ngx.var.cookie_PHPSESSID)
  store:set("lua:" .. args.app .. ":" .. args.nonce, 1, "NX", "PX", 660000)
  local answers = store:commit_pipeline()
  store:set_keepalive(10000, 64)
  if not answers or answers[2] == ngx.null then return ngx.exit(401) end
  local user = type(answers[1]) == "string" and answers[1]:match('user_id|i:(%d+);')
  if not user then return ngx.exit(401) end
  ngx.req.set_header("X-Strangler-User", user)
end
"""

WRK = r"""
local file, lines, at = io.open(os.getenv("QUERIES")), {}, 0
for line in file:lines() do lines[#lines + 1] = line end
file:close()
local headers = { Cookie = "PHPSESSID=" .. os.getenv("SESSION") }
function request()
  at = at + 1
  return wrk.format("GET", wrk.path .. "?" .. lines[at], headers)
end
"""


class Checks(Bench):
    def begin(self):
        self.start_redis()
        self.start_both()

    def start_redis(self):
        self.redis = self.dir / "redis.sock"
        self.start("redis-server", "--port", "0", "--unixsocket", self.redis, "--unixsocketperm", "777", "--save", "", "--dir", self.dir)
        wait_for(self.redis.exists, "redis")
        self.command("SET", f"PHPREDIS_SESSION:{SESSION}", 'user_id|i:7;name|s:5:"Alice";cart|a:2:{i:0;i:4;i:1;i:9;}csrf|s:32:"0123456789abcdef0123456789abcdef";')

    def command(self, *words):
        subprocess.run(["redis-cli", "-s", str(self.redis), *words], check=True, stdout=subprocess.DEVNULL)

    def start_both(self):
        (self.dir / "checks.lua").write_text(LUA.replace("SECRET", SECRET).replace("SOCKET", str(self.redis)))
        self.start_nginx(
            f'location = /off {{ {PROXY} }}\nlocation = /redis {{ access_by_lua_block {{ require("checks")() }} {PROXY} }}',
            f'lua_package_path "{self.dir}/?.lua;/usr/share/lua/5.1/?.lua;;";',
            "load_module modules/ndk_http_module.so; load_module modules/ngx_http_lua_module.so;")
        store = f"redis+unix://{self.redis}"
        session = f'kind = "session"\nstore = "{store}"\nprefix = "PHPREDIS_SESSION:"\nformat = "php"\nuser = "user_id"\ntoken = ["cookie:PHPSESSID"]\n'
        signature = 'kind = "signature"\nkeys = { shop-app = { env = "SHOP_APP_SECRET" } }\n'
        self.start_gateway(f"""
[check.session]
{session}cache = "0s"
[check.session-warm]
{session}cache = "10s"
[check.signed]
{signature}nonces = "{store}"
[check.signed-warm]
{signature}nonces = "memory"
capacity = 9999999
[defaults]
new = "service"
serve = "new"
[[route]]
path = "/off"
[[route]]
path = "/redis"
check = ["session", "signed"]
[[route]]
path = "/warm"
check = ["session-warm", "signed-warm"]
""", SHOP_APP_SECRET=SECRET)

    def signed_queries(self, count, tag):
        """So many requests, each signed, none like another."""
        now, path = int(time.time()), self.dir / "queries"
        key, common = SECRET.encode(), f"app=shop-app&nonce={tag}-"
        with open(path, "w") as out:
            for n in range(count):
                text = f"{common}{n}&sku=A1&timestamp={now}"
                out.write(f"{text}&signature={hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}\n")
        return path

    def load(self, port, path, seconds):
        script = self.dir / "signed.lua"
        script.write_text(WRK)
        queries = self.signed_queries(int(60_000 * seconds), time.monotonic_ns())
        return super().load(port, path, seconds, "-s", script, QUERIES=str(queries), SESSION=SESSION)

    def run(self):
        turns = [("off", "nginx"), ("off", "strangler"), ("redis", "nginx"), ("redis", "strangler"), ("warm", "strangler")]
        rows = []
        for round_ in range(self.o.rounds):
            for case, who in turns:
                row = {"case": case, "round": round_, "who": who, **self.measure(who, f"/{case}")}
                rows.append(row)
                print("{case:6} {who:10} {cpu_us:6.1f} us/request {rps:8.0f} r/s".format(**row), flush=True)
        return rows


def summary(rows):
    cpu = lambda case, who: [r["cpu_us"] for r in rows if (r["case"], r["who"]) == (case, who)]
    ratio = lambda over, under: statistics.median(a / b for a, b in zip(cpu(*over), cpu(*under)))
    lines = ["| case | nginx µs | strangler µs |", "|---|---|---|"]
    for case in ("off", "redis", "warm"):
        both = [f"{statistics.median(cpu(case, who)):.1f}" if cpu(case, who) else "–" for who in ("nginx", "strangler")]
        lines.append(f"| {case} | {both[0]} | {both[1]} |")
    lines += ["", f"- both checks on Redis, strangler / nginx+Lua: **{ratio(('redis', 'strangler'), ('redis', 'nginx')):.2f}**",
              f"- both checks on Redis, on / off in strangler: **{ratio(('redis', 'strangler'), ('off', 'strangler')):.2f}**; in nginx: {ratio(('redis', 'nginx'), ('off', 'nginx')):.2f}",
              f"- sessions cached and nonces in memory, on / off in strangler: **{ratio(('warm', 'strangler'), ('off', 'strangler')):.2f}**"]
    return "\n".join(lines)


if __name__ == "__main__":
    main(arguments(__doc__, seconds=4), Checks, summary)
