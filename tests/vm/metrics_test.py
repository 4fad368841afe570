#!/usr/bin/env -S python3 -B
"""What a VM says to Prometheus."""

import os
import shutil
import socket
import stat
import subprocess
import threading

import observed
import report

try:
    from prometheus_client import parser as prometheus
except ImportError as error:
    raise SystemExit("Debian's python3-prometheus-client is missing: tools/install") from error


class Metrics(observed.Observed):
    def setUp(self):
        super().setUp()
        self.socket = os.path.join(self.folder.file("guest"), "metrics")

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.socket)
        return client

    def ask(self, request):
        with self.connect() as client:
            client.sendall(request)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return answer

    def get(self):
        head, body = self.ask(b"GET /metrics HTTP/1.1\r\nHost: vm\r\n\r\n").split(b"\r\n\r\n", 1)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
        self.assertIn(f"Content-Length: {len(body)}".encode(), head)
        families = {}
        for family in prometheus.text_string_to_metric_families(body.decode()):
            self.assertNotIn(family.name, families)
            families[family.name] = family
        return families

    def value(self, families, family, sample=None, **labels):
        found = [one.value for one in families[family].samples
                 if one.name == (sample or one.name) and
                 all(one.labels.get(key) == value for key, value in labels.items())]
        self.assertEqual(len(found), 1, (family, sample, labels))
        return found[0]

    def testPrometheusReadsThem(self):
        actors = self.start(observed.WRITING, "--metrics", self.socket, "--balloon")
        mode = os.stat(self.socket).st_mode
        self.assertEqual((stat.S_ISSOCK(mode), stat.S_IMODE(mode)), (True, 0o600))
        before = self.until_blk_works()["queues"][0]["requests"]
        families = self.get()
        for name, family in families.items():
            self.assertRegex(name, r"^troupe_[a-z_]+$")
            self.assertTrue(family.documentation, name)
            self.assertIn(family.type, ("counter", "gauge", "histogram"), name)
            for one in family.samples:
                self.assertEqual(one.labels["vm"], self.name)
                # Names of counters end so, of others not.
                self.assertEqual(one.name.endswith("_total"), family.type == "counter", one.name)
        self.assertEqual(self.value(families, "troupe_state", state="running"), 1)
        self.assertEqual(self.value(families, "troupe_memory_bytes"), 64 * observed.MIB)
        self.assertGreaterEqual(self.value(families, "troupe_queue_requests", device="blk0",
                                           queue="0"), before)
        count = self.value(families, "troupe_queue_wait_seconds",
                           "troupe_queue_wait_seconds_count", device="blk0", queue="0")
        self.assertGreater(count, 0)
        self.assertEqual(self.value(families, "troupe_queue_wait_seconds",
                                    "troupe_queue_wait_seconds_bucket", device="blk0", queue="0",
                                    le="+Inf"), count)
        self.assertLessEqual({"troupe", *actors}, {
            one.labels["process"] for one in families["troupe_process_cpu_seconds"].samples})
        self.assertGreater(self.value(families, "troupe_vcpu_cpu_seconds", vcpu="vp-0"), 0)
        # Another time it has counted on.
        while self.value(self.get(), "troupe_queue_requests", device="blk0", queue="0") <= before:
            pass
        self.end()
        self.assertFalse(os.path.exists(self.socket))

    def testCurlGetsThem(self):
        self.start("idle", "--metrics", self.socket)
        curl = shutil.which("curl")
        if curl is None:
            raise AssertionError("Debian's curl is missing: tools/install")
        text = subprocess.run([curl, "-sSf", "--unix-socket", self.socket, "http://vm/metrics"],
                              check=True, capture_output=True, text=True).stdout
        self.assertIn(f'troupe_state{{vm="{self.name}",state="running"}} 1\n', text)
        self.end()

    def testWhateverClientsDoTheVmAndItsControlSocketGoOn(self):
        self.start("idle", "--metrics", self.socket)
        silent = [self.connect() for _ in range(40)]  # of whom four are served
        for request in (b"\0" * 100000, b"GET " + b"x" * 100000, b"POST / HTTP/1.1\r\n\r\n"):
            client = self.connect()
            silent.append(client)
            try:
                client.sendall(request)
            except OSError:
                pass
        for _ in range(3):
            self.tell("status", self.name)
        for client in silent:
            client.close()
        self.assertEqual(self.value(self.get(), "troupe_state", state="running"), 1)
        for request, status in ((b"GET /other HTTP/1.1\r\n\r\n", b"404"),
                                (b"PUT /metrics HTTP/1.1\r\n\r\n", b"405"),
                                (b"nonsense\r\n\r\n", b"400")):
            self.assertEqual(self.ask(request).split()[1], status)
        self.end()

    def testFourScrapersAtOnceAreAnswered(self):
        self.start("idle", "--metrics", self.socket)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(len(self.get())))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 8)
        self.end()

    def testASocketThatCannotBeMadeIsAnError(self):
        with open(self.socket, "w"):
            pass
        self.launch(self.folder.payload, "--metrics", self.socket)
        _, err = self.vm.communicate(timeout=60)
        self.assertEqual((self.vm.returncode, b"TRP-obs-004" in err), (2, True), err)
        code, _, err = self.folder.run("run", "--kernel", self.folder.payload, "--metrics", "")
        self.assertEqual((code, "TRP-cfg-003" in err), (2, True), err)


if __name__ == "__main__":
    report.main()
