#!/usr/bin/env python3
"""Measures this gateway beside nginx on the same PHP-FPM, the same HTTP service, in one go.

For each case the two proxies take turns (A B A B ...), each with one worker. What counts first is
the CPU time that the proxy's process used per request (from /proc), because it says what a proxy
costs whatever else the machine does; requests/s, P50 and P99 stand beside it. Medians over the
rounds and ratios to nginx are printed, and written with the raw rows to --out.

Everything runs on loopback in a temporary folder and ends by itself.
"""
import argparse, json, os, pathlib, platform, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(probe, what, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if probe():
            return
        time.sleep(0.05)
    sys.exit(f"{what} did not come up within {seconds} s")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


def children_of(pid):
    try:
        return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Bench:
    def __init__(self, options):
        self.o = options
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="strangler-bench-"))
        os.chmod(self.dir, 0o755)
        self.processes = []

    def start(self, *argv):
        log = open(self.dir / f"{pathlib.Path(argv[0]).name}-{len(self.processes)}.log", "w")
        process = subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start_fpm(self):
        binary = next((b for b in ("php-fpm", "php-fpm8.4", "php-fpm8.3", "php-fpm8.2", "php-fpm8.1") if shutil.which(b)), None)
        if not binary:
            sys.exit("php-fpm is missing; `make install-test-deps` installs it")
        self.fpm = self.dir / "fpm.sock"
        user = "user = www-data\ngroup = www-data\n" if os.getuid() == 0 else ""
        (self.dir / "fpm.conf").write_text(
            f"[global]\nerror_log = {self.dir}/fpm.log\n[www]\n{user}listen = {self.fpm}\nlisten.mode = 0666\n"
            f"pm = static\npm.max_children = {self.o.children}\n")
        shutil.copytree(HERE / "www", self.dir / "www")
        for path in [self.dir / "www", *(self.dir / "www").iterdir()]:
            os.chmod(path, 0o755)
        self.start(binary, "-F", "-y", self.dir / "fpm.conf")
        wait_for(self.fpm.exists, "php-fpm")

    def start_nginx(self):
        self.nginx_port, self.service_port = free_port(), free_port()
        (self.dir / "nginx").mkdir()
        user = "user root;" if os.getuid() == 0 else ""
        common = lambda pid: (
            f"{user} worker_processes 1; daemon off; pid {self.dir}/{pid}; error_log {self.dir}/{pid}.log;\n"
            f"events {{ worker_connections 4096; }}\nhttp {{ client_body_temp_path {self.dir}/nginx/b; proxy_temp_path {self.dir}/nginx/p;\n"
            f"fastcgi_temp_path {self.dir}/nginx/f; uwsgi_temp_path {self.dir}/nginx/u; scgi_temp_path {self.dir}/nginx/s;\n"
            f"keepalive_requests 1000000; keepalive_timeout 75s; default_type text/plain;\n")
        log = f'log_format j escape=json \'{{"t":"$time_iso8601","c":"$remote_addr","m":"$request_method","u":"$request_uri","s":$status,"b":$bytes_sent,"rt":$request_time,"ut":"$upstream_response_time"}}\'; access_log {self.dir}/nginx.access j buffer=64k flush=1s;\n'
        params = "".join(f"fastcgi_param {k} {v};\n" for k, v in {
            "SCRIPT_FILENAME": f"{self.dir}/www/hello.php", "QUERY_STRING": "$query_string", "REQUEST_METHOD": "$request_method",
            "CONTENT_TYPE": "$content_type", "CONTENT_LENGTH": "$content_length", "SCRIPT_NAME": "/hello.php", "REQUEST_URI": "$request_uri",
            "DOCUMENT_URI": "$document_uri", "DOCUMENT_ROOT": f"{self.dir}/www", "SERVER_PROTOCOL": "$server_protocol", "REQUEST_SCHEME": "$scheme",
            "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "nginx", "REMOTE_ADDR": "$remote_addr", "REMOTE_PORT": "$remote_port",
            "SERVER_ADDR": "$server_addr", "SERVER_PORT": "$server_port", "SERVER_NAME": "$server_name", "REDIRECT_STATUS": "200"}.items())
        (self.dir / "proxy.conf").write_text(common("proxy.pid") + log + f"""
upstream fpm_kept {{ server unix:{self.fpm}; keepalive {self.o.children}; keepalive_requests 1000000; }}
upstream service {{ server 127.0.0.1:{self.service_port}; keepalive 64; keepalive_requests 1000000; }}
server {{ listen 127.0.0.1:{self.nginx_port};
location = /fastcgi-kept {{ fastcgi_pass fpm_kept; fastcgi_keep_conn on; {params} }}
location = /fastcgi {{ fastcgi_pass unix:{self.fpm}; {params} }}
location = /http {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }}
location = /handler {{ return 200 "hello"; }}
}} }}""")
        (self.dir / "service.conf").write_text(common("service.pid") + f"access_log off; server {{ listen 127.0.0.1:{self.service_port}; location / {{ return 200 hello; }} }} }}")
        self.start("nginx", "-c", self.dir / "service.conf", "-p", self.dir / "nginx")
        self.nginx = self.start("nginx", "-c", self.dir / "proxy.conf", "-p", self.dir / "nginx")
        wait_for(lambda: answers(self.nginx_port) and answers(self.service_port), "nginx")

    def start_gateway(self):
        self.gateway_port = free_port()
        php = f'fastcgi = "unix:{self.fpm}"\nroot = "{self.dir}/www"\nindex = "hello.php"\ntry_files = false\nconnections = {self.o.children}\n'
        (self.dir / "routes.toml").write_text(f"""
[listen]
http = "127.0.0.1:{self.gateway_port}"
[server]
workers = 1
access_log = "{self.dir}/gateway.access"
[server.timeouts]
requests_per_connection = 1000000
[upstream.php]
{php}
[upstream.php_kept]
{php}keepalive = {self.o.children}
[upstream.service]
http = "http://127.0.0.1:{self.service_port}"
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
        self.gateway = self.start(ROOT / "target/release/examples/hello", "run", "-c", self.dir / "routes.toml")
        wait_for(lambda: answers(self.gateway_port), "the gateway")

    def load(self, port, path, seconds):
        out = subprocess.run(["wrk", "-t1", f"-c{self.o.connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}{path}"],
                             capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in out or "Socket errors" in out:
            sys.exit(f"errors under load at {path}:\n{out}")
        ms = {"us": 1e-3, "ms": 1.0, "s": 1e3}
        quantile = lambda q: (lambda m: float(m[1]) * ms[m[2]])(re.search(rf"^\s+{q}%\s+([\d.]+)(us|ms|s)", out, re.M))
        return {"requests": int(re.search(r"(\d+) requests in", out)[1]), "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
                "p50_ms": quantile(50), "p99_ms": quantile(99)}

    def measure(self, who, path):
        port, pids = (self.nginx_port, children_of(self.nginx.pid)) if who == "nginx" else (self.gateway_port, [self.gateway.pid])
        self.load(port, path, 1)
        before = cpu_seconds(pids)
        row = self.load(port, path, self.o.seconds)
        row["cpu_us"] = (cpu_seconds(pids) - before) / row["requests"] * 1e6
        return row

    def run(self):
        rows = []
        for case in self.o.cases:
            for round_ in range(self.o.rounds):
                for who in ("nginx", "strangler"):
                    row = {"case": case, "round": round_, "who": who, **self.measure(who, f"/{case}")}
                    rows.append(row)
                    print("{case:13} {who:10} {cpu_us:6.1f} us/request {rps:8.0f} r/s  p50 {p50_ms:.2f} ms  p99 {p99_ms:.2f} ms".format(**row), flush=True)
        return rows


def summary(rows):
    lines = ["| case | nginx µs | strangler µs | ratio (median of rounds) | spread | nginx r/s | strangler r/s | nginx p50/p99 ms | strangler p50/p99 ms |", "|---|---|---|---|---|---|---|---|---|"]
    for case in dict.fromkeys(r["case"] for r in rows):
        of = lambda who, key: [r[key] for r in rows if r["case"] == case and r["who"] == who]
        med = lambda who, key: statistics.median(of(who, key))
        ratios = [b / a for a, b in zip(of("nginx", "cpu_us"), of("strangler", "cpu_us"))]
        lines.append(f"| {case} | {med('nginx', 'cpu_us'):.1f} | {med('strangler', 'cpu_us'):.1f} | **{statistics.median(ratios):.2f}** | {min(ratios):.2f}–{max(ratios):.2f} "
                     f"| {med('nginx', 'rps'):.0f} | {med('strangler', 'rps'):.0f} | {med('nginx', 'p50_ms'):.2f} / {med('nginx', 'p99_ms'):.2f} | {med('strangler', 'p50_ms'):.2f} / {med('strangler', 'p99_ms'):.2f} |")
    return "\n".join(lines)


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    version = lambda *a: (lambda p: (p.stdout + p.stderr).splitlines()[0])(subprocess.run(a, capture_output=True, text=True))
    load = os.getloadavg()[0]
    noisy = "\n\n**Warning**: the machine was not quiet when the run began (load %.1f); trust ratios only." % load if load > 0.5 else ""
    return f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}; {version('nginx', '-v')}; {version('rustc', '--version')}; {time.strftime('%Y-%m-%d')}{noisy}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--children", type=int, default=16, help="processes of php-fpm")
    parser.add_argument("--cases", nargs="+", default=["fastcgi-kept", "fastcgi", "http", "handler"])
    parser.add_argument("--out", type=pathlib.Path, help="a folder for MACHINE.md, raw.json and summary.md")
    options = parser.parse_args()
    about = machine()
    subprocess.run(["cargo", "build", "--release", "--example", "hello"], cwd=ROOT, check=True)
    bench = Bench(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        bench.start_fpm()
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
            f"`run.py --rounds {options.rounds} --seconds {options.seconds} --connections {options.connections} --children {options.children}`: "
            f"one worker each, CPU time of the proxy's process per request.\n\n{text}\n")


if __name__ == "__main__":
    main()
