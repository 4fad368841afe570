#!/usr/bin/env python3
"""Launches a guest of a bundle, reads its console and moves its balloon, through `troupe rpc`.

usage: guest.py BUNDLE [SOCKET]
"""

import base64
import itertools
import json
import os
import subprocess
import sys


class Realms:
    """`troupe rpc`, one call at a time. Capabilities are numbers; 0 is the manager."""

    def __init__(self, *options):
        self.rpc = subprocess.Popen(["troupe", "rpc", *options], text=True,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ids = itertools.count(1)

    def ask(self, **request):
        request["id"] = next(self.ids)
        self.rpc.stdin.write(json.dumps(request) + "\n")
        self.rpc.stdin.flush()
        answer = json.loads(self.rpc.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def call(self, on, method, **params):
        return self.ask(on=on, call=method, params=params)["result"]

    def read(self, socket):
        return base64.b64decode(self.ask(read=socket)["base64"])


def main(bundle, *socket):
    realms = Realms(*(["--socket", *socket] if socket else []))
    realm = realms.call(0, "create", label="example")["realm"]
    launched = realms.call(realm, "launchInstance", launchInfo={"url": os.path.realpath(bundle)})
    guest = launched["controller"]
    name = realms.call(guest, "waitForStart")["name"]
    print(f"{name} runs with cid {launched['cid']}; its console says:", flush=True)

    console = realms.call(guest, "getConsole")["socket"]
    print(realms.read(console).decode(errors="replace"), flush=True)

    balloon = realms.call(realm, "connectToBalloon", cid=launched["cid"])["controller"]
    realms.call(balloon, "requestNumPages", requestedNumPages=4096)
    print("balloon:", realms.call(balloon, "getNumPages")["currentNumPages"], "pages so far")
    print("statistics:", realms.call(balloon, "getMemStats")["status"])

    realms.call(guest, "stop", force=True)
    print("end:", realms.call(guest, "waitForEnd")["end"]["reason"])


if __name__ == "__main__":
    main(*sys.argv[1:])
