#include "vmm/run_options.h"

#include <kj/vector.h>

#include "vmm/config_file.h"
#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr EPILOG =
    R"(A configuration file is a JSON object whose keys are the names of these options; --print-config
writes one. An option overrides the file; disks of the command line follow the file's.

Defaults: 1 CPU, 512M, rng on, serial on stdio, no virtio console, a name of its own, and
"console=ttyS0" as the kernel's command line.

A DISK is PATH[,ro][,id=ID][,format=raw][,direct][,queues=N]; a comma in PATH is written twice.
It appears in the guest as vda, vdb, ... in the order given. Formats are said, never guessed.

Ctrl-] leaves the serial port or console on stdio and stops the VM.

exit codes: 0 the guest powered off, 2 wrong options or files, 3 the host lacks something, 4 a jail
could not be closed, 5 an actor died during start-up, 16 the guest asked for a reset, 17 it crashed,
18 stopped by you, 19 a device was lost, 20 the broker failed, 1 internal error.
See docs/errors.md for the TRP-... codes.)"_kj;

// What options say, kept until the file has been read.
struct Said {
  kj::Maybe<kj::StringPtr> kernel, initrd, cmdline, cpus, memory, console, serial, rng, name,
      cpuMask, jail, profileDir;
  kj::Vector<kj::StringPtr> disks;
  bool printConfig = false;
};

template <typename Set>
void applyText(const kj::Maybe<kj::StringPtr>& said, Set&& set) {
  KJ_IF_MAYBE (text, said) {
    set(*text);
  }
}

kj::Vector<kj::String> splitAtCommas(kj::StringPtr text, bool doubledIsLiteral) {
  kj::Vector<kj::String> parts;
  kj::Vector<char> current;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != ',') {
      current.add(text[i]);
    } else if (doubledIsLiteral && i + 1 < text.size() && text[i + 1] == ',') {
      current.add(',');
      i++;
    } else {
      parts.add(kj::heapString(current.begin(), current.size()));
      current.clear();
    }
  }
  parts.add(kj::heapString(current.begin(), current.size()));
  return parts;
}

uint32_t parseCpus(kj::StringPtr text) {
  KJ_IF_MAYBE (count, parseNumber(text, UINT32_MAX)) {
    return static_cast<uint32_t>(*count);
  }
  UserError(codes::CPU_COUNT,
            kj::str("--cpus ", quote(text), " is not a number of CPUs; expected 1 to 255"))
      .raise();
}

void applyDisks(kj::ArrayPtr<const kj::StringPtr> texts, VmConfig::Builder config) {
  if (texts.size() == 0) return;
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto earlier = config.getDisks().asReader();
  auto orphan =
      capnp::Orphanage::getForMessageContaining(config).newOrphan<capnp::List<DiskConfig>>(
          earlier.size() + texts.size());
  auto all = orphan.get();
  for (uint i = 0; i < earlier.size(); i++)
    all.setWithCaveats(i, earlier[i]);
  for (uint i = 0; i < texts.size(); i++)
    parseDisk(texts[i], all[earlier.size() + i]);
  config.adoptDisks(kj::mv(orphan));
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
  applyText(said.console, [&](kj::StringPtr text) { config.setConsole(text); });
  applyText(said.serial, [&](kj::StringPtr text) { config.setSerial(text); });
  applyText(said.rng, [&](kj::StringPtr text) { config.setRng(text); });
  applyText(said.name, [&](kj::StringPtr text) { config.setName(text); });
  applyText(said.jail, [&](kj::StringPtr text) { config.setJail(text); });
  applyText(said.profileDir, [&](kj::StringPtr text) { config.setProfileDir(text); });
  applyText(said.cpuMask, [&](kj::StringPtr text) { applyCpuMask(text, config); });
  applyDisks(said.disks, config);
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
  text("console", "WHERE", "virtio console: stdio, pty, file=PATH or socket=PATH", said.console);
  text("serial", "WHERE", "serial port: stdio, file=PATH or socket=PATH", said.serial);
  text("rng", "on|off", "virtio random number generator", said.rng);
  text("name", "NAME", "the VM's name", said.name);
  text("cpu-mask", "LIST", "CPU features to hide, by their names in /proc/cpuinfo: avx2,rdrand",
       said.cpuMask);
  text("jail", "on|off", "jail every actor; off is for debugging only", said.jail);
  text("profile-dir", "DIR", "folder of sandbox profiles that replace those built in",
       said.profileDir);
  line.add({"print-config", "", "print the configuration as a file for `troupe run` and end", false,
            [&said](kj::StringPtr) { said.printConfig = true; }});
  line.epilog(EPILOG);
}

void applyDiskKey(kj::StringPtr key, kj::StringPtr value, DiskConfig::Builder disk) {
  if (key == "id") {
    disk.setId(value);
  } else if (key == "format") {
    disk.setFormat(value);
  } else if (key == "queues") {
    KJ_IF_MAYBE (count, parseNumber(value, UINT16_MAX)) {
      disk.setQueues(static_cast<uint16_t>(*count));
      return;
    }
    UserError(codes::DISK_OPTION, kj::str("--disk ", quote(disk.getPath()), ": queues=",
                                          escape(value), " is not a number from 1 to 16"))
        .raise();
  }
}

}  // namespace

kj::Maybe<uint64_t> parseNumber(kj::StringPtr text, uint64_t limit) {
  if (text.size() == 0) return nullptr;
  uint64_t number = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return nullptr;
    uint64_t digit = c - '0';
    if (number > (limit - digit) / 10 || digit > limit) return nullptr;
    number = number * 10 + digit;
  }
  return number;
}

void parseDisk(kj::StringPtr text, DiskConfig::Builder disk) {
  constexpr kj::StringPtr SWITCHES[] = {"ro"_kj, "direct"_kj};
  constexpr kj::StringPtr KEYS[] = {"id"_kj, "format"_kj, "queues"_kj};
  auto parts = splitAtCommas(text, true);
  disk.setPath(parts[0]);
  kj::Vector<kj::String> seen;
  for (size_t i = 1; i < parts.size(); i++) {
    kj::StringPtr part = parts[i];
    kj::String key = kj::heapString(part);
    bool hasValue = false;
    kj::StringPtr value;
    KJ_IF_MAYBE (equals, part.findFirst('=')) {
      key = kj::heapString(part.begin(), *equals);
      value = part.slice(*equals + 1);
      hasValue = true;
    }
    for (auto& earlier : seen) {
      if (earlier == key) {
        UserError(codes::GIVEN_TWICE,
                  kj::str("--disk ", quote(text), ": ", quote(key), " is given twice"))
            .raise();
      }
    }
    bool isSwitch = key == SWITCHES[0] || key == SWITCHES[1];
    bool isKey = key == KEYS[0] || key == KEYS[1] || key == KEYS[2];
    if (!isSwitch && !isKey) {
      constexpr kj::StringPtr ALL[] = {"ro"_kj, "id"_kj, "format"_kj, "direct"_kj, "queues"_kj};
      UserError(
          codes::DISK_OPTION,
          kj::str("--disk ", quote(text), ": unknown part ", quote(part), didYouMean(key, ALL),
                  "; after the path come ro, id=ID, format=raw, "
                  "direct or queues=N, and a comma in the path is written twice"))
          .raise();
    }
    if (isSwitch == hasValue || (isKey && value.size() == 0)) {
      UserError(codes::DISK_OPTION, kj::str("--disk ", quote(text), ": ", quote(key),
                                            isSwitch ? " takes no value" : " needs a value"))
          .raise();
    }
    if (key == "ro") disk.setRo(true);
    if (key == "direct") disk.setDirect(true);
    if (hasValue) applyDiskKey(key, value, disk);
    seen.add(kj::mv(key));
  }
}

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
