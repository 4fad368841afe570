#include "vmm/config/run_options.h"

#include <kj/vector.h>

#include "vmm/config/balloon_option.h"
#include "vmm/config/config_file.h"
#include "vmm/config/console_option.h"
#include "vmm/config/disk_option.h"
#include "vmm/config/net_option.h"
#include "vmm/config/vsock_option.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/split.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr EPILOG =
    R"(A configuration file is a JSON object whose keys are the names of these options; --print-config
writes one. An option overrides the file; disks, networks and consoles of the command line follow the file's.

A SIZE has a unit K, M, G or T, or is in bytes.

A DISK is PATH[,ro|rw|volatile][,format=raw|qcow2][,backing=PATH:FORMAT]...[,id=ID][,serial=TEXT][,direct][,queues=N][,rate=RATE];
a comma in PATH is written twice. It appears in the guest as vda, vdb, ... in the order given. What is written to a `volatile`
one is kept in memory and vanishes. Formats are said, never guessed. A RATE is what the guest may use of it in a second: 100M, 500iops or 100M+500iops;
100M/1G lets 1G pass at once after a rest.

A NET is tap=NAME|fd=N[:N...]|user[,mac=MAC][,mtu=N][,queues=N][,hostfwd=tcp|udp:[ADDRESS:]PORT:PORT]...[,pcap=FILE]
[,rate=RATE][,rate-in=RATE][,rate-out=RATE][,nospoof]. `user` needs no root: the guest reaches what you
reach, through passt. Rates are as those of disks, with frames (5000fps) in place of iops.

A VSOCK's socket=PATH takes clients that say CONNECT PORT, and lets the guest reach whoever listens at
PATH_PORT; a client of a forward's PATH reaches the guest's PORT at once. Without cid= it gets a free one.

A CONSOLE is stdio|pty|file=PATH|socket=PATH[,name=NAME][,port][,size=80x25|off][,replay=on|off]. They
appear in the guest as hvc0, hvc1, ...; with `port` it is a port of bytes instead, in Linux
/dev/virtio-ports/NAME.

--host-memory FILE,at=ADDRESS[,size=SIZE][,offset=OFFSET][,device][,shared] shows the guest a file of tmpfs
or huge pages, a DAX device, or with `device` the memory of a device, from ADDRESS on: 0x100000000 or 4G. It is
no RAM, and others have it only with `shared`.

Ctrl-] leaves the serial port or console on stdio and stops the VM. A guest that resets itself, crashes
or panics starts anew unless --on-reboot exit.)"_kj;

constexpr kj::StringPtr EXITS =
    "0 the guest powered off, 1 internal error, 2 wrong words or files, 3 the host lacks "
    "something, "
    "4 a jail could not be closed, 5 an actor died during start-up, 16 the guest asked for a "
    "reset, "
    "17 it crashed, 18 stopped by you, 19 a device was lost, 20 the host or the broker failed, 21 "
    "the "
    "guest panicked"_kj;

// What options say, kept until the file has been read.
struct Said {
  kj::Maybe<kj::StringPtr> kernel, initrd, cmdline, cpus, memory, serial, rng, name, cpuMask, jail,
      profileDir, balloon, onReboot, vsock, metrics, recordLimit;
  kj::Vector<kj::StringPtr> disks, nets, consoles, records, hostMemory;
  bool printConfig = false;
  bool paused = false;
};

template <typename Set>
void applyText(const kj::Maybe<kj::StringPtr>& said, Set&& set) {
  KJ_IF_MAYBE (text, said) {
    set(*text);
  }
}

uint32_t parseCpus(kj::StringPtr text) {
  KJ_IF_MAYBE (count, parseNumber(text, UINT32_MAX)) {
    return static_cast<uint32_t>(*count);
  }
  UserError(codes::CPU_COUNT,
            kj::str("--cpus ", quote(text), " is not a number of CPUs; expected 1 to 255"))
      .raise();
}

// One more of a list for each text, behind those of the file.
template <typename Element>
capnp::Orphan<capnp::List<Element>> append(typename capnp::List<Element>::Reader earlier,
                                           kj::ArrayPtr<const kj::StringPtr> texts,
                                           void (*parse)(kj::StringPtr, typename Element::Builder),
                                           VmConfig::Builder config) {
  auto orphan = capnp::Orphanage::getForMessageContaining(config).newOrphan<capnp::List<Element>>(
      earlier.size() + texts.size());
  auto all = orphan.get();
  for (uint i = 0; i < earlier.size(); i++)
    all.setWithCaveats(i, earlier[i]);
  for (uint i = 0; i < texts.size(); i++)
    parse(texts[i], all[earlier.size() + i]);
  return orphan;
}

void applyDisks(kj::ArrayPtr<const kj::StringPtr> texts, VmConfig::Builder config) {
  if (texts.size() == 0) return;
  config.adoptDisks(append<DiskConfig>(config.getDisks().asReader(), texts, parseDisk, config));
}

void applyNets(kj::ArrayPtr<const kj::StringPtr> texts, VmConfig::Builder config) {
  if (texts.size() == 0) return;
  config.adoptNets(append<NetOptions>(config.getNets().asReader(), texts, parseNet, config));
}

void applyConsoles(kj::ArrayPtr<const kj::StringPtr> texts, VmConfig::Builder config) {
  if (texts.size() == 0) return;
  config.adoptConsoles(
      append<ConsoleOptions>(config.getConsoles().asReader(), texts, parseConsole, config));
}

// Of a list of texts, in the words they were given.
template <typename Init>
void appendTexts(capnp::List<capnp::Text>::Reader earlier, kj::ArrayPtr<const kj::StringPtr> texts,
                 Init&& init) {
  if (texts.size() == 0) return;
  auto kept = KJ_MAP(text, earlier) {
    return kj::str(text);
  };
  capnp::List<capnp::Text>::Builder all = init(kj::uint(kept.size() + texts.size()));
  for (uint i = 0; i < kept.size(); i++)
    all.set(i, kept[i]);
  for (uint i = 0; i < texts.size(); i++)
    all.set(kept.size() + i, texts[i]);
}

void applyCpuMask(kj::StringPtr text, VmConfig::Builder config) {
  auto names = splitAtCommas(text, false);
  if (text.size() == 0) names.clear();
  auto list = config.initCpuMask(names.size());
  for (uint i = 0; i < names.size(); i++)
    list.set(i, names[i]);
}

void apply(const Said& said, VmConfig::Builder config) {
  applyText(said.kernel, [&](kj::StringPtr text) { config.setKernel(text); });
  applyText(said.initrd, [&](kj::StringPtr text) { config.setInitrd(text); });
  applyText(said.cmdline, [&](kj::StringPtr text) { config.setCmdline(text); });
  applyText(said.cpus, [&](kj::StringPtr text) { config.setCpus(parseCpus(text)); });
  applyText(said.memory, [&](kj::StringPtr text) { config.setMemory(text); });
  applyText(said.serial, [&](kj::StringPtr text) { config.setSerial(text); });
  applyText(said.rng, [&](kj::StringPtr text) { config.setRng(text); });
  applyText(said.name, [&](kj::StringPtr text) { config.setName(text); });
  applyText(said.jail, [&](kj::StringPtr text) { config.setJail(text); });
  applyText(said.profileDir, [&](kj::StringPtr text) { config.setProfileDir(text); });
  applyText(said.balloon, [&](kj::StringPtr text) { applyBalloonOption(text, config); });
  applyText(said.onReboot, [&](kj::StringPtr text) { config.setOnReboot(text); });
  applyText(said.metrics, [&](kj::StringPtr text) { config.setMetrics(text); });
  applyText(said.cpuMask, [&](kj::StringPtr text) { applyCpuMask(text, config); });
  applyText(said.vsock, [&](kj::StringPtr text) { parseVsock(text, config.initVsock()); });
  applyDisks(said.disks, config);
  applyNets(said.nets, config);
  applyConsoles(said.consoles, config);
  applyText(said.recordLimit, [&](kj::StringPtr text) { config.setRecordLimit(text); });
  appendTexts(config.getRecords(), said.records,
              [&](kj::uint count) { return config.initRecords(count); });
  appendTexts(config.getHostMemory(), said.hostMemory,
              [&](kj::uint count) { return config.initHostMemory(count); });
}

void addOptions(CommandLine& line, Said& said) {
  auto text = [&](kj::StringPtr name, kj::StringPtr value, kj::StringPtr help,
                  kj::Maybe<kj::StringPtr>& target) {
    line.add({name, value, help, false, [&target](kj::StringPtr word) { target = word; }});
  };
  text("kernel", "FILE", "bzImage or ELF kernel to boot; needed", said.kernel);
  text("initrd", "FILE", "initial RAM disk; none unless given", said.initrd);
  line.add({"cmdline", "TEXT",
            "kernel command line; console=ttyS0 unless given, and a leading + appends to that",
            false, [&said](kj::StringPtr word) { said.cmdline = word; }, nullptr,
            /*mayBeEmpty=*/true});
  text("cpus", "N", "number of CPUs, 1 to 255; 1 unless given", said.cpus);
  text("memory", "SIZE", "RAM, a multiple of 2M: 2G; 512M unless given", said.memory);
  line.add({"disk", "DISK", "a disk; may be given several times", true,
            [&said](kj::StringPtr word) { said.disks.add(word); }});
  line.add({"net", "NET", "a network device; may be given several times; none unless given", true,
            [&said](kj::StringPtr word) { said.nets.add(word); }});
  line.add({"console", "CONSOLE",
            "a virtio console; may be given up to eight times; none unless given", true,
            [&said](kj::StringPtr word) { said.consoles.add(word); }});
  text("serial", "WHERE", "serial port: stdio, file=PATH or socket=PATH; stdio unless given",
       said.serial);
  text("rng", "on|off|rate=RATE",
       "virtio random number generator, and what the guest may draw; on unless given", said.rng);
  line.add({"balloon", "stats|on|off",
            "memory balloon, with statistics of the guest's memory if wanted; off unless given, on "
            "without a value; see `troupe balloon`",
            false, [&said](kj::StringPtr word) { said.balloon = word; }, balloonWords()});
  text("vsock", "VSOCK",
       "virtio socket device: [cid=N][,socket=PATH][,forward=PORT:PATH]...; none unless given",
       said.vsock);
  line.add({"host-memory", "FILE,at=ADDRESS",
            "memory of the host's that the guest sees; may be given up to eight times", true,
            [&said](kj::StringPtr word) { said.hostMemory.add(word); }});
  text("name", "NAME",
       "the VM's name, at most 64 letters, digits, '.', '_', '-'; made up unless given", said.name);
  line.add({"cpu-mask", "LIST",
            "CPU features to hide, by their names in /proc/cpuinfo: avx2,rdrand", false,
            [&said](kj::StringPtr word) { said.cpuMask = word; }, nullptr, /*mayBeEmpty=*/true});
  text("jail", "on|off", "jail every actor, on unless given; off is for debugging only", said.jail);
  text("profile-dir", "DIR", "folder of sandbox profiles that replace those built in",
       said.profileDir);
  text("on-reboot", "restart|exit",
       "what follows when the guest resets itself or crashes; restart unless given", said.onReboot);
  text("metrics", "PATH", "a unix socket that answers HTTP with metrics for Prometheus",
       said.metrics);
  line.add({"record", "DEVICE=FILE", "write what a device sees to a new file; see `troupe replay`",
            true, [&said](kj::StringPtr word) { said.records.add(word); }});
  text("record-limit", "SIZE", "what such a file may hold, 1M to 4G; 256M unless given",
       said.recordLimit);
  line.add({"paused", "", "wait with the guest's first instruction for `troupe resume`", false,
            [&said](kj::StringPtr) { said.paused = true; }});
  line.add({"print-config", "", "print the configuration as a file for `troupe run` and end", false,
            [&said](kj::StringPtr) { said.printConfig = true; }});
  line.epilog(EPILOG);
  line.exits(EXITS);
}

}  // namespace

RunRequest parseRunOptions(kj::ArrayPtr<const kj::StringPtr> words) {
  Said said;
  CommandLine line("run", "Boots a virtual machine and serves it until it ends.", "[CONFIG.json]",
                   "troupe run --kernel vmlinuz --disk root.img --cmdline '+root=/dev/vda1'",
                   "print what happens to it as JSON, on standard error: the other is the guest's");
  addOptions(line, said);
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto arguments = line.parse(words, 1);
  if (arguments == nullptr) {
    return {RunRequest::Action::HELP, kj::mv(message), line.help()};
  }
  auto config = message->initRoot<VmConfig>();
  auto& files = KJ_ASSERT_NONNULL(arguments);
  if (files.size() == 1) readConfigFile(files[0], config);
  apply(said, config);
  auto action = said.printConfig ? RunRequest::Action::PRINT_CONFIG : RunRequest::Action::RUN;
  return {action, kj::mv(message), nullptr, line.json(), said.paused};
}

}  // namespace troupe
