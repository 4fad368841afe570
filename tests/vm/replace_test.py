#!/usr/bin/env -S python3 -B
"""Devices whose process is killed under a running guest are replaced, and the guest goes on."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

import durability
import report
import supervised

KILLS = int(os.environ.get("TROUPE_TEST_KILLS", 50))


class Replaced(supervised.SupervisedVm):
    def testADiskThatIsWrittenAndFlushedMeanwhile(self):
        for place, flags in (("/dev/shm", ""), ("/var/tmp", ""), ("/var/tmp", ",direct")):
            for mode in ("poll", "irq"):
                with self.subTest(f"{place}{flags} {mode}"):
                    self.writeAndKillRaw(place, flags, mode)

    def testAnImageThatIsWrittenAndFlushedMeanwhile(self):
        for variant in durability.VARIANTS:
            with self.subTest(variant[0]):
                self.writeAndKillImage(variant)

    def testAVolatileDiskThatIsWrittenMeanwhile(self):
        raw = self.folder.file("raw")
        with open(raw, "wb") as file:
            file.write(random.randbytes(8 << 20))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw,
                        self.folder.file("image")], check=True)
        image = self.folder.file("image")
        for words in (f"{raw},volatile", f"{image},volatile,format=qcow2,backing={raw}:raw"):
            with self.subTest(words):
                before = [self.content(path) for path in (raw, image)]
                self.writeAndKill(words, "irq")
                self.assertEqual([self.content(path) for path in (raw, image)], before)

    def testADiskWithARate(self):
        """It is no faster for its deaths, but for a burst each."""
        rate, burst = 2000, 100
        path = self.folder.disk("slow", 8 << 20)
        began = time.monotonic()
        _, flushed = self.writeAndKill(f"{path},rate={rate}iops/{burst}", "irq")
        took = time.monotonic() - began
        self.assertLessEqual(flushed, took * rate + (KILLS + 1) * burst)

    def testADiskThatHasGrownIsStillAsLarge(self):
        raw = self.folder.disk("raw", 8 << 20)
        image = self.folder.file("image")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
        rng = random.Random(11)
        for words, path in ((f"{raw},id=it", raw), (f"{image},format=qcow2,id=it", image)):
            with self.subTest(words):
                vm = self.start("bench=durability scratch count=2000000000 size=4096 depth=32",
                                "--disk", words)
                self.until(vm, "flushed ")
                code, _, err = self.folder.run("disk", "resize", "it", "16M", "--vm", self.name)
                self.assertEqual(code, 0, err)
                self.kill_again_and_again(vm, "troupe-blk", 3, rng)
                self.goOn(vm, "it has grown")
                # Its process has the new size: it is what one that grows must not fall below.
                code, _, err = self.folder.run("disk", "resize", "it", "12M", "--vm", self.name)
                self.assertNotEqual(code, 0)
                self.assertIn("16777216", err)
                vm.terminate()
                self.end(vm, 18)
                if path == raw:
                    self.assertEqual(os.stat(raw).st_size, 16 << 20)
                else:
                    self.assertEqual(self.imageOf(path).errors(), ("", 0))

    def content(self, path):
        with open(path, "rb") as file:
            return file.read()

    def imageOf(self, path):
        """One that is there."""
        image = durability.Image.__new__(durability.Image)
        image.path = path
        return image

    def writeAndKillRaw(self, place, flags, mode):
        path = os.path.join(place, os.path.basename(self.folder.path))
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        before = bytes(8 << 20)
        with open(path, "wb") as file:
            file.write(before)
        written, flushed = self.writeAndKill(path + flags, mode)
        wrong = durability.wrong_sectors(before, self.content(path), written, flushed)
        self.assertEqual(wrong, [], f"seed {written[0]}")
        os.unlink(path)

    def writeAndKillImage(self, variant):
        rng = random.Random(7)
        image = durability.Image(self.folder.path, variant[0].replace(",", ""), variant, rng)
        if image.special == "snapshots":
            durability.qemu_img("snapshot", "-c", "one", image.path)
        written, flushed = self.writeAndKill(image.words, rng.choice(("poll", "irq")))
        # Sound to the last cluster: nothing has leaked.
        self.assertEqual(image.errors(), ("", 0))
        wrong = durability.wrong_sectors(image.bytes, image.look(), written, flushed)
        self.assertEqual(wrong, [], f"seed {written[0]}")

    def restartsOf(self, kills):
        """How many there are after so many of kill_again_and_again()."""
        return [kills]

    def writeAndKill(self, disk, mode):
        """What the guest wrote (durability.wrong_sectors), and up to which number it is flushed."""
        seed, size, depth = random.randrange(1, 1 << 20), 4096, 32
        rng = random.Random(seed)
        vm = self.start(f"bench=durability scratch count=2000000000 seed={seed} size={size} "
                        f"depth={depth} mode={mode}", "--disk", disk)
        self.until(vm, "flushed ")
        killed = self.kill_again_and_again(vm, "troupe-blk", KILLS, rng)
        self.assertEqual(killed, KILLS, f"seed {seed}: {self.howItEnded(vm)}")
        self.goOn(vm, f"seed {seed}")
        self.assertIn(self.actors()["blk0"]["restarts"], self.restartsOf(KILLS))
        vm.terminate()
        self.end(vm, 18)
        said = self.said()
        flushed = int([line.split()[1] for line in said.split("\n")[:-1]
                       if line.startswith("flushed ")][-1])
        places = int(said.split("durability: ")[1].split()[0])
        return (seed, size, places), flushed

    def howItEnded(self, vm):
        """What a VM said that should be running, and the end of what its guest said."""
        if vm.poll() is None:
            return "it runs"
        return f"{vm.returncode} {vm.stderr.read()!r} {self.said()[-500:]!r}"

    def goOn(self, vm, what):
        """The guest goes on to write and flush."""
        count = self.said().count("flushed ")
        until = time.monotonic() + 60
        while self.said().count("flushed ") < count + 20:
            self.assertIsNone(vm.poll(), f"{what}: {self.said()[-500:]}")
            self.assertLess(time.monotonic(), until, f"{what}: the guest waits for ever")
            time.sleep(0.01)
        self.assertNotIn("FAIL", self.said())

    def testReadsAreAnsweredOnceEach(self):
        """The benchmark counts its answers: one too many or too few, or an error, fails it."""
        vm = self.start("bench=blk depth=32 count=400000 mode=irq", "--disk",
                        self.folder.disk("a", 8 << 20))
        self.until(vm, "bench0    memory")
        self.kill_again_and_again(vm, "troupe-blk", KILLS, random.Random(3))
        self.end(vm)
        self.assertIn("bench blk", self.said())
        self.assertNotIn("FAIL", self.said())

    def testFramesAreSentAndEachBufferComesBackOnce(self):
        """The benchmark counts its buffers: one too many or too few fails it."""
        for mode in ("poll", "irq"):
            with self.subTest(mode):
                self.sendAndKill(mode)

    def sendAndKill(self, mode):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        over = threading.Event()

        def take():
            ours.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    if not ours.recv(2048):
                        return
        taker = threading.Thread(target=take)
        taker.start()
        try:
            vm = self.start(f"bench=net op=send frame=60 depth=64 count=300000 mode={mode} rounds=1",
                            "--net", f"fd={theirs.fileno()}", pass_fds=[theirs.fileno()])
            theirs.close()
            self.until(vm, "bench net ready")
            self.kill_again_and_again(vm, "troupe-net", KILLS, random.Random(7))
            self.end(vm)
            self.assertRegex(self.said(), r"bench net net=0 .* fps=")
            self.assertNotIn("FAIL", self.said())
        finally:
            over.set()
            taker.join()
            ours.close()

    def testEntropyWhileItIsTried(self):
        for seed in range(4):
            with self.subTest(seed):
                vm = self.start("")
                self.until(vm, "payload: ")
                self.kill_again_and_again(vm, "troupe-rng", 1000, random.Random(seed))
                self.end(vm)
                self.assertIn(" 0 failed", self.said())

    def testEntropyThatIsIdle(self):
        vm = self.start("idle")
        self.until(vm, " 0 failed")
        killed = self.kill_again_and_again(vm, "troupe-rng", KILLS, random.Random(5))
        self.assertEqual(killed, KILLS)
        self.awaitReplaced("rng0", KILLS)
        self.assertEqual(self.actors()["rng0"]["restarts"], KILLS)
        vm.terminate()
        self.end(vm, 18)

    def testAllAtOnceWhoseNamespacesTheKernelGivesToOneAnother(self):
        vm = self.start("idle", *(word for name in "abcd" for word in (
            "--disk", self.folder.disk(name, 1 << 20))))
        self.until(vm, " 0 failed")
        for round in range(1, 21):
            until = time.monotonic() + 60
            for actor in self.replaced():
                os.kill(actor["pid"], signal.SIGKILL)
            while {actor["restarts"] for actor in self.replaced()} != {round}:
                self.assertIsNone(vm.poll(), "the VM ended")
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
        vm.terminate()
        self.end(vm, 18)

    def replaced(self):
        return [actor for name, actor in self.actors().items() if name.startswith(("blk", "rng"))]

    def readerOf(self, path):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(60)
        client.connect(path)
        return client

    def awaitReplaced(self, actor, restarts):
        """Waits until it has been replaced so often and serves."""
        until = time.monotonic() + 60
        while True:
            now = self.actors()[actor]
            if now["restarts"] >= restarts and self.serves(now["pid"]):
                return
            self.assertLess(time.monotonic(), until)
            time.sleep(0.005)

    def testAConsoleWhoseGuestEchoes(self):
        """Each key comes back once, and who connects last reads all of it."""
        path = self.folder.file("console")
        vm = self.start("keys=console", "--console", f"socket={path}")
        rng = random.Random(11)
        self.until(vm, "console0  write")
        typed = b""
        for kill in range(KILLS):
            client = self.readerOf(path)
            keys = bytes(rng.choice(b"abcdefgh") for _ in range(rng.randrange(1, 20)))
            client.sendall(keys)
            typed += keys
            got = b""
            while not got.endswith(typed):
                part = client.recv(65536)
                self.assertTrue(part, "hung up on without a reason")
                got += part
            self.kill_again_and_again(vm, "troupe-console", 1, rng)
            with contextlib.suppress(ConnectionError):
                while client.recv(65536):
                    pass  # up to the end
            client.close()
            self.awaitReplaced("console0", kill + 1)
        client = self.readerOf(path)
        client.sendall(b"q")
        self.end(vm)
        self.assertNotIn("FAIL", self.said())

    def testABalloonThatIsFilled(self):
        """The benchmark counts what comes back: one chain too many or too few stops it."""
        vm = self.start("bench=balloon count=32768 rounds=7 mode=irq", "--balloon", "stats",
                        memory="1G")
        self.until(vm, "ok    bench0    memory")
        killed = self.kill_again_and_again(vm, "troupe-balloon", KILLS, random.Random(13))
        self.end(vm)
        self.assertGreater(killed, 3)
        self.assertIn("bench balloon round=6", self.said())
        self.assertNotIn("FAIL", self.said())

    def testTheTargetOfABalloonOutlivesItsProcess(self):
        vm = self.start("idle", "--balloon", "stats")
        self.until(vm, " 0 failed")
        code, _, said = self.folder.run("balloon", self.name, "48M")
        self.assertEqual(code, 0, said)
        for kill in range(3):
            self.kill_again_and_again(vm, "troupe-balloon", 1, random.Random(kill))
            self.awaitReplaced("balloon0", kill + 1)
            status = self.balloonThatServes()
            self.assertEqual(int(status["targetBytes"]), 16 << 20)
            self.assertEqual(int(status["actualBytes"]), 16 << 20)
            self.assertGreater(int(status["givenBackBytes"]), 16 << 20)
            self.assertTrue(status["hasStatistics"])
        vm.terminate()
        self.end(vm, 18)

    def balloonThatServes(self):
        """What it says of itself, once there is somebody to say it."""
        until = time.monotonic() + 60
        while True:
            code, out, said = self.folder.run("balloon", self.name, "--json")
            if code == 0:
                return json.loads(out)
            self.assertIn("is being replaced", said)
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def testTheSocketDeviceOfAnIdleGuest(self):
        """The socket device's process is killed again and again: whoever listens goes on listening,
        and each new process has a connector of its own."""
        path = self.folder.file("sock")
        echo = socket.socket(socket.AF_UNIX)
        self.addCleanup(echo.close)
        echo.bind(path + "_52")
        echo.listen(8)
        served = threading.Thread(target=self.echo, args=(echo,), daemon=True)
        served.start()
        vm = self.start("idle", "--vsock", f"cid={self.folder.cid()},socket={path}")
        self.until(vm, " 0 failed")
        self.assertRegex(self.said(), r"ok +vsock0 +echo")
        killed = self.kill_again_and_again(vm, "troupe-vsock", KILLS, random.Random(17))
        self.assertEqual(killed, KILLS)
        self.awaitReplaced("vsock0", KILLS)
        self.readerOf(path)
        code, out, said = self.folder.run("graph", self.name)
        self.assertEqual(code, 0, out + said)
        vm.terminate()
        self.end(vm, 18)

    @staticmethod
    def echo(listening):
        while True:
            try:
                client, _ = listening.accept()
                while part := client.recv(65536):
                    client.sendall(part)
            except OSError:
                return

    def testOneThatKeepsDyingEndsTheVmWithItsCause(self):
        vm = self.start("idle", restarts=3)
        self.until(vm, " passed, ")
        self.kill_again_and_again(vm, "troupe-rng", 4, random.Random(9))
        said = self.end(vm, 19)
        self.assertIn("TRP-run-011", said)
        self.assertIn("rng0", said)
        self.assertIn("replaced 3 times", said)

    def testOneThatIsNotToBeReplacedEndsTheVm(self):
        folder = self.profiles(1)
        path = os.path.join(folder, supervised.PROFILES["rng"])
        with open(path) as file:
            text = re.sub(r"restart \{[^}]*\}", "restart { policy: NEVER }", file.read())
        with open(path, "w") as file:
            file.write(text)
        open(self.serial, "w").close()
        vm = self.folder.start("run", "--name", self.name, "--kernel", self.folder.payload,
                               "--memory", "64M", "--serial", f"file={self.serial}", "--cmdline",
                               "idle", "--profile-dir", folder)
        self.until(vm, " passed, ")
        self.kill_again_and_again(vm, "troupe-rng", 1, random.Random(9))
        self.assertIn("TRP-run-004", self.end(vm, 19))


if __name__ == "__main__":
    report.main()
