"""qcow2 images: ours beside our raw disks and beside QEMU's qcow2, in the same rounds."""

import os
import subprocess

import block
import pairs

# Far more clusters than requests, so that nearly each write is a cluster's first.
SPARSE_SIZE = "16G"
FIRST_WRITES = {1: 2000, 32: 3000}


def convert(raw, path):
    """An image at `path` in which every cluster of `raw` is allocated."""
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    os.sync()
    return path


def image_of(place, folder):
    """The same place with the disk's bytes in an image in `folder`."""
    path = convert(place.disk.path, os.path.join(folder, "image.qcow2"))
    return block.Place(place.name, place.disk._replace(path=path, format="qcow2"))


def check(path):
    done = subprocess.run(["qemu-img", "check", "-q", path], capture_output=True, text=True,
                          check=False)
    return "no errors" if done.returncode == 0 else f"qemu-img check: {done.stdout}{done.stderr}"


def allocated(ours, peers, raw, image, count, out):
    out(f"\n## qcow2, allocated clusters, 4 KiB at random, polling, pinned, on {raw.name}")
    out(pairs.HEADER)
    for write in (False, True):
        for depth in block.DEPTHS:
            load = block.load_for(raw, depth, write=write)
            peer = block.best_peer(peers, image.disk, load)
            values, discarded = pairs.measure_all(
                [lambda: block.run(ours, image.disk, load).iops,
                 lambda: block.run(ours, raw.disk, load).iops,
                 lambda: block.run(peer, image.disk, load).iops], count)
            label = f"{'write' if write else 'read'}, depth {depth}"
            out(pairs.Series(values[0], values[1], discarded).row(
                f"{label} / our raw", "kIOPS", ">= 0.8", 1e-3))
            out(pairs.Series(values[0], values[2], discarded).row(
                f"{label} / {peer.name}", "kIOPS", ">= 1.2", 1e-3))
    out(f"the image after all of this: {check(image.disk.path)}")


def first_writes(ours, peers, place, folder, count, out):
    """Each run has a new image, so that its writes allocate."""
    disk = place.disk._replace(path=os.path.join(folder, "new.qcow2"), format="qcow2")
    found = set()

    def one(machine, load):
        if os.path.exists(disk.path):
            os.unlink(disk.path)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk.path, SPARSE_SIZE],
                       check=True)
        result = block.run(machine, disk, load).iops
        found.add(check(disk.path))
        return result

    out(f"\n## qcow2, first writes to clusters, 4 KiB at random, polling, pinned, on {place.name}")
    out(pairs.HEADER)
    for depth in block.DEPTHS:
        load = block.Load(depth, write=True, count=FIRST_WRITES[depth], warmup=0)
        rates = {peer: one(peer, load) for peer in peers}
        peer = max(rates, key=rates.get)
        series = pairs.measure(lambda: one(ours, load), lambda: one(peer, load), count)
        out(series.row(f"depth {depth} / {peer.name}", "kIOPS", "", 1e-3))
    out(f"the images: {', '.join(sorted(found))}")
    os.unlink(disk.path)


def through_cache(place):
    """The same file through the page cache."""
    return block.Place(place.name.replace("O_DIRECT", "page cache"),
                       place.disk._replace(direct=False))


def enter_cache(path):
    """The whole of a file is in memory."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass


def leave_cache(path):
    """Nothing of a file stays in the page cache to meet O_DIRECT there later."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def report(ours, peers, raws, images, folders, count, out):
    for raw, image in zip(raws, images):
        for disk in (raw.disk, image.disk):
            if not disk.direct:
                enter_cache(disk.path)
        allocated(ours, peers, raw, image, count, out)
        leave_cache(raw.disk.path)
        leave_cache(image.disk.path)
    for raw, folder in zip(raws, folders):
        first_writes(ours, peers, raw, folder, count, out)
