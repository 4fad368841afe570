"""Frames through our jailed network process, beside QEMU's virtio-net and the tap's own limit.

All on one tap, made for this and removed: 64 bytes on the wire are 60 here, without the checksum that
hardware appends, and 1518 are 1514.
"""

import collections
import contextlib
import fcntl
import os
import re
import statistics
import struct
import subprocess
import threading
import time

import machines
import pairs
import processes

LOOP = os.path.join(machines.ROOT, "bazel-bin/tests/bench/tap_loop")
TAP = "troupe-bench"

# linux/if_tun.h
TUNSETIFF, TUNSETVNETHDRSZ = 0x400454ca, 0x400454d8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
HEADER = 12  # struct virtio_net_hdr_v1

# What the guest does; the words of guest/payload. `unit` and `scale` of a frame a second in the table.
Load = collections.namedtuple("Load", "op frame depth count unit scale")
LOADS = [
    Load("send", 60, 64, 100000, "kframes/s", 1e-3),
    Load("send", 1514, 64, 100000, "Gbit/s", 1514 * 8e-9),
    Load("receive", 60, 64, 20000, "kframes/s", 1e-3),
    Load("receive", 1514, 64, 20000, "Gbit/s", 1514 * 8e-9),
    Load("trip", 60, 1, 5000, "us", 1e-3),
]
# A moment, and CPU times; or what went by between two: all in nanoseconds.
Used = collections.namedtuple("Used", "wall movers vcpu")
# The first is measured; while the second runs, the CPU time of the first can be read in peace.
ROUNDS = 2
# All that is received waits in the tap before the guest begins, and some that the kernel sends.
QUEUE = 48000
VCPU_CPU, DEVICE_CPU = 0, 1
# Of what the tap gives without a VM: there is no more to be had.
AT_LIMIT = 0.9


def warm_up(load):
    return load.count // 20


@contextlib.contextmanager
def tap():
    """A tap with an address that answers questions, gone at the end."""
    def ip(*words, check=True):
        subprocess.run(["ip", *words], check=check, capture_output=True)
    ip("link", "del", TAP, check=False)
    ip("tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr")
    try:
        ip("addr", "add", "10.99.0.1/24", "dev", TAP)
        ip("link", "set", TAP, "txqueuelen", str(QUEUE), "up")
        yield
    finally:
        ip("link", "del", TAP, check=False)


@contextlib.contextmanager
def opened():
    """An fd of the tap, with a queue of its own."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", TAP.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(fd, TUNSETIFF, request)
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER))
        yield fd
    finally:
        os.close(fd)


def on_device_cpu(words):
    """Where a device has its thread: the kernel takes a frame's memory back at less cost on the CPU that gave it
    out, so that a filler wherever the scheduler puts it moves all figures by a third."""
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {DEVICE_CPU})).stdout


def fill(frame, count):
    """So many frames, and some for good measure, wait in the tap's queue."""
    on_device_cpu([LOOP, "fill", TAP, str(frame), str(count + 2000)])


class Movers:
    """The threads that move a machine's frames, and its vCPU: each pinned to its CPU."""

    def __init__(self, machine, process):
        self.machine, self.process = machine, process
        self.tids, self.vcpu = [], None
        self.thread = threading.Thread(target=self._find, daemon=True)
        self.thread.start()

    def _find(self):
        until = time.monotonic() + 2
        while time.monotonic() < until and not self.tids:
            names = processes.threads(self.process.pid)
            movers = [tid for name, tid in names.items()
                      if name.startswith(self.machine.net_threads)]
            if self.machine.vcpu_thread in names and movers:
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(names[self.machine.vcpu_thread], {VCPU_CPU})
                    for thread in movers:
                        os.sched_setaffinity(thread, {DEVICE_CPU})
                self.tids, self.vcpu = movers, names[self.machine.vcpu_thread]
            time.sleep(0.005)

    def used(self):
        """When it is, and the CPU time that the movers and the vCPU have used so far, in nanoseconds."""
        self.thread.join()

        def cpu_ns(tids):
            total = 0
            for tid in tids:
                with contextlib.suppress(OSError), open(f"/proc/{tid}/schedstat") as schedstat:
                    total += int(schedstat.read().split()[0])
            return total
        vcpu = [self.vcpu] if self.vcpu else []
        return Used(time.monotonic_ns(), cpu_ns(self.tids), cpu_ns(vcpu))


def run(machine, load, mode):
    """Frames a second, of trips nanoseconds; and what was used for them."""
    words = (f"bench=net op={load.op} frame={load.frame} depth={load.depth} count={load.count} "
             f"mode={mode} warmup={warm_up(load)} rounds={ROUNDS}")
    with opened() as fd:
        if load.op == "receive":
            fill(load.frame, ROUNDS * load.count + warm_up(load))
        process = machine.start(words, devices=False, tap=fd)
        movers = Movers(machine, process)
        text, before, after = "", None, None
        while line := process.stdout.readline().decode(errors="replace"):
            text += line
            if line.startswith("bench net ready"):
                before = movers.used()
            elif line.startswith("bench net net=") and " round=0 " in line:
                after = movers.used()
        process.wait()
    line = re.search(r"^bench net net=.* round=0 .*$", text, re.M)
    if not line or " 0 failed" not in text:
        raise RuntimeError(f"{machine.name}: no figure from the guest: {text[-500:]!r}")
    said = dict(pair.split("=", 1) for pair in line[0].split() if "=" in pair)
    figure = float(said["p50_ns" if load.op == "trip" else "fps"])
    return figure, Used(*(end - begin for begin, end in zip(before, after)))


def limit(load):
    """The same of the tap without a VM."""
    words = {"send": ["write", TAP, str(load.frame), str(load.count * 5)],
             "receive": ["read", TAP, str(load.frame), str(load.count)],
             "trip": ["trip", TAP, str(load.count)]}[load.op]
    return float(on_device_cpu([LOOP, *words]))


class Side:
    """One machine under one load, for pairs.measure_all(); keeps what was used beside."""

    def __init__(self, machine, load, mode):
        self.order = machine, load, mode
        self.used = []

    def __call__(self):
        figure, used = run(*self.order)
        self.used.append(used)
        return figure

    def cpu_of_a_frame(self):
        load = self.order[1]
        return [one.movers / (load.count + warm_up(load)) for one in self.used]

    def share(self, who):
        """Of one CPU: a median."""
        return statistics.median(getattr(one, who) / one.wall for one in self.used)


def report(ours, peer, count, out):
    out("\n## Network: frames on a tap, beside QEMU's virtio-net and the tap alone")
    if os.geteuid() != 0:
        out("not measured: root alone makes taps")
        return
    out(pairs.HEADER)
    with tap():
        for load in LOADS:
            label = f"{load.op}, {load.frame + 4} B"
            polling = None
            for mode in ("poll", "irq"):
                sides = [Side(machine, load, mode) for machine in (ours, peer)]
                values, discarded = pairs.measure_all([*sides, lambda: limit(load)], count)
                mine, theirs, bare = values
                beside = pairs.Series(mine, theirs, discarded)
                if load.op == "trip":
                    # How long a sleeping guest takes is its own affair, and KVM's.
                    own = statistics.median(mine) - polling if polling else 0
                    best, goal = [value + own for value in bare], "<= 0.67"
                    polling = statistics.median(mine)
                else:
                    best, goal = bare, ">= 1.5"
                out(beside.row(f"{label}, {mode} / qemu", load.unit, goal, load.scale,
                               best=pairs.Series(best, theirs, 0).ratio()))
                cpu = [both for both in zip(*[side.cpu_of_a_frame() for side in sides]) if all(both)]
                if cpu:
                    out(pairs.Series(*zip(*cpu), 0)
                        .row("  CPU time of who moves a frame", "ns", ""))
                out("  shares of a CPU, ours and qemu: " + ", ".join(
                    f"{name} {sides[0].share(who):.0%} and {sides[1].share(who):.0%}"
                    for name, who in (("who moves frames", "movers"), ("vCPU", "vcpu"))))
                limited = pairs.Series(mine, bare, 0)
                at_limit = load.op != "trip" and limited.ratio() >= AT_LIMIT
                out(limited.row(f"  {mode} / the tap alone", load.unit, "", load.scale)
                    + ("the tap's own limit" if at_limit else ""))
