"""The stand on which this gateway and nginx are measured side by side, each with one worker.

Both have the same HTTP service behind them, take turns, and are asked by wrk over loopback. What counts is the
CPU time that the proxy's process used per request (from /proc), because it says what a proxy costs whatever else
the machine does. A script says what stands behind the proxies, what is asked of them, and what the rows say.

Everything runs in a temporary folder and ends by itself.
"""
import argparse, json, os, pathlib, platform, re, shutil, signal, socket, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")

# How nginx hands a request to the service.
PROXY = 'proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;'


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
    """A script gives it `begin`, which starts all that is measured, `run`, which gives the rows, and names what of this
    tree it runs beside the gateway."""

    beside = []

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

    def nginx_conf(self, name, http, main=""):
        """A file of nginx's with one worker, everything of it in the folder of the run."""
        user = "user root;" if os.getuid() == 0 else ""
        folders = "".join(f"{kind}_temp_path {self.dir}/{name}-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = self.dir / f"{name}.conf"
        path.write_text(
            f"{main}\n{user} worker_processes 1; daemon off; pid {self.dir}/{name}.pid; error_log {self.dir}/{name}.log;\n"
            f"events {{ worker_connections 4096; }}\nhttp {{\n{folders}keepalive_requests 1000000; keepalive_timeout 75s;\n{http}\n}}")
        return path

    def start_nginx(self, locations, http="", main=""):
        """nginx as the proxy, and one more as the service behind both proxies. Its modules lie where Debian has them."""
        self.nginx_port, self.service_port = free_port(), free_port()
        service = f"access_log off; server {{ listen 127.0.0.1:{self.service_port}; location / {{ return 200 hello; }} }}"
        proxy = f"""
log_format j escape=json '{{"t":"$time_iso8601","c":"$remote_addr","m":"$request_method","u":"$request_uri","s":$status,"b":$bytes_sent,"rt":$request_time,"ut":"$upstream_response_time"}}';
access_log {self.dir}/nginx.access j buffer=64k flush=1s;
upstream service {{ server 127.0.0.1:{self.service_port}; keepalive 64; keepalive_requests 1000000; }}
{http}
server {{ listen 127.0.0.1:{self.nginx_port};
{locations}
}}"""
        self.start("nginx", "-c", self.nginx_conf("service", service), "-p", "/usr/share/nginx")
        self.nginx = self.start("nginx", "-c", self.nginx_conf("proxy", proxy, main), "-p", "/usr/share/nginx")
        wait_for(lambda: answers(self.nginx_port) and answers(self.service_port), "nginx")

    def start_fpm(self, children):
        """Debian's php-fpm, with processes that are there from the beginning."""
        binary = next((b for b in ("php-fpm", "php-fpm8.4", "php-fpm8.3", "php-fpm8.2", "php-fpm8.1") if shutil.which(b)), None)
        if not binary:
            sys.exit("php-fpm is missing; `make install-test-deps` installs it")
        self.fpm = self.dir / "fpm.sock"
        user = "user = www-data\ngroup = www-data\n" if os.getuid() == 0 else ""
        (self.dir / "fpm.conf").write_text(
            f"[global]\nerror_log = {self.dir}/fpm.log\n[www]\n{user}listen = {self.fpm}\nlisten.mode = 0666\n"
            f"pm = static\npm.max_children = {children}\n")
        self.start(binary, "-F", "-y", self.dir / "fpm.conf")
        wait_for(self.fpm.exists, "php-fpm")

    def start_gateway(self, routes, **environment):
        self.gateway_port = free_port()
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
{routes}""")
        environment = [f"{name}={value}" for name, value in environment.items()]
        self.gateway = self.start("env", *environment, self.o.gateway or ROOT / "target/release/examples/hello", "run", "-c", self.dir / "routes.toml")
        wait_for(lambda: answers(self.gateway_port), "the gateway")

    def load(self, port, path, seconds, *more, **environment):
        out = subprocess.run(["wrk", "-t1", f"-c{self.o.connections}", f"-d{seconds}s", "--latency", *more, f"http://127.0.0.1:{port}{path}"],
                             capture_output=True, text=True, check=True, env=os.environ | environment).stdout
        if "Non-2xx" in out or "Socket errors" in out or " 0 requests in" in out:
            sys.exit(f"errors under load at {path}:\n{out}")
        ms = {"us": 1e-3, "ms": 1.0, "s": 1e3}
        quantile = lambda q: (lambda m: float(m[1]) * ms[m[2]])(re.search(rf"^\s+{q}%\s+([\d.]+)(us|ms|s)", out, re.M))
        return {"requests": int(re.search(r"(\d+) requests in", out)[1]), "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
                "p50_ms": quantile(50), "p99_ms": quantile(99)}

    def proxy(self, who, path):
        """Where a proxy listens, and the processes that it is."""
        return (self.nginx_port, children_of(self.nginx.pid)) if who == "nginx" else (self.gateway_port, [self.gateway.pid])

    def measure(self, who, path):
        port, pids = self.proxy(who, path)
        self.load(port, path, 1)
        before = cpu_seconds(pids)
        row = self.load(port, path, self.o.seconds)
        row["cpu_us"] = (cpu_seconds(pids) - before) / row["requests"] * 1e6
        return row


def build(*examples):
    if examples:
        subprocess.run(["cargo", "build", "--release", *(word for name in examples for word in ("--example", name))], cwd=ROOT, check=True)


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    version = lambda *a: (lambda p: (p.stdout + p.stderr).splitlines()[0])(subprocess.run(a, capture_output=True, text=True))
    load = os.getloadavg()[0]
    noisy = "\n\n**Warning**: the machine was not quiet when the run began (load %.1f); trust ratios only." % load if load > 0.5 else ""
    return f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}; {version('nginx', '-v')}; {version('rustc', '--version')}; {time.strftime('%Y-%m-%d')}{noisy}"


def arguments(description, seconds):
    """The options of every script; one may add its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=seconds)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--gateway", type=lambda path: pathlib.Path(path).resolve(), help="a build of the example `hello` to measure instead of this tree's plain release")
    parser.add_argument("--out", type=pathlib.Path, help="a folder for MACHINE.md, raw.json and summary.md")
    return parser


def main(parser, kind, summary):
    """Builds what is measured, has a bench of this kind run, and writes down what came of it."""
    options = parser.parse_args()
    about = machine()
    build(*kind.beside, *([] if options.gateway else ["hello"]))
    bench = kind(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        bench.begin()
        rows = bench.run()
    finally:
        bench.stop()
    text = summary(rows)
    print("\n" + text)
    if options.out:
        figures = " ".join(f"--{name} {value}" for name, value in vars(options).items() if isinstance(value, int))
        guided = options.gateway and options.gateway.is_relative_to(ROOT / "target/guided")
        built = "guided by a profile (`make release`)" if guided else "another build" if options.gateway else "a plain release"
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "MACHINE.md").write_text(about + "\n")
        (options.out / "raw.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        (options.out / "summary.md").write_text(
            f"`run.py {figures}`: one worker each, CPU time of the proxy's process per request; {built}.\n\n{text}\n")
