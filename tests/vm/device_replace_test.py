#!/usr/bin/env -S python3 -B
"""`troupe device replace`: another process plays a device, and its guest does not notice."""

import json
import os
import random
import resource
import shutil
import signal
import time

import durability
import report
import supervised

TIMES = 10
NOT_STARTED = 4  # exit code


class DeviceReplace(supervised.SupervisedVm):
    def replace(self, device, *options, expect=0):
        code, out, err = self.folder.run("device", "replace", self.name, device, *options)
        self.assertEqual(code, expect, out + err)
        return out + err

    def load(self, path, *options, **kwargs):
        """A VM that writes the disk at `path` all the time, and what its writes can be known by."""
        self.pattern = (random.randrange(1, 1 << 20), 4096)
        with open(path, "wb") as file:
            file.write(bytes(8 << 20))
        vm = self.start("bench=durability scratch count=2000000000 seed=%d size=%d depth=32 mode=irq"
                        % self.pattern, "--disk", f"{path},id=it", *options, **kwargs)
        self.until(vm, "flushed ")
        return vm

    def goesOn(self, vm):
        count = self.said().count("flushed ")
        until = time.monotonic() + 60
        while self.said().count("flushed ") < count + 3:
            self.assertIsNone(vm.poll(), "the VM ended")
            self.assertLess(time.monotonic(), until, "the guest waits for ever")
            time.sleep(0.01)
        self.assertNotIn("FAIL", self.said())

    def endLoad(self, vm, path):
        vm.terminate()
        said = self.end(vm, 18)
        lines = self.said().split("\n")[:-1]
        flushed = int([line.split()[1] for line in lines if line.startswith("flushed ")][-1])
        places = int(self.said().split("durability: ")[1].split()[0])
        with open(path, "rb") as file:
            wrong = durability.wrong_sectors(bytes(8 << 20), file.read(8 << 20), (*self.pattern, places),
                                             flushed)
        self.assertEqual(wrong, [])
        return said

    def testUnderLoad(self):
        path = self.folder.disk("a")
        vm = self.load(path)
        pids = {self.actors()["blk0"]["pid"]}
        for _ in range(TIMES):
            self.replace("blk0")
            self.goesOn(vm)
            pids.add(self.actors()["blk0"]["pid"])
        self.assertEqual(len(pids), TIMES + 1)
        self.assertEqual(self.actors()["blk0"]["restarts"], TIMES)
        self.assertEqual(self.folder.run("graph", self.name)[0], 0)
        self.assertRegex(self.folder.run("list")[1], rf"(?m)^{self.name} .* {TIMES} *$")
        said = self.endLoad(vm, path)
        self.assertNotIn("takes its place", said)

    def testAnotherBuildAndAnotherProfileStayForTheNextProcesses(self):
        path = self.folder.disk("a")
        vm = self.load(path)
        build = shutil.copy(os.path.join(self.folder.bin, "troupe-devices"),
                            self.folder.file("another"))
        tighter = self.folder.file("tighter.profile")
        with open("devices/rng/rng.profile") as file:
            text = file.read()
        with open(tighter, "w") as file:
            file.write(text.replace('at_most: "65536"', 'at_most: "4096"'))
        self.replace("blk0", "--binary", build)
        self.replace("rng0", "--profile", tighter)
        self.goesOn(vm)
        for _ in range(2):
            pid = self.actors()["blk0"]["pid"]
            self.assertEqual(os.readlink(f"/proc/{pid}/exe"), build)
            self.assertIn(tighter, self.folder.run("inspect", self.name, "jail")[1])
            self.kill_again_and_again(vm, "troupe-blk", 1, random.Random(1))
            self.kill_again_and_again(vm, "troupe-rng", 1, random.Random(1))
            self.goesOn(vm)
            until = time.monotonic() + 60
            while self.actors()["blk0"]["pid"] == pid:
                self.assertLess(time.monotonic(), until, "it is not replaced")
                time.sleep(0.01)
        self.endLoad(vm, path)

    def testASpareTakesThePlaceOfOneThatDies(self):
        path = self.folder.disk("a")
        vm = self.load(path, spare=1)
        for _ in range(TIMES):
            until = time.monotonic() + 60
            while set(self.spares()) != {"blk0", "rng0"}:
                self.assertLess(time.monotonic(), until, "there are no spares")
                time.sleep(0.01)
            spares, serving = self.spares(), self.actors()
            self.assertNotIn(spares["blk0"], [actor["pid"] for actor in serving.values()])
            os.kill(serving["blk0"]["pid"], signal.SIGKILL)
            self.goesOn(vm)
            while self.actors()["blk0"]["pid"] == serving["blk0"]["pid"]:
                self.assertLess(time.monotonic(), until, "it is not replaced")
                time.sleep(0.01)
        # One that was known as ready is what took the place each time but where it was too fresh.
        self.assertEqual(self.actors()["blk0"]["restarts"], TIMES)
        until = time.monotonic() + 60
        while set(self.spares()) != {"blk0", "rng0"}:
            self.assertLess(time.monotonic(), until, "there are no spares")
            time.sleep(0.01)
        self.assertEqual(self.folder.run("graph", self.name)[0], 0)
        self.assertRegex(self.folder.run("status", self.name)[1], r"(?m)^blk0 .* spare *$")
        # It learns of a disk that has grown since when it is its turn.
        serving = self.actors()["blk0"]["pid"]
        self.assertEqual(self.folder.run("disk", "resize", "it", "16M", "--vm", self.name)[0], 0)
        os.kill(serving, signal.SIGKILL)
        self.goesOn(vm)
        code, _, err = self.folder.run("disk", "resize", "it", "12M", "--vm", self.name)
        self.assertNotEqual(code, 0)
        self.assertIn("16777216", err)
        self.endLoad(vm, path)

    def testARequestThatProcessesDieOfIsPutAside(self):
        vm = self.start("idle")
        self.until(vm, " 0 failed")
        self.replace("rng0", "--binary", os.path.realpath("devices/crashing_devices"))
        self.assertEqual(self.folder.run("reset", self.name)[0], 0)
        self.until(vm, " 1 failed")  # got no bytes, which is its error
        # The next process serves on, and the bytes are there for whoever wants to look.
        until = time.monotonic() + 60
        found = []
        while not found:
            self.assertLess(time.monotonic(), until, "nothing is put aside")
            found = [path for path in self.folder.left_over() if path.endswith("quarantine")]
        path = found[0]
        self.assertEqual(os.path.basename(path), f"{self.name}.rng0.quarantine")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path) as file:
            self.assertIn("of queue 0, head 0: 0 bytes to read, 256 to write", file.read())
        self.assertFalse(self.actors()["rng0"]["isDown"])
        self.assertEqual(self.actors()["rng0"]["restarts"], 3)
        told = []
        while not told:
            self.assertLess(time.monotonic(), until, "it is no event")
            events = map(json.loads, self.folder.run("events", self.name)[1].splitlines())
            told = [event for event in events if event["event"] == "request-put-aside"]
        self.assertEqual([event["device"] for event in told], ["rng0"])
        self.assertIn(path, told[0]["detail"])
        vm.terminate()
        out, err = vm.communicate(timeout=60)
        self.assertEqual(vm.returncode, 18, err)
        self.assertIn(path.encode(), err)
        self.assertIn(b"two processes in a row of rng0 died of a request", err)
        code, out, err = self.folder.run("gc")
        self.assertIn(path, out)
        self.assertEqual(self.folder.left_over(), [])

    def testOneThatIsRecordedIsNotReplaced(self):
        vm = self.start("idle", "--record", f"rng0={self.folder.file('rng.rec')}")
        self.until(vm, " 0 failed")
        self.assertIn("TRP-dev-002", self.replace("rng0", "--binary", "/bin/true", expect=2))
        vm.kill()
        vm.communicate()

    def testAHostWithoutRoomForTheNewProcessLeavesAllAsItWas(self):
        vm = self.start("idle", "--vsock", f"cid={self.folder.cid()}")
        self.until(vm, " 0 failed")
        before = self.actors()["vsock0"]["pid"]
        resource.prlimit(vm.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        for _ in range(2):
            said = self.replace("vsock0", expect=NOT_STARTED)
            self.assertIn("goes on as it was; the new process could not be started", said)
            self.assertIn("TRP-jail-005", said)
        self.assertEqual(self.actors()["vsock0"]["pid"], before)
        self.replace("rng0")  # which needs few
        vm.terminate()
        self.end(vm, 18)

    def testWhatDoesNotDoLeavesTheProcessAsItWas(self):
        path = self.folder.disk("a")
        vm = self.load(path)
        text = self.folder.file("text")
        with open(text, "w") as file:
            file.write("hello")
        os.chmod(text, 0o755)
        with open("devices/rng/rng.profile") as file:
            profile = file.read()
        wrong = {}
        for name, old, new in (("misspelt", "getrandom", "getrandon"),
                               ("another_fd", "number: 17", "number: 27"),
                               ("no_memory", "actor:", "memory { access: NONE } actor:"),
                               ("never", "policy: ALWAYS restarts: 10 seconds: 60",
                                "policy: NEVER"),
                               ("looser", 'at_most: "65536"', 'at_most: "131072"')):
            wrong[name] = self.folder.file(name)
            with open(wrong[name], "w") as file:
                file.write(profile.replace(old, new))
        before = {name: actor["pid"] for name, actor in self.actors().items()}
        for device, options, expect, words in (
                ("blk7", (), 2, ("TRP-dev-001", "its devices are", "blk0")),
                ("blk0", ("--binary", "/nonexistent"), 2, ("TRP-dev-004", "/nonexistent")),
                ("blk0", ("--binary", "/etc/passwd"), 2, ("TRP-dev-004", "not executable")),
                ("blk0", ("--binary", text), None, ("goes on as it was",)),
                ("blk0", ("--binary", "/bin/true"), None, ("goes on as it was",)),
                ("blk0", ("--binary", os.path.join(self.folder.bin, "troupe")), None,
                 ("goes on as it was",)),
                ("rng0", ("--profile", "/nonexistent"), 2, ("TRP-dev-005",)),
                ("rng0", ("--profile", wrong["misspelt"]), 2,
                 ("TRP-dev-005", wrong["misspelt"] + ":", "getrandon")),
                ("rng0", ("--profile", wrong["another_fd"]), None, ("TRP-", "fd")),
                ("rng0", ("--profile", wrong["no_memory"]), None, ("TRP-",)),
                ("rng0", ("--profile", wrong["never"]), 2, ("TRP-dev-005", "restart")),
                ("rng0", ("--profile", wrong["looser"]), 2,
                 ("TRP-dev-006", "1. ", wrong["looser"] + ":", "--allow-looser"))):
            with self.subTest(f"{device} {options}"):
                code, out, err = self.folder.run("device", "replace", self.name, device, *options)
                self.assertNotEqual(code, 0, out)
                if expect is not None:
                    self.assertEqual(code, expect, err)
                self.assertEqual(err.count("TRP-"), 1, err)
                for word in words:
                    self.assertIn(word, err)
        self.assertEqual(self.folder.run("device", "replace", "nobody", "blk0")[0], 2)
        self.assertEqual({name: actor["pid"] for name, actor in self.actors().items()}, before)
        # A jail that was tightened stays so, unless somebody says that it need not.
        tighter = self.folder.file("tighter")
        with open(tighter, "w") as file:
            file.write(profile.replace('at_most: "65536"', 'at_most: "4096"'))
        self.replace("rng0", "--profile", tighter)
        self.assertIn("TRP-dev-006", self.replace("rng0", "--profile", "devices/rng/rng.profile",
                                                  expect=2))
        self.replace("rng0", "--profile", "devices/rng/rng.profile", "--allow-looser")
        self.goesOn(vm)
        self.endLoad(vm, path)


if __name__ == "__main__":
    report.main()
