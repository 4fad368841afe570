"""The network device alone: the jailed executable between a driver and a socket, without a VM."""

import os
import re
import subprocess

import machines
import pairs

DRIVER = os.path.join(machines.ROOT, "bazel-bin/devices/net/net_alone")
DEVICES = os.path.join(machines.ROOT, "bazel-bin/bin/troupe-net")


def run(what, direction, size, stream):
    """Frames per second; `what` is "device", or "loop" for a system call for each frame."""
    command = [DRIVER, what, direction, f"size={size}", f"program={DEVICES}"]
    if stream:
        command.append("stream")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    figure = re.search(r"^alone .*\bframes=(\d+)", done.stdout, re.M)
    if done.returncode or not figure:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return float(figure[1])


def report(count, out):
    out("\n## Frames on a socket, without a VM: the device, beside a system call for each frame")
    out(pairs.HEADER)
    for stream in (False, True):
        for direction in ("out", "in"):
            for size in (64, 1514):
                series = pairs.measure(lambda: run("device", direction, size, stream),
                                       lambda: run("loop", direction, size, stream), count)
                out(series.row(f"{'stream' if stream else 'packets'}, {direction}, {size} B / loop",
                               "kframes/s", "", 1e-3))
