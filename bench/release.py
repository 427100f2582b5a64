#!/usr/bin/env python3
"""Builds the gateway guided by a profile of itself at work: about a sixth less CPU time a request than a plain release.

The gateway of the comparison is built with counters in it and answers the requests of the comparison and of the
checks, and scrapes; what it has counted tells the compiler which ways are taken. The programs lie in target/guided then. Arguments
go to cargo, in place of what is built by default: the program, and the gateway that the measurements run.

Needs what the measurements need, and the compiler's llvm-profdata (rustup component add llvm-tools) or Debian's.
"""
import argparse, os, pathlib, re, shutil, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from stand import ROOT, arguments  # noqa: E402
from compare.run import Compare  # noqa: E402
from checks.run import Checks  # noqa: E402
from scrape.run import FORMATS, Scrape  # noqa: E402

TARGET = ROOT / "target/guided"
SECONDS = 3


def rustc(*words):
    return subprocess.run(["rustc", *words], capture_output=True, text=True, check=True).stdout.strip()


def profdata(host):
    """The compiler's own, else the newest that is installed: an older one reads what is needed of it."""
    own = pathlib.Path(rustc("--print", "sysroot"), "lib/rustlib", host, "bin/llvm-profdata")
    if own.exists():
        return own
    installed = {int(v[1]): path for path in pathlib.Path("/usr/bin").iterdir() if (v := re.fullmatch(r"llvm-profdata-(\d+)", path.name))}
    if not installed:
        sys.exit("llvm-profdata is missing: `rustup component add llvm-tools`, or Debian's package llvm-19")
    return installed[max(installed)]


def build(host, flag, folder, *what):
    # With a target named, the flag is for the program alone and not for what cargo runs while it builds.
    command = ["cargo", "build", "--release", "--locked", "--target", host, "--target-dir", folder, *what]
    flags = f"{os.environ.get('RUSTFLAGS', '')} {flag}"
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"RUSTFLAGS": flags})
    return folder / host / "release"


def end(bench):
    bench.stop()
    if bench.gateway.returncode != 0:
        sys.exit("the gateway did not end by itself, and so did not write down what it had counted")


def work(kind, gateway, cases):
    options = arguments(__doc__, SECONDS).parse_args(["--gateway", str(gateway)])
    options.cases, options.children = cases, 8
    bench = kind(options)
    try:
        bench.begin()
        for case in cases:
            bench.measure("strangler", f"/{case}")
    finally:
        end(bench)


def scrapes(gateway):
    """What is not seen at work is taken for rare, and made small instead of fast."""
    bench = Scrape(argparse.Namespace(gateway=gateway, routes=200, workers=1, seconds=SECONDS))
    try:
        bench.start_gateway()
        bench.fill()
        for accept in FORMATS.values():
            for _ in range(20):
                bench.scrape(accept)
    finally:
        end(bench)


def main(what):
    host = re.search(r"^host: (.+)$", rustc("-vV"), re.M)[1]
    merge, profile = profdata(host), TARGET / "strangler.profdata"
    with tempfile.TemporaryDirectory(prefix="strangler-counts-") as counts:
        gateway = build(host, f"-Cprofile-generate={counts}", TARGET / "counting", "--example", "hello") / "examples/hello"
        work(Compare, gateway, ["fastcgi-kept", "fastcgi", "http", "handler"])
        work(Checks, gateway, ["redis", "warm"])
        scrapes(gateway)
        subprocess.run([merge, "merge", "-o", profile, *pathlib.Path(counts).glob("*.profraw")], check=True)
    shutil.rmtree(TARGET / "counting")
    print("built in", build(host, f"-Cprofile-use={profile}", TARGET, *what))


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        main(sys.argv[1:] or ["--bin", "strangler", "--example", "hello"])
