#!/usr/bin/env python3
"""Measures a scrape of many routes: how long it takes in each format, and how long it delays a worker.

Every route has two sides that have answered requests of widely spread durations (log-normal around 10 ms),
for so long that the windows have slices. First, the gateway being idle, the time from asking for /metrics to
its last byte is taken by a client on the same machine, and the CPU time that its control plane took. Then
requests come at a fixed rate, without and with a scrape every half second, and the kernel's scheduler tells
how long the worker was ready to run and had to wait for a processor, and for how much of that the control
plane's thread had it (perf sched): the scrape runs there, and no lock is shared with a worker, so that is all
it can do to one.

Everything runs on loopback in a temporary folder and ends by itself.
"""
import argparse, json, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, threading, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from stand import ROOT, Bench, answers, build, free_port, machine, wait_for  # noqa: E402

FORMATS = {
    "text": "text/plain",
    "openmetrics": "application/openmetrics-text",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}

WRK = r"""
local routes, sigma = tonumber(os.getenv("ROUTES")), 0.7
function init() math.randomseed(7) end
function request()
  local normal = math.sqrt(-2 * math.log(1 - math.random())) * math.cos(2 * math.pi * math.random())
  return wrk.format("GET", "/r" .. math.random(0, routes - 1) .. "?" .. math.floor(10 * math.exp(sigma * normal)))
end
"""


def unchunked(body):
    """What stands in the chunks of an answer; one that breaks off is none."""
    parts, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        length = int(body[at:end], 16)
        if not length:
            return b"".join(parts)
        parts.append(body[end + 2:end + 2 + length])
        at = end + 4 + length


class Scrape(Bench):
    def start_gateway(self, serve="legacy"):
        self.port, self.admin = free_port(), free_port()
        self.table = self.dir / "routes.toml"
        self.write(serve)
        self.gateway = self.start(self.o.gateway or ROOT / "target/release/examples/hello", "run", "-c", self.table)
        wait_for(lambda: answers(self.port) and answers(self.admin), "the gateway")
        (self.dir / "wrk.lua").write_text(WRK)

    def write(self, serve):
        routes = "".join(f'[[route]]\nname = "r{n}"\npath = "/r{n}"\nlegacy = "wait"\nnew = "wait_too"\nserve = "{serve}"\n'
                         for n in range(self.o.routes))
        self.table.write_text(f"""
[listen]
http = "127.0.0.1:{self.port}"
admin = "127.0.0.1:{self.admin}"
[server]
workers = {self.o.workers}
access_log = "off"
[server.timeouts]
requests_per_connection = 1000000
{routes}""")

    def fill(self):
        for serve in ("legacy", "new"):
            self.write(serve)
            wait_for(lambda: f'strangler_route_serve{{route="r0",serve="{serve}"}} 1' in self.scrape("text/plain")[1].decode(), "the table")
            subprocess.run(["wrk", "-t1", "-c256", f"-d{self.o.seconds}s", "-s", self.dir / "wrk.lua", f"http://127.0.0.1:{self.port}/"],
                           env={**os.environ, "ROUTES": str(self.o.routes)}, capture_output=True, check=True)

    def scrape(self, accept):
        """The milliseconds from asking to the last byte, and the body."""
        request = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.admin)) as s:
            buffer, size = bytearray(1 << 26), 0
            view = memoryview(buffer)
            started = time.perf_counter()
            s.sendall(request)
            while got := s.recv_into(view[size:]):
                size += got
            took = time.perf_counter() - started
        head, _, body = bytes(view[:size]).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"a scrape failed: {head[:200]}")
        return took * 1e3, unchunked(body) if b"transfer-encoding: chunked" in head.lower() else body

    def timed(self):
        rows = {}
        for name, accept in FORMATS.items():
            took, cpu = [], []
            for _ in range(self.o.scrapes):
                before = self.control_seconds()
                ms, body = self.scrape(accept)
                took.append(ms)
                cpu.append((self.control_seconds() - before) * 1e3)
            rows[name] = {"ms": took, "cpu_ms": cpu, "bytes": len(body)}
            print(f"{name:12} {len(body) / 2**20:5.1f} MiB   median {statistics.median(took):5.1f} ms (fastest {min(took):5.1f}, slowest {max(took):5.1f})"
                  f"   CPU median {statistics.median(cpu):5.1f} ms (least {min(cpu):5.1f})", flush=True)
        return rows

    def control_seconds(self):
        """What the control plane's thread, the first one of the process, has run for."""
        return int(pathlib.Path(f"/proc/{self.gateway.pid}/task/{self.gateway.pid}/schedstat").read_text().split()[0]) / 1e9

    def threads(self):
        tasks = pathlib.Path(f"/proc/{self.gateway.pid}/task")
        return [int(t.name) for t in tasks.iterdir() if "worker" in (t / "comm").read_text()]

    def delays(self, scraping):
        """How long a worker waited for a processor each time it was ready to run, and for how much of it that had the
        control plane: two sorted lists, in ms."""
        data, stop = self.dir / "sched.data", threading.Event()
        def requests():
            with socket.create_connection(("127.0.0.1", self.port)) as s:
                due = time.perf_counter()
                while not stop.is_set():
                    s.sendall(b"GET /r1?0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    s.recv(4096)
                    due += 1 / self.o.rate
                    time.sleep(max(0, due - time.perf_counter()))
        def scrapes():
            while not stop.wait(0.5):
                subprocess.run(["curl", "-s", "-o", "/dev/null", "-H", f"Accept: {FORMATS['openmetrics']}", f"http://127.0.0.1:{self.admin}/metrics"], check=True)
        at_work = [threading.Thread(target=requests)] + [threading.Thread(target=scrapes)] * scraping
        for thread in at_work:
            thread.start()
        subprocess.run(["perf", "sched", "record", "-o", data, "--", "sleep", str(self.o.seconds)], capture_output=True, check=True)
        stop.set()
        for thread in at_work:
            thread.join()
        told = subprocess.run(["perf", "sched", "timehist", "-i", data], capture_output=True, text=True, check=True).stdout
        runs = re.findall(r"^\s*(\d+\.\d+) \[(\d+)\].*?\[(\d+)(?:/\d+)?\]\s+[\d.]+\s+([\d.]+)\s+([\d.]+)\s*$", told, re.M)
        workers, control, waits = self.threads(), {}, []
        for end, cpu, thread, waited, ran in runs:
            end, waited, ran = float(end) * 1e3, float(waited), float(ran)
            if int(thread) == self.gateway.pid:
                control.setdefault(cpu, []).append((end - ran, end))
            elif int(thread) in workers:
                waits.append((cpu, end - ran - waited, end - ran))
        behind = [sum(max(0, min(b, end) - max(a, begin)) for a, b in control.get(cpu, [])) for cpu, begin, end in waits]
        return sorted(end - begin for _, begin, end in waits), sorted(behind)

    def delayed(self):
        rows = {}
        for name, scraping in (("without", False), ("with", True)):
            waits, behind = self.delays(scraping)
            rows[name] = {"runs": len(waits), "p99_ms": waits[int(len(waits) * 0.99)], "longest_ms": waits[-1], "longest_behind_control_ms": behind[-1]}
            print("{0:8} scrapes: a worker ran {runs} times and waited at most {longest_ms:.3f} ms, P99 {p99_ms:.3f} ms; behind the control plane "
                  "at most {longest_behind_control_ms:.3f} ms".format(name, **rows[name]), flush=True)
        return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=20, help="of load on each side, and of looking at the scheduler")
    parser.add_argument("--scrapes", type=int, default=21)
    parser.add_argument("--rate", type=int, default=1000, help="requests per second while the scheduler is looked at")
    parser.add_argument("--gateway", type=lambda path: pathlib.Path(path).resolve(), help="a build of the example `hello` to measure instead of this tree's plain release")
    parser.add_argument("--out", type=pathlib.Path, help="a file for all that was measured")
    options = parser.parse_args()
    about = machine()
    if not options.gateway:
        build("hello")
    bench = Scrape(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        bench.start_gateway()
        bench.fill()
        rows = {"machine": about, "scrapes": bench.timed()}
        if shutil.which("perf"):
            rows["delays"] = bench.delayed()
    finally:
        bench.stop()
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
