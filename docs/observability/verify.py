#!/usr/bin/env python3
"""Asks a real Prometheus every query of the Grafana dashboard and of the alerts, and says which find nothing.

    make demo        in one terminal
    make observe     in another: this

It starts Debian's Prometheus in a temporary folder, on the admin port of the demonstration and with the rules of this
folder, and asks the shop for its products meanwhile: PHP, then the Rust side, then PHP again, so that the route which
it flips for that ends as it was. What a query finds, or waits for, is printed; Prometheus then stays until Ctrl-C, to
be looked at. With --prometheus a running one is asked, and nothing is started or flipped.

Exit: 0 every query finds something, or waits for what this gateway does not have; 1 one finds nothing; 2 it could not
be asked.
"""
import argparse, contextlib, json, pathlib, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.error, urllib.parse, urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# What may find nothing for a reason: by what stands in the query, what it waits for.
WAITS_FOR = {
    "[5m])) > 5)": "more than five requests that fail",
    "strangler_upstream_failures_total[1m]) > 0": "a call of an upstream that fails",
    "strangler_requests_apart_total": "a request that was retried, cut off or left by its client",
    "strangler_upstream_saturation_seconds": "a quarter of an hour of a pool's demand",
    "strangler_check_key_used_total": "a check of signatures",
    "strangler_check_parity_total": "a session check with `parity`",
    "strangler_check_cache_total": "a session check with a store",
    "strangler_check_store": "a check with a store",
    "strangler_check_": "a route with a check",
}


class Unasked(Exception):
    """What keeps this from asking, with its remedy."""


def get(url, **query):
    url = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def api(prometheus, path, **query):
    try:
        return json.loads(get(f"{prometheus}/api/v1/{path}", **query))["data"]
    except urllib.error.HTTPError as error:
        raise Unasked(f"Prometheus refuses {query or path}: {error.read().decode()}") from error
    except OSError as error:
        raise Unasked(f"no Prometheus at {prometheus}: {error}") from error


def queries(prometheus):
    """Those of the dashboard, and what each alert looks at; what an alert waits for should not be there."""
    dashboard = json.loads((HERE / "grafana.json").read_text())
    for of in [target for panel in dashboard["panels"] for target in panel.get("targets", [])] + dashboard["annotations"]["list"]:
        yield of["expr"].replace("$__rate_interval", "1m").replace("$route", ".*")
    rules = [rule for group in api(prometheus, "rules")["groups"] for rule in group["rules"]]
    if not rules:
        raise Unasked(f"Prometheus has no rules: `rule_files` is to name {HERE / 'alerts.yml'}")
    for rule in rules:
        yield max((rule["query"].rpartition(sign)[0] for sign in (" > ", " < ")), key=len)


def waits_for(query):
    return next((what for name, what in WAITS_FOR.items() if name in query), None)


def ask(prometheus, seconds, meanwhile=lambda: None):
    """Asks until every query has found something or the time is over. Whether none found nothing without a reason."""
    found, end = dict.fromkeys(queries(prometheus), 0), time.monotonic() + seconds
    while time.monotonic() < end and not all(found.values()):
        meanwhile()
        for query in [query for query, series in found.items() if not series]:
            found[query] = len(api(prometheus, "query", query=query)["result"])
        if all(series or waits_for(query) for query, series in found.items()):
            break
        time.sleep(1)
    for query, series in found.items():
        said = f"{series} series" if series else f"waits for {waits_for(query)}" if waits_for(query) else "NOTHING"
        print(f"{said}: {query}", flush=True)
    return all(series or waits_for(query) for query, series in found.items())


@contextlib.contextmanager
def prometheus_on(admin):
    """A Prometheus of its own, until it is not needed any more."""
    if not shutil.which("prometheus"):
        raise Unasked("prometheus is missing: apt-get install prometheus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="strangler-observe-") as folder:
        configuration = pathlib.Path(folder, "prometheus.yml")
        configuration.write_text(
            f"global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: ['{HERE / 'alerts.yml'}']\n"
            f"scrape_configs:\n  - job_name: strangler\n    static_configs: [{{ targets: ['{admin}'] }}]\n")
        with open(pathlib.Path(folder, "log"), "w+") as log:
            process = subprocess.Popen(
                ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"],
                stdout=log, stderr=log)
            try:
                for _ in range(100):
                    with contextlib.suppress(Unasked):
                        if api(f"http://{address}", "query", query="up == 1")["result"]:
                            break
                    if process.poll() is not None:
                        raise Unasked(f"Prometheus ended: {pathlib.Path(folder, 'log').read_text()}")
                    time.sleep(0.2)
                else:
                    raise Unasked(f"Prometheus does not get the metrics of {admin}")
                yield f"http://{address}", process
            finally:
                process.terminate()
                process.wait(10)


class Demonstration:
    """The shop of `make demo`, which is asked for products and flipped."""

    admin, shop, route = "127.0.0.1:9901", "http://127.0.0.1:8080", "products"

    def __init__(self):
        try:
            routes = json.loads(get(f"http://{self.admin}/api/routes"))["routes"]
            self.serve = next(route["serve"] for route in routes if route["name"] == self.route)
        except (OSError, StopIteration) as error:
            raise Unasked(f"no shop at {self.admin}: run `make demo` in another terminal ({error or 'another gateway'})") from error

    def flip(self, serve):
        subprocess.run(["cargo", "run", "--quiet", "--profile", "demo", "--example", "shop", "--", "flip", self.route, serve], cwd=ROOT, check=True)

    def ask(self, times=1):
        for path in ["/", "/health"] + times * ["/api/v1/products"]:
            with contextlib.suppress(urllib.error.HTTPError):
                get(self.shop + path)

    def ask_both_sides(self):
        """Long enough on each for a rate to be formed; PHP first, since alerts compare with what it had."""
        try:
            for serve in ("legacy", "new"):
                self.flip(serve)
                # An alert wants more than five hundred.
                for _ in range(8):
                    self.ask(100)
                    time.sleep(1)
        finally:
            self.flip(self.serve)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", metavar="URL", help="one that runs, has scraped a gateway, and has the rules of this folder")
    parser.add_argument("--seconds", type=float, default=30, help="how long to wait for data (default: 30)")
    options = parser.parse_args()
    # As Ctrl-C does: the Prometheus, its folder and the flip are undone on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if options.prometheus:
            return 0 if ask(options.prometheus.rstrip("/"), options.seconds) else 1
        demonstration = Demonstration()
        with prometheus_on(demonstration.admin) as (prometheus, process):
            print(f"{prometheus} is a Prometheus on the shop; asking both sides of {demonstration.route}", flush=True)
            demonstration.ask_both_sides()
            good = ask(prometheus, options.seconds, demonstration.ask)
            print(f"{prometheus} stays until Ctrl-C", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
            return 0 if good else 1
    except Unasked as error:
        print(f"{pathlib.Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
