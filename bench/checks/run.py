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
import argparse, hashlib, hmac, json, pathlib, signal, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "compare"))
from run import ROOT, Bench, answers, children_of, cpu_seconds, free_port, machine, wait_for  # noqa: E402

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
    def start_redis(self):
        self.redis = self.dir / "redis.sock"
        self.start("redis-server", "--port", "0", "--unixsocket", self.redis, "--unixsocketperm", "777", "--save", "", "--dir", self.dir)
        wait_for(self.redis.exists, "redis")
        self.command("SET", f"PHPREDIS_SESSION:{SESSION}", 'user_id|i:7;name|s:5:"Alice";cart|a:2:{i:0;i:4;i:1;i:9;}csrf|s:32:"0123456789abcdef0123456789abcdef";')

    def command(self, *words):
        subprocess.run(["redis-cli", "-s", str(self.redis), *words], check=True, stdout=subprocess.DEVNULL)

    def nginx_conf(self, name, main, http):
        """A file of nginx's with one worker, everything of it in the folder of the run."""
        path = self.dir / f"{name}.conf"
        path.write_text(
            f"{main}\nuser root; worker_processes 1; daemon off; pid {self.dir}/{name}.pid; error_log {self.dir}/{name}.log;\n"
            "events { worker_connections 4096; }\nhttp {\n" + "".join(f"{kind}_temp_path {self.dir}/{name}-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")) +
            f"keepalive_requests 1000000; keepalive_timeout 75s;\n{http}\n}}")
        return path

    def start_nginx(self):
        self.nginx_port, self.service_port = free_port(), free_port()
        (self.dir / "checks.lua").write_text(LUA.replace("SECRET", SECRET).replace("SOCKET", str(self.redis)))
        proxy = 'proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;'
        http = f"""
log_format j escape=json '{{"t":"$time_iso8601","c":"$remote_addr","m":"$request_method","u":"$request_uri","s":$status,"b":$bytes_sent,"rt":$request_time,"ut":"$upstream_response_time"}}';
access_log {self.dir}/nginx.access j buffer=64k flush=1s;
lua_package_path "{self.dir}/?.lua;/usr/share/lua/5.1/?.lua;;";
upstream service {{ server 127.0.0.1:{self.service_port}; keepalive 64; keepalive_requests 1000000; }}
server {{ listen 127.0.0.1:{self.nginx_port};
location = /off {{ {proxy} }}
location = /redis {{ access_by_lua_block {{ require("checks")() }} {proxy} }}
}}"""
        modules = "load_module modules/ndk_http_module.so; load_module modules/ngx_http_lua_module.so;"
        service = f"access_log off; server {{ listen 127.0.0.1:{self.service_port}; location / {{ return 200 hello; }} }}"
        self.start("nginx", "-c", self.nginx_conf("service", "", service), "-p", "/usr/share/nginx")
        self.nginx = self.start("nginx", "-c", self.nginx_conf("proxy", modules, http), "-p", "/usr/share/nginx")
        wait_for(lambda: answers(self.nginx_port) and answers(self.service_port), "nginx")

    def start_gateway(self):
        self.gateway_port = free_port()
        store = f"redis+unix://{self.redis}"
        session = f'kind = "session"\nstore = "{store}"\nprefix = "PHPREDIS_SESSION:"\nformat = "php"\nuser = "user_id"\ntoken = ["cookie:PHPSESSID"]\n'
        signature = 'kind = "signature"\nkeys = { shop-app = { env = "SHOP_APP_SECRET" } }\n'
        (self.dir / "routes.toml").write_text(f"""
[listen]
http = "127.0.0.1:{self.gateway_port}"
[server]
workers = 1
access_log = "{self.dir}/gateway.access"
[server.timeouts]
requests_per_connection = 1000000
[upstream.service]
http = "http://127.0.0.1:{self.service_port}"
[check.session]
{session}cache = "0s"
[check.session-warm]
{session}cache = "10s"
[check.signed]
{signature}nonces = "{store}"
[check.signed-warm]
{signature}nonces = "memory"
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
""")
        self.gateway = self.start("env", f"SHOP_APP_SECRET={SECRET}", ROOT / "target/release/examples/hello", "run", "-c", self.dir / "routes.toml")
        wait_for(lambda: answers(self.gateway_port), "the gateway")

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
        out = subprocess.run(["wrk", "-t1", f"-c{self.o.connections}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{port}{path}"],
                             capture_output=True, text=True, check=True, env={"QUERIES": str(queries), "SESSION": SESSION, "PATH": "/usr/bin:/bin"}).stdout
        if "Non-2xx" in out or "Socket errors" in out or " 0 requests in" in out:
            sys.exit(f"errors under load at {path}:\n{out}")
        word = lambda name: next(line for line in out.splitlines() if name in line).split()
        return {"requests": int(word("requests in")[0]), "rps": float(word("Requests/sec:")[1])}

    def measure(self, who, path):
        port, pids = (self.nginx_port, children_of(self.nginx.pid)) if who == "nginx" else (self.gateway_port, [self.gateway.pid])
        self.load(port, path, 1)
        before = cpu_seconds(pids)
        row = self.load(port, path, self.o.seconds)
        row["cpu_us"] = (cpu_seconds(pids) - before) / row["requests"] * 1e6
        return row

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=pathlib.Path, help="a folder for MACHINE.md, raw.json and summary.md")
    options = parser.parse_args()
    about = machine()
    subprocess.run(["cargo", "build", "--release", "--example", "hello"], cwd=ROOT, check=True)
    bench = Checks(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        bench.start_redis()
        bench.start_nginx()
        bench.start_gateway()
        rows = bench.run()
    finally:
        bench.stop()
    text = summary(rows)
    print("\n" + text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "MACHINE.md").write_text(about + "\n")
        (options.out / "raw.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        (options.out / "summary.md").write_text(
            f"`run.py --rounds {options.rounds} --seconds {options.seconds} --connections {options.connections}`: one worker each, "
            f"CPU time of the proxy's process per request.\n\n{text}\n")


if __name__ == "__main__":
    main()
