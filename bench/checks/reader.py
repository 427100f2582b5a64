#!/usr/bin/env python3
"""Measures whether PHP notices that its sessions are read at the edge.

A page that opens its session, counts in it and writes it back is asked for by a route without and by one with a session
check that reads the same session for every request (no cache), in turns. What counts is how long PHP took, which the
gateway's access log says without the check's own time and without queueing; sessions are in files, where PHP holds a lock
while a page runs, and in Redis.
"""
import http.client, json, os, pathlib, shutil, statistics, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from stand import Bench, arguments, main, wait_for  # noqa: E402

SESSIONS = 64
STORES = ("files", "redis")
DATA = "user_id|i:7;"

PAGE = """<?php
ini_set('session.save_handler', '%s');
ini_set('session.save_path', '%s');
session_start();
$_SESSION['seen'] = ($_SESSION['seen'] ?? 0) + 1;
echo $_SESSION['user_id'];
"""

RATE = 400  # requests a second: the same by both routes, or PHP would find caches and processors in another state


class Reader(Bench):
    def begin(self):
        self.service_port = 1  # Nobody asks a service.
        self.redis, self.folder = self.dir / "redis.sock", self.dir / "sessions"
        self.start("redis-server", "--port", "0", "--unixsocket", self.redis, "--unixsocketperm", "777", "--save", "", "--dir", self.dir)
        self.write_pages()
        self.start_fpm(self.o.connections + 2)
        wait_for(self.redis.exists, "Redis")
        self.log_in()
        self.start_gateway("".join(map(self.routes, STORES)))

    def write_pages(self):
        (self.dir / "www").mkdir()
        for store, path in zip(STORES, (self.folder, f"unix://{self.redis}")):
            (self.dir / f"www/{store}.php").write_text(PAGE % (store, path))

    def log_in(self):
        """A session for each id, as PHP and phpredis write them."""
        self.folder.mkdir(mode=0o700)
        words = []
        for n in range(SESSIONS):
            id_ = f"{n:026}"
            (self.folder / f"sess_{id_}").write_text(DATA)
            words += [f"PHPREDIS_SESSION:{id_}", DATA]
        subprocess.run(["redis-cli", "-s", str(self.redis), "MSET", *words], check=True, stdout=subprocess.DEVNULL)
        if os.getuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, "www-data", "www-data")

    def routes(self, store):
        where = f"php-files:{self.folder}" if store == "files" else f"redis+unix://{self.redis}"
        prefix = 'prefix = "PHPREDIS_SESSION:"\n' if store == "redis" else ""
        return f"""
[check.{store}]
kind = "session"
store = "{where}"
{prefix}format = "php"
user = "user_id"
token = ["cookie:PHPSESSID"]
cache = "0s"
[upstream.{store}]
fastcgi = "unix:{self.fpm}"
root = "{self.dir}/www"
index = "{store}.php"
try_files = false
connections = {self.o.connections}
keepalive = {self.o.connections // 2}
[[route]]
path = "/{store}"
legacy = "{store}"
[[route]]
path = "/{store}-read"
legacy = "{store}"
check = ["{store}"]
"""

    def run(self):
        rows = []
        for store in STORES:
            for round_ in range(self.o.rounds):
                for route in (f"/{store}", f"/{store}-read"):
                    self.ask(route)
                    rows.append({"store": store, "route": route, "round": round_, **self.took(route)})
                    print("{route:12} {requests:6} requests  PHP took p50 {p50:.3f} ms  p99 {p99:.3f} ms".format(**rows[-1]), flush=True)
        return rows

    def ask(self, route):
        """Asks at a fixed rate, for the sessions in turn."""
        gateway = http.client.HTTPConnection("127.0.0.1", self.gateway_port, timeout=5)
        began = time.monotonic()
        for n in range(RATE * self.o.seconds):
            time.sleep(max(0, began + n / RATE - time.monotonic()))
            gateway.request("GET", route, headers={"Cookie": f"PHPSESSID={n % SESSIONS:026}"})
            answer = gateway.getresponse()
            if (answer.status, answer.read()) != (200, b"7"):
                sys.exit(f"{route} answered {answer.status}")
        gateway.close()

    def took(self, route):
        """How long PHP took for the requests since the last look."""
        time.sleep(0.5)  # Lines are handed over every tenth of a second.
        with open(self.dir / "gateway.access") as log:
            lines = [json.loads(line) for line in log]
        (self.dir / "gateway.access").write_text("")
        took = sorted(line["upstream_ms"] for line in lines if line["path"] == route and line["status"] == 200)
        return {"requests": len(took), "p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}


def summary(rows):
    lines = ["| sessions in | PHP took, not read: p50 / p99 ms | read at the edge: p50 / p99 ms | ratio of p50 (median of rounds) | of p99 |", "|---|---|---|---|---|"]
    for store in STORES:
        of = lambda route, key: [row[key] for row in rows if row["route"] == route and row["store"] == store]
        both = [f"{statistics.median(of(route, 'p50')):.3f} / {statistics.median(of(route, 'p99')):.3f}" for route in (f"/{store}", f"/{store}-read")]
        ratios = [statistics.median(b / a for a, b in zip(of(f"/{store}", key), of(f"/{store}-read", key))) for key in ("p50", "p99")]
        lines.append(f"| {store} | {both[0]} | {both[1]} | **{ratios[0]:.2f}** | {ratios[1]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(arguments(__doc__, seconds=4), Reader, summary)
