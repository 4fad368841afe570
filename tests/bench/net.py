"""Frames through our jailed network process, beside QEMU's virtio-net and the tap's own limit.

All on one tap, made for this and removed: 64 bytes on the wire are 60 here, without the checksum that
hardware appends, and 1518 are 1514.
"""

import collections
import contextlib
import os
import re
import subprocess
import threading
import time

import machines
import pairs
import processes

LOOP = os.path.join(machines.ROOT, "bazel-bin/tests/bench/tap_loop")
TAP = "troupe-bench"

# What the guest does; the words of guest/payload. `unit` and `scale` of a frame a second in the table.
Load = collections.namedtuple("Load", "op frame depth count unit scale")
LOADS = [
    Load("send", 60, 64, 100000, "kframes/s", 1e-3),
    Load("send", 1514, 64, 100000, "Gbit/s", 1514 * 8e-9),
    Load("receive", 60, 64, 50000, "kframes/s", 1e-3),
    Load("receive", 1514, 64, 50000, "Gbit/s", 1514 * 8e-9),
    Load("trip", 60, 1, 5000, "us", 1e-3),
]


@contextlib.contextmanager
def tap():
    """A tap with an address that answers questions, gone at the end."""
    def ip(*words, check=True):
        subprocess.run(["ip", *words], check=check, capture_output=True)
    ip("link", "del", TAP, check=False)
    ip("tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr")
    try:
        ip("addr", "add", "10.99.0.1/24", "dev", TAP)
        ip("link", "set", TAP, "up")
        yield
    finally:
        ip("link", "del", TAP, check=False)


@contextlib.contextmanager
def flood(wanted, frame):
    """Frames into the tap for as long as it lasts."""
    process = subprocess.Popen([LOOP, "flood", TAP, str(frame)]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def pin(machine, process):
    """vCPU on CPU 0, who moves the frames on CPU 1, as soon as both exist."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        names = processes.threads(process.pid)
        movers = [tid for name, tid in names.items() if name.startswith(machine.net_threads)]
        if machine.vcpu_thread in names and movers:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(names[machine.vcpu_thread], {0})
                for thread in movers:
                    os.sched_setaffinity(thread, {1})
            return
        time.sleep(0.005)


def run(machine, load, mode, pinned):
    """Frames a second; of trips nanoseconds."""
    words = (f"bench=net op={load.op} frame={load.frame} depth={load.depth} count={load.count} "
             f"mode={mode} warmup={load.count // 20} rounds=1")
    process = machine.start(words, devices=False, tap=TAP)
    if pinned:
        threading.Thread(target=pin, args=(machine, process), daemon=True).start()
    text = ""
    while "bench net ready" not in text and (line := process.stdout.readline()):
        text += line.decode(errors="replace")
    with flood(load.op == "receive", load.frame):
        text += process.stdout.read().decode(errors="replace")
    process.wait()
    line = re.search(r"^bench net net=.*$", text, re.M)
    if not line or " 0 failed" not in text:
        raise RuntimeError(f"{machine.name}: no figure from the guest: {text[-500:]!r}")
    said = dict(pair.split("=", 1) for pair in line[0].split() if "=" in pair)
    return float(said["p50_ns" if load.op == "trip" else "fps"])


def limit(load):
    """The same of the tap without a VM."""
    words = {"send": ["write", TAP, str(load.frame), str(load.count * 5)],
             "receive": ["read", TAP, str(load.frame), str(load.count)],
             "trip": ["trip", TAP, str(load.count)]}[load.op]
    process = subprocess.Popen([LOOP, *words], stdout=subprocess.PIPE, text=True)
    if load.op == "receive":
        process.stdout.readline()
    with flood(load.op == "receive", load.frame):
        figure = process.stdout.read()
    if process.wait():
        raise RuntimeError(f"tap_loop {' '.join(words)} failed")
    return float(figure)


def report(ours, peer, count, out):
    out("\n## Network: frames on a tap, beside QEMU's virtio-net and the tap alone")
    if os.geteuid() != 0:
        out("not measured: root alone makes taps")
        return
    out(pairs.HEADER)
    with tap():
        for load in LOADS:
            label = f"{load.op}, {load.frame + 4} B"
            pinned = load.op != "receive"  # there the flood needs a processor, too
            goal = "<= 0.67" if load.op == "trip" else ">= 1.5"
            for mode in ("poll", "irq"):
                series = pairs.measure(lambda: run(ours, load, mode, pinned),
                                       lambda: run(peer, load, mode, pinned), count)
                out(series.row(f"{label}, {mode} / qemu", load.unit, goal, load.scale))
            series = pairs.measure(lambda: run(ours, load, "poll", pinned), lambda: limit(load),
                                   count)
            out(series.row(f"{label}, poll / the tap alone", load.unit, "", load.scale))
