"""The socket device alone: the jailed executable between a program and a driver, without a VM."""

import os
import re
import subprocess

import machines
import pairs

DRIVER = os.path.join(machines.ROOT, "bazel-bin/devices/vsock/vsock_alone")
DEVICES = os.path.join(machines.ROOT, "bazel-bin/bin/troupe-vsock")


def run(what):
    """Bytes per second; `what` is "to_guest", "to_host", or "pair" for a bare unix socket pair."""
    command = [DRIVER, what, f"program={DEVICES}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    figure = re.search(r"^alone .*\bbytes_per_second=(\d+)", done.stdout, re.M)
    if done.returncode or not figure:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return float(figure[1])


def report(count, out):
    out("\n## Sockets, without a VM: one stream, beside a unix socket pair")
    out(pairs.HEADER)
    for what, name in (("to_guest", "host to guest"), ("to_host", "guest to host")):
        series = pairs.measure(lambda what=what: run(what), lambda: run("pair"), count)
        out(series.row(f"{name} / socket pair", "GB/s", ">= 0.5", 1e-9))
