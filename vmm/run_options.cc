#include "vmm/run_options.h"

#include <kj/vector.h>

#include "vmm/balloon_option.h"
#include "vmm/config_file.h"
#include "vmm/console_option.h"
#include "vmm/disk_option.h"
#include "vmm/error_codes.h"
#include "vmm/net_option.h"
#include "vmm/number_text.h"
#include "vmm/quote.h"
#include "vmm/split.h"
#include "vmm/user_error.h"
#include "vmm/vsock_option.h"

namespace troupe {

namespace {

constexpr kj::StringPtr EPILOG =
    R"(A configuration file is a JSON object whose keys are the names of these options; --print-config
writes one. An option overrides the file; disks, networks and consoles of the command line follow the file's.

Defaults: 1 CPU, 512M, rng on, serial on stdio, no virtio console, no network, a name of its own, and
"console=ttyS0" as the kernel's command line.

A DISK is PATH[,ro|rw][,format=raw|qcow2][,backing=PATH:FORMAT]...[,id=ID][,serial=TEXT][,direct][,queues=N][,rate=RATE]; a comma in
PATH is written twice. It appears in the guest as vda, vdb, ... in the order given. Formats are said,
never guessed. A RATE is what the guest may use of it in a second: 100M, 500iops or 100M+500iops;
100M/1G lets 1G pass at once after a rest.

A NET is tap=NAME|fd=N[:N...]|user[,mac=MAC][,mtu=N][,queues=N][,hostfwd=tcp|udp:[ADDRESS:]PORT:PORT]...[,pcap=FILE]
[,rate=RATE][,rate-in=RATE][,rate-out=RATE][,nospoof]. `user` needs no root: the guest reaches what you
reach, through passt. Rates are as those of disks, with frames (5000fps) in place of iops.

A VSOCK's socket=PATH takes clients that say CONNECT PORT, and lets the guest reach whoever listens at
PATH_PORT; a client of a forward's PATH reaches the guest's PORT at once. Without cid= it gets a free one.

A CONSOLE is stdio|pty|file=PATH|socket=PATH[,name=NAME][,port][,size=80x25|off][,replay=on|off]. They
appear in the guest as hvc0, hvc1, ...; with `port` it is a port of bytes instead, in Linux
/dev/virtio-ports/NAME.

Ctrl-] leaves the serial port or console on stdio and stops the VM.

exit codes: 0 the guest powered off, 2 wrong options or files, 3 the host lacks something, 4 a jail
could not be closed, 5 an actor died during start-up, 16 the guest asked for a reset, 17 it crashed,
18 stopped by you, 19 a device was lost, 20 the host or the broker failed, 21 the guest panicked,
1 internal error. A guest that resets itself, crashes or panics starts anew unless --on-reboot exit.
See docs/errors.md for the TRP-... codes.)"_kj;

// What options say, kept until the file has been read.
struct Said {
  kj::Maybe<kj::StringPtr> kernel, initrd, cmdline, cpus, memory, serial, rng, name, cpuMask, jail,
      profileDir, balloon, onReboot, vsock, metrics, recordLimit;
  kj::Vector<kj::StringPtr> disks, nets, consoles, records;
  bool printConfig = false;
};

kj::StringPtr parseMetrics(kj::StringPtr path) {
  if (path.size() > 0) return path;
  UserError(codes::OPTION_VALUE,
            kj::str("--metrics needs the path of a socket, and was given \"\""))
      .raise();
}

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

void applyRecords(kj::ArrayPtr<const kj::StringPtr> texts, VmConfig::Builder config) {
  if (texts.size() == 0) return;
  auto earlier = KJ_MAP(text, config.getRecords().asReader()) {
    return kj::str(text);
  };
  auto all = config.initRecords(earlier.size() + texts.size());
  for (uint i = 0; i < earlier.size(); i++)
    all.set(i, earlier[i]);
  for (uint i = 0; i < texts.size(); i++)
    all.set(earlier.size() + i, texts[i]);
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
  applyText(said.metrics, [&](kj::StringPtr text) { config.setMetrics(parseMetrics(text)); });
  applyText(said.cpuMask, [&](kj::StringPtr text) { applyCpuMask(text, config); });
  applyText(said.vsock, [&](kj::StringPtr text) { parseVsock(text, config.initVsock()); });
  applyDisks(said.disks, config);
  applyNets(said.nets, config);
  applyConsoles(said.consoles, config);
  applyText(said.recordLimit, [&](kj::StringPtr text) { config.setRecordLimit(text); });
  applyRecords(said.records, config);
}

void addOptions(CommandLine& line, Said& said) {
  auto text = [&](kj::StringPtr name, kj::StringPtr value, kj::StringPtr help,
                  kj::Maybe<kj::StringPtr>& target) {
    line.add({name, value, help, false, [&target](kj::StringPtr word) { target = word; }});
  };
  text("kernel", "FILE", "bzImage or ELF kernel to boot", said.kernel);
  text("initrd", "FILE", "initial RAM disk", said.initrd);
  text("cmdline", "TEXT", "kernel command line; a leading + appends to console=ttyS0",
       said.cmdline);
  text("cpus", "N", "number of CPUs, 1 to 255", said.cpus);
  text("memory", "SIZE", "RAM, a multiple of 2M: 512M, 2G", said.memory);
  line.add({"disk", "DISK", "a disk; may be given several times", true,
            [&said](kj::StringPtr word) { said.disks.add(word); }});
  line.add({"net", "NET", "a network device; may be given several times", true,
            [&said](kj::StringPtr word) { said.nets.add(word); }});
  line.add({"console", "CONSOLE", "a virtio console; may be given several times", true,
            [&said](kj::StringPtr word) { said.consoles.add(word); }});
  text("serial", "WHERE", "serial port: stdio, file=PATH or socket=PATH", said.serial);
  text("rng", "on|off|rate=RATE", "virtio random number generator, and what the guest may draw",
       said.rng);
  line.add({"balloon", "[stats]",
            "memory balloon, with statistics of the guest's memory if wanted; see `troupe balloon`",
            false, [&said](kj::StringPtr word) { said.balloon = word; }, balloonWords()});
  text("vsock", "VSOCK", "virtio socket device: [cid=N][,socket=PATH][,forward=PORT:PATH]...",
       said.vsock);
  text("name", "NAME", "the VM's name", said.name);
  text("cpu-mask", "LIST", "CPU features to hide, by their names in /proc/cpuinfo: avx2,rdrand",
       said.cpuMask);
  text("jail", "on|off", "jail every actor; off is for debugging only", said.jail);
  text("profile-dir", "DIR", "folder of sandbox profiles that replace those built in",
       said.profileDir);
  text("on-reboot", "restart|exit", "what follows when the guest resets itself or crashes",
       said.onReboot);
  text("metrics", "PATH", "a unix socket that answers HTTP with metrics for Prometheus",
       said.metrics);
  line.add({"record", "DEVICE=FILE", "write what a device sees to a new file; see `troupe replay`",
            true, [&said](kj::StringPtr word) { said.records.add(word); }});
  text("record-limit", "SIZE", "what such a file may hold: 256M", said.recordLimit);
  line.add({"print-config", "", "print the configuration as a file for `troupe run` and end", false,
            [&said](kj::StringPtr) { said.printConfig = true; }});
  line.epilog(EPILOG);
}

}  // namespace

RunRequest parseRunOptions(kj::ArrayPtr<const kj::StringPtr> words) {
  Said said;
  CommandLine line("run", "Boots a virtual machine and serves it until it ends.", "[CONFIG.json]");
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
  return {action, kj::mv(message), nullptr};
}

}  // namespace troupe
