"""4 KiB random reads and writes through our jailed block process, beside QEMU's and beside the host."""

import collections
import os
import re
import resource
import statistics
import threading
import time

import host
import pairs
import processes

DEPTHS = (1, 32)

# What the guest does; the words of guest/payload.
Load = collections.namedtuple("Load", "depth mode write size count warmup",
                              defaults=("poll", False, 4096, 20000, 2000))

# What a run gave: requests per second, CPU time and notifications per request, 99th percentile.
Bench = collections.namedtuple("Bench", "iops cpu_us kicks p99_us")

# A file and how it is opened. `name` stands in the tables.
Place = collections.namedtuple("Place", "name disk")


def load_for(place, depth, **rest):
    """A fraction of a second's work on the host's own cache or on a real disk."""
    slow = place.disk.direct
    counts = {1: 6000, 32: 30000} if slow else {1: 20000, 32: 60000}
    return Load(depth, count=counts[depth], warmup=500 if slow else 2000, **rest)


def pin(machine, process, disk):
    """vCPU on CPU 0, the disk's threads on CPU 1, as soon as all exist."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        names = processes.threads(process.pid)
        threads = [tid for name, tid in names.items() if name.startswith(machine.disk_threads)]
        if machine.vcpu_thread in names and len(threads) >= machine.disk_thread_count(disk):
            try:
                os.sched_setaffinity(names[machine.vcpu_thread], {0})
                for thread in threads:
                    os.sched_setaffinity(thread, {1})
            except ProcessLookupError:
                pass
            return
        time.sleep(0.005)


def run(machine, disk, load, pinned=True):
    words = (f"bench=blk depth={load.depth} queues={disk.queues} size={load.size} "
             f"count={load.count} mode={load.mode} warmup={load.warmup} rounds=1")
    if load.write:
        words += " write=1 scratch=0"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = machine.start(words, [disk], devices=False)
    if pinned:
        threading.Thread(target=pin, args=(machine, process, disk), daemon=True).start()
    text = process.stdout.read().decode(errors="replace")
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = re.search(r"^bench .*$", text, re.M)
    if not line or " 0 failed" not in text:
        raise RuntimeError(f"{machine.name}: no figure from the guest: {text[-500:]!r}")
    said = dict(pair.split("=", 1) for pair in line[0].split() if "=" in pair)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Bench(float(said["iops"]), used * 1e6 / (load.count + load.warmup),
                 int(said["notifications"]) / load.count, int(said["p99_ns"]) / 1e3)


def best_peer(peers, disk, load):
    """The fastest of QEMU's settings for this load, by two short runs of each."""
    short = load._replace(count=min(load.count, 8000))
    rates = {peer: statistics.median(run(peer, disk, short).iops for _ in range(2))
             for peer in peers}
    return max(rates, key=rates.get)


def beside_peer(ours, peers, place, load, pinnings, goal, count, out):
    """The rows of one load, pinned and free."""
    peer = best_peer(peers, place.disk, load)
    label = f"{load.mode}, depth {load.depth}"
    out(f"{label}; peer: the best of QEMU's settings, {peer.name}")
    out(pairs.HEADER)
    for pinned in pinnings:
        cpu = {ours: [], peer: []}

        def one(machine):
            result = run(machine, place.disk, load, pinned)
            cpu[machine].append(result.cpu_us)
            return result.iops

        series = pairs.measure(lambda: one(ours), lambda: one(peer), count)
        out(series.row(f"{label}, {'pinned' if pinned else 'free'}", "kIOPS",
                       goal if pinned else "", 1e-3))
        out(f"{'':<8}CPU time per request: ours {statistics.median(cpu[ours]):.2f} us, "
            f"peer {statistics.median(cpu[peer]):.2f} us")


def beside_host(ours, place, write, count, out):
    """The whole path beside what the host can give without a VM."""
    for depth in DEPTHS:
        load = load_for(place, depth, write=write)
        if place.disk.direct:
            label, goal, limit = "fio on the host", ">= 0.95", lambda: host.fio_iops(
                place.disk, depth, write)
        elif depth > 1:
            label, goal, limit = "a bare loop", "" if write else ">= 0.85", lambda: host.run(
                "loop", place.disk, depth, write=write)
        else:
            continue
        series = pairs.measure(lambda: run(ours, place.disk, load).iops, limit, count)
        out(series.row(f"poll, depth {depth}, pinned / {label}", "kIOPS", goal, 1e-3))


def report(ours, peers, places, count, out):
    goals = {("tmpfs", False, 1): ">= 3.0", ("tmpfs", False, 32): ">= 2.0"}
    for place in places:
        for write in (False, True):
            out(f"\n## 4 KiB random {'writes' if write else 'reads'} on {place.name}")
            for mode in ("poll", "irq"):
                for depth in DEPTHS:
                    goal = ">= 0.95" if place.disk.direct else goals.get((place.name, write, depth),
                                                                         "")
                    beside_peer(ours, peers, place, load_for(place, depth, mode=mode, write=write),
                                (True,) if write else (True, False), goal if mode == "poll" else "",
                                count, out)
            beside_host(ours, place, write, count, out)
