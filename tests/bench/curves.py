"""How the figures grow with depth, request size and queues: tables, and curves for the plot."""

import statistics

import block
import host
import pairs
import plot

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
QUEUES = (1, 2, 4)
SIZE_DEPTH = 4
QUEUE_DEPTH = 32


class Table:
    """A row for each point, and the lines they make."""

    def __init__(self, variable, names, unit, out):
        self.out = out
        self.width = 2 + max(10, *map(len, names))
        self.lines = {name: [] for name in names}
        out(f"{variable:>8} " + "".join(f"{name:>{self.width}}" for name in names)
            + f"  {unit}; ours / {names[1]}")

    def row(self, x, label, values, discarded, scale, note=""):
        medians = [statistics.median(side) * scale for side in values]
        for points, value in zip(self.lines.values(), medians):
            points.append((x, value))
        first = pairs.Series(values[0], values[1], discarded)
        noisy = f" [{discarded} noisy rounds repeated]" if discarded else ""
        self.out(f"{label:>8} " + "".join(f"{value:>{self.width}.2f}" for value in medians)
                 + f"  {first.ratio():.2f} [{min(first.ratios):.2f}-{max(first.ratios):.2f}]"
                 + note + noisy)


def depth_curve(ours, peer, place, count, out):
    out("\n## Depth: 4 KiB random reads, polling, pinned, on " + place.name)
    table = Table("depth", ["ours", peer.name], "kIOPS", out)
    for depth in DEPTHS:
        seen = {ours: [], peer: []}

        def one(machine):
            result = block.run(machine, place.disk, block.Load(depth, count=15000 + 600 * depth))
            seen[machine].append(result)
            return result.iops

        values, discarded = pairs.measure_all([lambda: one(ours), lambda: one(peer)], count)
        p99 = [statistics.median(run.p99_us for run in seen[machine]) for machine in seen]
        kicks = [statistics.median(run.kicks for run in seen[machine]) for machine in seen]
        table.row(depth, str(depth), values, discarded, 1e-3,
                  f"; p99 {p99[0]:.0f} and {p99[1]:.0f} us, kicks per request {kicks[0]:.3f} and "
                  f"{kicks[1]:.3f}")
    rates = [value for _, value in table.lines["ours"]]
    steps = min(later / earlier for earlier, later in zip(rates, rates[1:]))
    out(f"smallest step from one depth to the next: {steps:.2f} (goal >= 0.95 "
        f"{'met' if steps >= 0.95 else 'MISSED'})")
    return plot.Curve("by depth, 4 KiB reads", "requests in flight", "kIOPS", table.lines)


def size_curve(ours, peer, place, count, out):
    out(f"\n## Size: random reads at depth {SIZE_DEPTH}, polling, pinned, on {place.name}")
    names = ["ours", "bare preadv loop", peer.name]
    table = Table("size", names, "GB/s", out)
    worst = None
    for size in SIZES:
        requests = max(1000, min(30000, 1200000000 // size))
        load = block.Load(SIZE_DEPTH, size=size, count=requests, warmup=requests // 10)
        values, discarded = pairs.measure_all(
            [lambda: block.run(ours, place.disk, load).iops * size,
             lambda: host.run("loop", place.disk, SIZE_DEPTH, size=size) * size,
             lambda: block.run(peer, place.disk, load).iops * size], count)
        table.row(size, str(size) if size < 1024 else f"{size >> 10}K", values, discarded, 1e-9)
        if size >= 64 << 10:
            ratio = pairs.Series(values[0], values[1], discarded).ratio()
            worst = ratio if worst is None else min(worst, ratio)
    out(f"smallest ratio to the loop from 64K on: {worst:.2f} (goal >= 0.9 "
        f"{'met' if worst >= 0.9 else 'MISSED'})")
    return plot.Curve(f"by size, reads at depth {SIZE_DEPTH}", "bytes of a request", "GB/s",
                      table.lines)


def queue_curve(ours, peer, place, count, out):
    out(f"\n## Queues: 4 KiB random reads, {QUEUE_DEPTH} in flight over all queues, one vCPU, "
        f"polling, on {place.name}")
    out("pinned: the vCPU on CPU 0, all threads of the disk on CPU 1")
    table = Table("queues", ["ours", peer.name], "kIOPS", out)
    for queues in QUEUES:
        disk = place.disk._replace(queues=queues)
        load = block.Load(QUEUE_DEPTH, count=50000)
        values, discarded = pairs.measure_all(
            [lambda: block.run(ours, disk, load).iops,
             lambda: block.run(peer, disk, load).iops], count)
        table.row(queues, str(queues), values, discarded, 1e-3)
    rates = [value for _, value in table.lines["ours"]]
    worst = min(rate / rates[0] for rate in rates)
    out(f"smallest ratio to one queue: {worst:.2f} (goal >= 0.95 "
        f"{'met' if worst >= 0.95 else 'MISSED'})")
    return plot.Curve(f"by queues, 4 KiB reads, {QUEUE_DEPTH} in flight", "queues", "kIOPS",
                      table.lines)


def report(ours, peers, place, count, out):
    peer = block.best_peer(peers, place.disk, block.Load(32, count=8000))
    return [curve(ours, peer, place, count, out)
            for curve in (depth_curve, size_curve, queue_curve)]
