"""Three Debian guests at once in two realms of one `troupe serve`, inside the lab: what they have, whom
they reach, and what is left when the client of a realm is killed.

usage: realm_checks.py BIN_DIR BUNDLE

Realm "lab" is kept and has one guest, on a tap; a second one lives by its client and has two, on a
bridge. Each has a network, sockets and a disk of its own. Prints a line for each check; the exit
status is 0 when none failed, 75 when the emulated processor lost a guest.
"""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading

from realm_guest import Client, Guest, until

bin_dir, bundle = (os.path.abspath(path) for path in sys.argv[1:3])
MIB = 1 << 20
RAM_MIB, DISK_MIB = 256, 96
LEFT_MIB = 128  # of a guest whose balloon is full
GROUPS = "/sys/fs/cgroup"
PAGE = os.urandom(MIB)
failures = 0


def check(name, passed, why=""):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {name}" + ("" if passed else f": {why}"), flush=True)


def same(name, seen, wanted):
    check(name, seen == wanted, f"{seen!r}, not {wanted!r}")


def read(*path):
    try:
        with open(os.path.join(*path)) as file:
            return file.read()
    except OSError:
        return ""


# What the guests meet outside.

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


def networks():
    """A bridge for one realm, a tap for the other, and a page on both."""
    for module in "net/llc/llc", "net/802/stp", "net/bridge/bridge":
        path = os.path.join(os.environ["LAB_MODULES"], f"{module}.ko")
        if os.path.exists(path):
            subprocess.run(["/bin/busybox", "insmod", path], check=True)
    for words in ("link add near type bridge", "addr add 10.1.0.1/24 dev near", "link set near up",
                  "tuntap add dev far0 mode tap vnet_hdr", "addr add 10.2.0.1/24 dev far0",
                  "link set far0 up"):
        subprocess.run(["ip", *words.split()], check=True)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def processes():
    """pids of all processes of `troupe`'s."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe").startswith(bin_dir):
                found.append(int(pid))
        except OSError:
            continue
    return found


def plays(pid):
    """Which program a process was started as."""
    return read("/proc", str(pid), "cmdline").partition("\0")[0]


def guest_ram():
    """Bytes that the machine has in memory for the RAM of each guest, by its broker's pid."""
    ram = {}
    for pid in processes():
        if plays(pid) != "troupe-broker":
            continue
        for number in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{number}"
            try:
                if "memfd:guest-ram" in os.readlink(path):
                    ram[pid] = os.stat(path).st_blocks * 512
            except OSError:
                continue
    return ram


def disks():
    """Bytes that the guests' disks have, which lie in memory, too."""
    return sum(os.stat(os.path.join(path, name)).st_blocks * 512
               for path, _, names in os.walk(folder) for name in names)


def counts():
    """What there is on this machine of the daemon and its guests."""
    fds = [os.readlink(f"/proc/{daemon.pid}/fd/{number}")
           for number in os.listdir(f"/proc/{daemon.pid}/fd")
           if os.path.lexists(f"/proc/{daemon.pid}/fd/{number}")]
    groups = [name for _, names, _ in os.walk(GROUPS + "/troupe") for name in names]
    shared = next(int(line.split()[1]) for line in read("/proc/meminfo").splitlines()
                  if line.startswith("Shmem:"))
    private = sum(int(line.split()[1])
                  for line in read("/proc", str(daemon.pid), "smaps_rollup").splitlines()
                  if line.startswith("Private_Dirty:"))
    return {
        "processes": len(processes()),
        "fds of the daemon": len(fds),
        "sockets of the daemon": sum(name.startswith("socket:") for name in fds),
        "unix sockets": len(read("/proc/net/unix").splitlines()),
        "control groups": len(groups),
        "network links": len(os.listdir("/sys/class/net")),
        "run-time files": len(os.listdir("/run/troupe")),
        "guests' RAM": len(guest_ram()),
        "other shared KiB": shared - (sum(guest_ram().values()) + disks()) // 1024,
        "private KiB of the daemon": private,
    }


# What may stay of it, in KiB: malloc keeps what a daemon needed for its first guests. That no more comes
# with further ones, tools/soak realms shows.
MEMORY = {"other shared KiB": 1024, "private KiB of the daemon": 2048}


def settled(before):
    """The counts, once they are what they were or a long time has gone by."""
    until(lambda: all(now == before[name] for name, now in counts().items() if name not in MEMORY))
    return counts()


def same_counts(what, before):
    now = settled(before)
    for name, value in before.items():
        check(f"{what}: {name}: {value} before, {now[name]} after",
              now[name] == value if name not in MEMORY else now[name] <= value + MEMORY[name])


def table(title, *columns):
    print(f"--- {title}", flush=True)
    for name in columns[0]:
        print(f"     {name:28}" + "".join(f"{column[name]:>10}" for column in columns), flush=True)


# The daemon, its clients and guests.

def tell(*words, **kwargs):
    return subprocess.run([troupe, *words], env=environment, capture_output=True, text=True, **kwargs)


def client():
    return Client([troupe, "rpc", "--socket", at], environment)


def launch(rpc, realm, label, **config):
    """A guest with a disk of its own: not up yet. Its end is asked for, for who wants to know."""
    disk = os.path.join(folder, label)
    with open(disk, "wb") as file:
        file.truncate(DISK_MIB * MIB)
    handle = rpc.ask(open=disk, write=True)["handle"]
    launched = rpc.call(realm, "launchInstance", launchInfo={
        "url": bundle, "label": label, "guestConfig": config,
        "blockDevices": [{"id": label, "mode": "readWrite", "format": "raw", "file": handle}]})
    rpc.ask(drop=handle)
    name = rpc.call(launched["controller"], "waitForStart")["name"]
    ending = rpc.send(on=launched["controller"], call="waitForEnd", params={})
    guest = Guest(name, launched["cid"], lambda: str(rpc.answer(ending, 10)))
    guest.disk = disk
    return guest


def network(last):
    """A network with an address that no other guest has, and no further one."""
    return {"netDevices": [{"macAddress": {"octets": [2, 0x1a, 0x11, 0, 1, last]}}],
            "defaultNet": {"value": False}}


def has(guest):
    """KiB that are free in the guest, or would be for the asking."""
    return int(guest.tell("awk '/^(MemFree|Cached|Buffers):/ { s += $2 } END { print s }' /proc/meminfo"))


# What is checked of each guest.

def disk_works(guest):
    same(f"{guest.name}: its second disk is its own",
         guest.tell("cat /sys/block/vdb/serial"), os.path.basename(guest.disk))
    guest.tell("dd if=/dev/urandom of=/dev/vdb bs=1M count=8 conv=fsync 2> /dev/null")
    said = guest.tell("dd if=/dev/vdb bs=1M count=8 iflag=direct 2> /dev/null | md5sum").split()[0]
    with open(guest.disk, "rb") as file:
        same(f"{guest.name}: what it wrote is in the file", said,
             hashlib.md5(file.read(8 * MIB)).hexdigest())


def net_works(guest, link, last):
    guest.tell(f"ip addr add 10.{link}.0.{last}/24 dev eth0; ip link set eth0 up")
    same(f"{guest.name}: what it fetches through its network",
         guest.tell(f"wget -q -O - http://10.{link}.0.1:8000/ | md5sum").split()[0],
         hashlib.md5(PAGE).hexdigest())


def listens(guest):
    """Keeps what comes to port 5000, and sends back what comes to port 5001."""
    guest.tell("socat VSOCK-LISTEN:5001,fork PIPE > /dev/null 2>&1 &")
    guest.tell("(socat -u VSOCK-LISTEN:5000 CREATE:/tmp/got; mv /tmp/got /tmp/whole) > /dev/null 2>&1 &")


def patiently(command):
    """A command of the shell's that is tried until it succeeds: who listens may have to be loaded first."""
    return f"for i in $(seq 30); do {command} && break; sleep 1; done 2> /dev/null"


def sends(here, there):
    """What one guest sends another of its realm arrives there."""
    here.tell("dd if=/dev/urandom of=/tmp/bulk bs=1M count=4 2> /dev/null")
    here.tell(patiently(f"socat -u OPEN:/tmp/bulk VSOCK-CONNECT:{there.cid}:5000"))
    heard = there.tell("while [ ! -e /tmp/whole ]; do usleep 50000; done; md5sum < /tmp/whole; rm /tmp/whole")
    same(f"{here.name} sends 4 MiB to {there.name}", heard, here.tell("md5sum < /tmp/bulk; rm /tmp/bulk"))
    asked = f"echo from {here.cid} | socat -t 60 - VSOCK-CONNECT:{there.cid}:5001"
    same(f"{there.name} answers {here.name}", here.tell(patiently(asked)), f"from {here.cid}")


def echoes(guest, words):
    """What a guest answers to a program on the host, once it listens."""
    ask = lambda: tell("socat", guest.name, "5001", "--socket", at, input=words).stdout
    return until(ask) or ask()


def refused(here, cid, port=5001):
    status, said = here.ask(f"echo hello | socat -t 10 - VSOCK-CONNECT:{cid}:{port}")
    check(f"{here.name} does not reach cid {cid}",
          status != 0 and "hello" not in said and "onnection" in said, f"{status}: {said}")


def balloon_moves(rpc, realm, guest):
    balloon = rpc.call(realm, "connectToBalloon", cid=guest.cid)["controller"]
    status = json.loads(tell("status", guest.name, "--json").stdout)
    broker, = [actor["pid"] for actor in status["actors"] if actor["name"] == "broker"]
    # In use, for the guest's cache, until the balloon wants it.
    guest.tell("dd if=/dev/vdb of=/dev/null bs=1M 2> /dev/null")
    free, kept = has(guest), guest_ram()[broker] // MIB
    pages = (RAM_MIB - LEFT_MIB) * MIB // 4096

    def ask(call, **params):
        """An answer of the balloon's, whose guest may be too slow for `troupe` at times."""
        for _ in range(20):
            said = rpc.answer(rpc.send(on=balloon, call=call, params=params))
            if "TRP-bal-003: " not in said.get("error", ""):
                break
        if "error" in said:
            raise AssertionError(f"{call}: {said['error']}")
        return said["result"]

    def moved_to(wanted):
        ask("requestNumPages", requestedNumPages=wanted)
        until(lambda: ask("getNumPages")["currentNumPages"] == wanted)
        return ask("getNumPages")["currentNumPages"]

    same(f"{guest.name}: its balloon is filled", moved_to(pages), pages)
    until(lambda: guest_ram()[broker] // MIB <= LEFT_MIB)
    less, keeps = has(guest), guest_ram()[broker] // MIB
    print(f"     a balloon of {RAM_MIB - LEFT_MIB} MiB: the host kept {kept} MiB and keeps {keeps}; the guest "
          f"had {free // 1024} MiB and has {less // 1024}", flush=True)
    check(f"{guest.name}: the host keeps less", keeps < kept - 32 and keeps <= LEFT_MIB, f"{kept}, {keeps}")
    check(f"{guest.name}: it has less", less < free - 64 * 1024, f"{free}, {less}")
    stats = {}

    def told():
        answer = ask("getMemStats")
        stats.update({one["tag"]: int(one["val"]) for one in answer.get("memStats", [])})
        return answer["status"] == "ok"

    check(f"{guest.name}: it tells its statistics", until(told))
    total = int(guest.tell("awk '/^MemTotal:/ { print $2 }' /proc/meminfo")) * 1024
    same(f"{guest.name}: the total it tells is its own", stats.get(5), total)
    same(f"{guest.name}: its balloon is emptied", moved_to(0), 0)
    again = has(guest)
    check(f"{guest.name}: it has its memory again", again > less + 64 * 1024, f"{less}, {again}")
    rpc.ask(drop=balloon)


networks()
with open(f"{GROUPS}/cgroup.subtree_control", "w") as file:
    file.write("+memory +pids +cpu +io")
folder = tempfile.mkdtemp(prefix="realms.", dir="/run")
with open(os.path.join(bundle, "guest.cfg")) as file:
    config = json.load(file)
bundle_here = os.path.join(folder, "debian")
os.mkdir(bundle_here)
for name in os.listdir(bundle):
    with open(os.path.join(bundle, name), "rb") as source, open(os.path.join(bundle_here, name), "wb") as to:
        while piece := source.read(MIB):
            to.write(piece)
bundle = bundle_here
# One CPU and few words: each more is one more that the emulated processor may lose.
config.update({"block": "/root.img,ro", "memory": f"{RAM_MIB}M", "cpus": "1",
               "cmdline-add": "rootflags=ro quiet panic=-1"})
with open(os.path.join(bundle, "guest.cfg"), "w") as file:
    json.dump(config, file)

troupe = os.path.join(bin_dir, "troupe")
environment = dict(os.environ, XDG_RUNTIME_DIR=folder)
at = os.path.join(folder, "realms.sock")
daemon = subprocess.Popen([troupe, "serve", "--socket", at, "--keep", "lab", "--realm-net", "tap-prefix=far"],
                          env=environment, stderr=subprocess.PIPE, text=True)
print(daemon.stderr.readline(), end="", flush=True)
threading.Thread(target=lambda: [print(line, end="", flush=True) for line in daemon.stderr],
                 daemon=True).start()

# Somebody else who watches the kept realm, and two launches in it that come to nothing: so its guest
# has a number that nobody in the other realm has.
watcher = client()
kept = watcher.call(0, "connect", id=0)["realm"]
for _ in range(2):
    nobody = watcher.call(kept, "launchInstance", launchInfo={"url": "/nowhere"})["controller"]
    end = watcher.call(nobody, "waitForEnd")["end"]
    check("a bundle that is not there is refused", "TRP-rlm-007: " in end["reason"], end)
    watcher.ask(drop=nobody)
idle = counts()

other = client()
alone = launch(other, other.call(0, "connect", id=0)["realm"], "alone")
alone.end = lambda: "nobody has asked"
same("the first guest of the kept realm has the next number", alone.cid, 5)
other.kill()
until(lambda: [plays(pid) for pid in processes()].count("troupe-realm-front") == 1)
alone.up()
before = counts()

rpc = client()
realm = rpc.call(0, "create", label="near", net="bridge=near")["realm"]
one = launch(rpc, realm, "one", **network(3))
two = launch(rpc, realm, "two", **network(4))
same("the guests of the other realm are numbered from 3", (one.cid, two.cid), (3, 4))
guests = [alone, one, two]
for guest in guests:
    guest.up()
listed = json.loads(tell("list", "--json", "--socket", at).stdout)
same("three guests in two realms", [(vm["realm"], vm["cid"], vm["label"]) for vm in listed],
     [("lab", 5, "alone"), ("near", 3, "one"), ("near", 4, "two")])
full = counts()

for guest in guests:
    disk_works(guest)
net_works(alone, 2, 5)
net_works(one, 1, 3)
net_works(two, 1, 4)
for guest in guests:
    listens(guest)
sends(one, two)
sends(two, one)
same("the host's side of a realm reaches its guest", echoes(alone, "hello from the host\n"),
     "hello from the host\n")
for here, cid in (one, 5), (two, 5), (alone, 3), (alone, 4), (one, 6):
    refused(here, cid)
endpoint = rpc.call(realm, "getHostVsockEndpoint")["endpoint"]
mine, theirs = rpc.ask(pair=True)["handles"]
same("and no other realm's",
     rpc.call(endpoint, "connect", cid=5, port=5001, socket=theirs)["status"], "connectionRefused")
rpc.ask(drop=mine)
rpc.ask(drop=theirs)
same("a program of the host's listens for one realm",
     rpc.call(endpoint, "listen", port=52, acceptor="host")["status"], "ok")
refused(alone, 2, 52)
one.tell("echo question | socat -t 60 - VSOCK-CONNECT:2:52 > /tmp/answer 2>&1 &")
asked = rpc.event()
same("and is told who asks", (asked["accepted"], asked["srcCid"], asked["port"]), ("host", 3, 52))
same("what it is asked", rpc.read(asked["handle"]), b"question\n")
rpc.write(asked["handle"], b"answer\n")
rpc.ask(drop=asked["handle"])
same("what it answers", one.tell("while [ ! -s /tmp/answer ]; do usleep 50000; done; cat /tmp/answer"), "answer")
balloon_moves(rpc, realm, one)

jails = tell("inspect", one.name, "jail")
check("the jails are as their profiles say", jails.returncode == 0, jails.stdout + jails.stderr)

# The client of a realm is killed.
for guest in one, two:
    guest.leave()
rpc.kill()
same_counts("a killed client leaves nothing of its realm", before)
listed = json.loads(tell("list", "--json", "--socket", at).stdout)
same("the kept realm's guest is there", [(vm["label"], vm["state"]) for vm in listed], [("alone", "running")])
same("and goes on", alone.tell("echo still here"), "still here")
disk_works(alone)
same("and is reached", echoes(alone, "hello again\n"), "hello again\n")

stopped = tell("stop", alone.name)
check("it powers off when its button is pressed", stopped.returncode == 0, stopped.stderr)
alone.leave()
same_counts("a guest that ends leaves nothing", idle)
table("the daemon alone, with one guest, with three, and afterwards", idle, before, full, counts())
watcher.kill()
daemon.terminate()
same("the daemon ends", daemon.wait(), 0)
same("no process is left", processes(), [])
same("no control group is left", os.path.exists(GROUPS + "/troupe"), False)
same("no file is left", [name for name in os.listdir("/run/troupe")], [])
print(f"{failures} failed", flush=True)
sys.exit(1 if failures else 0)
