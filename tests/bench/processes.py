"""What a process and all its descendants use, read from /proc."""

import os


def tree(root):
    """pids of `root` and of everything below it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def threads(root):
    """{thread name: tid} over the whole tree; of equal names the first, whose others may have theirs later."""
    names = {}
    for pid in tree(root):
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{tid}/comm") as comm:
                    names.setdefault(comm.read().strip(), int(tid))
        except OSError:
            continue
    return names


def cpu_by_process(root):
    """{pid: CPU time of its live threads}, with the scheduler's nanosecond count, in seconds."""
    used = {}
    for pid in tree(root):
        total = 0
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{tid}/schedstat") as schedstat:
                    total += int(schedstat.read().split()[0])
        except OSError:
            continue
        used[pid] = total / 1e9
    return used


def program(pid):
    """The first word of its command line, without its folder; "" of one that is gone."""
    try:
        with open(f"/proc/{pid}/cmdline") as words:
            return os.path.basename(words.read().split("\0")[0])
    except OSError:
        return ""


def memory_kib(root):
    """{"pss": …, "private": …} over the tree, guest RAM left out, in KiB.

    `private` counts private dirty pages: what one more VM costs. Guest RAM is every mapping of a
    memfd, in every process.
    """
    total = {"pss": 0, "private": 0}
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/smaps") as smaps:
                lines = smaps.readlines()
        except OSError:
            continue
        counted = True
        for line in lines:
            first = line.split(None, 1)[0]
            if not first.endswith(":"):
                counted = "memfd:" not in line
            elif counted and first == "Pss:":
                total["pss"] += int(line.split()[1])
            elif counted and first == "Private_Dirty:":
                total["private"] += int(line.split()[1])
    return total


def name(pid):
    """As the kernel calls it: 15 characters; "" of one that is gone."""
    try:
        with open(f"/proc/{pid}/comm") as comm:
            return comm.read().strip()
    except OSError:
        return ""


def started_as(pid):
    """Its first argument: which of its programs an executable of several plays."""
    try:
        with open(f"/proc/{pid}/cmdline") as words:
            return words.read().partition("\0")[0]
    except OSError:
        return ""


def private_kib(pid):
    """Memory that this process has written, and shares with nobody. Pages of files are not counted: whose
    they are alone changes with what else runs."""
    with open(f"/proc/{pid}/smaps_rollup") as smaps:
        return sum(int(line.split()[1]) for line in smaps if line.startswith("Private_Dirty:"))
