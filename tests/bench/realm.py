"""Guests of realms: how fast one daemon launches them, and what each costs it."""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

import machines
import processes

LAUNCHES = 40
MORE_GUESTS = 20


class Daemon:
    """`troupe serve`, a bundle with the payload, and a script that speaks to it."""

    def __init__(self, programs, payload):
        self.folder = tempfile.mkdtemp(prefix="troupe-bench.", dir="/tmp")
        self.troupe = os.path.join(programs, "troupe")
        socket = os.path.join(self.folder, "realms")
        self.daemon = subprocess.Popen([self.troupe, "serve", "--socket", socket],
                                       stderr=subprocess.PIPE)
        self.daemon.stderr.readline()
        self.rpc = subprocess.Popen([self.troupe, "rpc", "--socket", socket],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ids = itertools.count(1)
        self.payload = payload
        self.realm = self.call(0, "create", label="bench")["realm"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.rpc.kill()
        self.rpc.communicate()
        self.daemon.terminate()
        self.daemon.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def bundle(self, words):
        path = os.path.join(self.folder, words.replace("=", "-").replace(" ", "-"))
        if not os.path.isdir(path):
            os.mkdir(path)
            shutil.copy(self.payload, os.path.join(path, "kernel"))
            with open(os.path.join(path, "guest.cfg"), "w") as file:
                json.dump({"linux": "/kernel", "cmdline": words, "memory": "64M", "cpus": "1",
                           "default-net": "false", "virtio-gpu": "false"}, file)
        return {"url": path}

    def call(self, on, method, **params):
        return self.ask(on=on, call=method, params=params)["result"]

    def ask(self, **request):
        request["id"] = next(self.ids)
        self.rpc.stdin.write(json.dumps(request).encode() + b"\n")
        self.rpc.stdin.flush()
        answer = json.loads(self.rpc.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def launch(self, words):
        return self.call(self.realm, "launchInstance", launchInfo=self.bundle(words))["controller"]

    def own_kib(self):
        """Private memory of the daemon and its clients' front ends."""
        pids = [self.daemon.pid] + [
            pid for pid in processes.tree(self.daemon.pid)
            if processes.started_as(pid) == "troupe-realm-front"]
        assert len(pids) > 1
        return sum(processes.private_kib(pid) for pid in pids)


def figures(programs, payload):
    """(ms from launches to the answers of waitForStart, and to the first bytes that the guests say;
    launches to their ends per second; private KB of daemon and front ends for each further guest)"""
    with Daemon(programs, payload) as daemon:
        started, spoke = [], []
        for _ in range(LAUNCHES):
            begun = time.perf_counter()
            guest = daemon.launch("hello end=poweroff")
            daemon.call(guest, "waitForStart")
            started.append((time.perf_counter() - begun) * 1e3)
            daemon.call(guest, "waitForEnd")
        for _ in range(LAUNCHES):
            begun = time.perf_counter()
            guest = daemon.launch("end=halt")
            serial = daemon.call(guest, "getSerial")["socket"]
            daemon.ask(read=serial)
            spoke.append((time.perf_counter() - begun) * 1e3)
            daemon.ask(drop=serial)
            daemon.call(guest, "stop", force=True)
        begun = time.perf_counter()
        for _ in range(LAUNCHES):
            daemon.call(daemon.launch("hello end=poweroff"), "waitForEnd")
        rate = LAUNCHES / (time.perf_counter() - begun)
        daemon.call(daemon.launch("end=halt"), "waitForStart")
        before = daemon.own_kib()
        for _ in range(MORE_GUESTS):
            daemon.call(daemon.launch("end=halt"), "waitForStart")
        grown = (daemon.own_kib() - before) / MORE_GUESTS
    return started, spoke, rate, grown


def report(out):
    started, spoke, rate, grown = figures(
        os.path.join(machines.ROOT, "bazel-bin/bin"), machines.PAYLOAD)
    out("\n## Realms")
    for what, times in ("the answer that it runs", started), ("the first byte that it says", spoke):
        out(f"realm: launch to {what} {statistics.median(times):.1f} ms "
            f"({min(times):.1f} to {max(times):.1f}; goal 30)")
    out(f"realm: {rate:.1f} launches to their ends a second")
    out(f"realm: private memory of `troupe serve` and its front ends for each further guest "
        f"{grown / 1024:.2f} MiB (goal 1)")
