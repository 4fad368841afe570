"""The network device alone: the jailed executable between a driver and a socket or a tap, without a VM."""

import os
import re
import subprocess

import machines
import net
import pairs

DRIVER = os.path.join(machines.ROOT, "bazel-bin/devices/net/net_alone")
DEVICES = os.path.join(machines.ROOT, "bazel-bin/bin/troupe-net")


TAP_FRAMES = 40000


def ask(*words, fds=()):
    """What the driver prints of frames a second, and of CPU time for one if it does."""
    command = [DRIVER, *words, f"program={DEVICES}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=fds)
    figure = re.search(r"^alone .*\bframes=(\d+)(?:.* cpu_ns_per_frame=(\d+))?", done.stdout, re.M)
    if done.returncode or not figure:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return float(figure[1]), float(figure[2] or 0)


def run(what, direction, size, stream):
    """Frames per second; `what` is "device", or "loop" for a system call for each frame."""
    return ask(what, direction, f"size={size}", *(["stream"] if stream else []))[0]


def run_on_tap(what, direction, size):
    with net.opened() as fd:
        if direction == "in":
            net.fill(size, TAP_FRAMES)
        return ask(what, direction, f"size={size}", f"tap={fd}", f"frames={TAP_FRAMES}", fds=[fd])


def report_tap(count, out):
    out("\n## Frames on a tap, without a VM: the device, beside a system call for each frame")
    if os.geteuid() != 0:
        out("not measured: root alone makes taps")
        return
    out(pairs.HEADER)
    with net.tap():
        for direction in ("out", "in"):
            for size in (60, 1514):
                cpu = {"device": [], "loop": []}

                def once(what):
                    figure, ns = run_on_tap(what, direction, size)
                    cpu[what].append(ns)
                    return figure
                series = pairs.measure(lambda: once("device"), lambda: once("loop"), count)
                out(series.row(f"tap, {direction}, {size + 4} B / loop", "kframes/s", "", 1e-3))
                out(pairs.Series(cpu["device"], cpu["loop"], 0).row("  CPU time for a frame", "ns", ""))


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
    report_tap(count, out)
