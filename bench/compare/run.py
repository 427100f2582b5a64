#!/usr/bin/env python3
"""Measures this gateway beside nginx on the same PHP-FPM, the same HTTP service, in one go.

For each case the proxies take turns (A B C D A B C D ...), each with one worker. What counts first is
the CPU time that the proxy's process used per request (from /proc), because it says what a proxy
costs whatever else the machine does; requests/s, P50 and P99 stand beside it. Medians over the
rounds and ratios to nginx are printed, and written with the raw rows to --out.

The third is bare (bare.rs), the least that a proxy of hyper can be: what the gateway takes more, its own work
takes. The fourth is the floor (floor.rs), a loop of a proxy's system calls and nothing else: no proxy that
reads and writes each message by itself, as all four do, could go below it on this machine.

Everything runs on loopback in a temporary folder and ends by itself.
"""
import os, pathlib, shutil, statistics, sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from stand import PROXY, ROOT, Bench, answers, arguments, free_port, main, wait_for  # noqa: E402


class Compare(Bench):
    beside = ["bare", "floor"]

    def begin(self):
        shutil.copytree(HERE / "www", self.dir / "www")
        for path in [self.dir / "www", *(self.dir / "www").iterdir()]:
            os.chmod(path, 0o755)
        # Room for all four: what one of them keeps connected is lost to the others.
        self.start_fpm(4 * self.o.children + 4)
        self.start_both()

    def start_both(self):
        params = "".join(f"fastcgi_param {k} {v};\n" for k, v in {
            "SCRIPT_FILENAME": f"{self.dir}/www/hello.php", "QUERY_STRING": "$query_string", "REQUEST_METHOD": "$request_method",
            "CONTENT_TYPE": "$content_type", "CONTENT_LENGTH": "$content_length", "SCRIPT_NAME": "/hello.php", "REQUEST_URI": "$request_uri",
            "DOCUMENT_URI": "$document_uri", "DOCUMENT_ROOT": f"{self.dir}/www", "SERVER_PROTOCOL": "$server_protocol", "REQUEST_SCHEME": "$scheme",
            "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "nginx", "REMOTE_ADDR": "$remote_addr", "REMOTE_PORT": "$remote_port",
            "SERVER_ADDR": "$server_addr", "SERVER_PORT": "$server_port", "SERVER_NAME": "$server_name", "REDIRECT_STATUS": "200"}.items())
        self.start_nginx(f"""
location = /fastcgi-kept {{ fastcgi_pass fpm_kept; fastcgi_keep_conn on; {params} }}
location = /fastcgi {{ fastcgi_pass unix:{self.fpm}; {params} }}
location = /http {{ {PROXY} }}
location = /handler {{ return 200 "hello"; }}
""", f"upstream fpm_kept {{ server unix:{self.fpm}; keepalive {self.o.children}; keepalive_requests 1000000; }}")
        php = f'fastcgi = "unix:{self.fpm}"\nroot = "{self.dir}/www"\nindex = "hello.php"\ntry_files = false\nconnections = {self.o.children}\n'
        self.start_gateway(f"""
[upstream.php]
{php}
[upstream.php_kept]
{php}keepalive = {self.o.children}
[[route]]
path = "/fastcgi"
legacy = "php"
[[route]]
path = "/fastcgi-kept"
legacy = "php_kept"
[[route]]
path = "/http"
new = "service"
serve = "new"
[[route]]
path = "/handler"
new = "hello"
serve = "new"
""")

    def start_others(self):
        self.others = {}
        script = self.dir / "www/hello.php"
        for case in self.o.cases:
            for who in self.beside:
                words = {"http": [f"127.0.0.1:{self.service_port}"], "handler": []}.get(case, [self.fpm, script])
                # Only the floor bounds its connections by itself: the other has one for each of its clients' at most.
                words += [self.o.children] if who == "floor" and case.startswith("fastcgi") else []
                port = free_port()
                self.others[who, f"/{case}"] = (port, [self.start(ROOT / "target/release/examples" / who, port, case, *words).pid])
                wait_for(lambda: answers(port), f"the {who} one")

    def proxy(self, who, path):
        return self.others[who, path] if who in self.beside else super().proxy(who, path)

    def run(self):
        self.start_others()
        rows = []
        for case in self.o.cases:
            for round_ in range(self.o.rounds):
                for who in ("nginx", "strangler", *self.beside):
                    row = {"case": case, "round": round_, "who": who, **self.measure(who, f"/{case}")}
                    rows.append(row)
                    print("{case:13} {who:10} {cpu_us:6.1f} us/request {rps:8.0f} r/s  p50 {p50_ms:.2f} ms  p99 {p99_ms:.2f} ms".format(**row), flush=True)
        return rows


def summary(rows):
    lines = ["| case | nginx µs | strangler µs | bare µs | floor µs | strangler / nginx (median of rounds) | spread | bare / nginx | floor / nginx | nginx r/s | strangler r/s | nginx p50/p99 ms | strangler p50/p99 ms |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for case in dict.fromkeys(r["case"] for r in rows):
        of = lambda who, key: [r[key] for r in rows if r["case"] == case and r["who"] == who]
        med = lambda who, key: statistics.median(of(who, key))
        cpu = " | ".join(f"{med(who, 'cpu_us'):.1f}" for who in ("nginx", "strangler", "bare", "floor"))
        ratios, bare, floor = ([b / a for a, b in zip(of("nginx", "cpu_us"), of(who, "cpu_us"))] for who in ("strangler", "bare", "floor"))
        lines.append(f"| {case} | {cpu} | **{statistics.median(ratios):.2f}** | {min(ratios):.2f}–{max(ratios):.2f} "
                     f"| {statistics.median(bare):.2f} | {statistics.median(floor):.2f} "
                     f"| {med('nginx', 'rps'):.0f} | {med('strangler', 'rps'):.0f} | {med('nginx', 'p50_ms'):.2f} / {med('nginx', 'p99_ms'):.2f} | {med('strangler', 'p50_ms'):.2f} / {med('strangler', 'p99_ms'):.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = arguments(__doc__, seconds=5)
    parser.add_argument("--children", type=int, default=16, help="connections each proxy may have to php-fpm, which has a process for every one")
    parser.add_argument("--cases", nargs="+", default=["fastcgi-kept", "fastcgi", "http", "handler"])
    main(parser, Compare, summary)
