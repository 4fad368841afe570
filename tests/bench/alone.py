"""The block device alone: the jailed executable driven through shared memory, without a VM."""

import block
import host
import pairs


def report(places, images, count, out):
    """`images`: the same places with the disk in a qcow2 image."""
    out("\n## The device alone, without a VM: 4 KiB at random, polling, pinned")
    out(pairs.HEADER)
    for place in places:
        for write in (False, True):
            for depth in block.DEPTHS:
                if place.disk.direct:
                    name = "fio"
                    goal = ">= 0.95"

                    def peer():
                        return host.fio_iops(place.disk, depth, write)
                else:
                    name = "pwritev loop" if write else "preadv loop"
                    goal = ">= 0.85" if depth > 1 and not write else ""

                    def peer():
                        return host.run("loop", place.disk, depth, write)
                series = pairs.measure(lambda: host.run("device", place.disk, depth, write), peer,
                                       count)
                out(series.row(f"{place.name}, {'write' if write else 'read'}, depth {depth} / "
                               f"{name}", "kIOPS", goal, 1e-3))
    for place, image in zip(places, images):
        for write in (False, True):
            series = pairs.measure(lambda: host.run("device", image.disk, 32, write),
                                   lambda: host.run("device", place.disk, 32, write), count)
            out(series.row(f"{place.name}, {'write' if write else 'read'}, depth 32: qcow2 / raw",
                           "kIOPS", ">= 0.8", 1e-3))
