#include "vmm/config/vm_plan.h"

#include <kj/vector.h>

#include "vmm/cli/command_line.h"
#include "vmm/config/rng_option.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr DEFAULT_CMDLINE = "console=ttyS0"_kj;

uint64_t planMemory(kj::StringPtr text) {
  uint64_t bytes = 0;
  KJ_IF_MAYBE (size, parseSize(text)) {
    bytes = *size;
  } else {
    UserError(codes::MEMORY_SIZE, kj::str("--memory ", quote(text),
                                          " is not a size; expected a number with K, M, G or T, "
                                          "such as 512M"))
        .raise();
  }
  if (bytes == 0 || bytes % RAM_STEP != 0) {
    UserError(codes::MEMORY_SIZE, kj::str("--memory ", quote(text), " is ", sizeText(bytes),
                                          "; RAM is a multiple of 2M, at least 2M"))
        .raise();
  }
  return bytes;
}

uint32_t planCpus(uint32_t cpus) {
  if (cpus < 1 || cpus > MOST_CPUS) {
    UserError(codes::CPU_COUNT,
              kj::str("--cpus ", cpus, " is out of range; a VM has 1 to ", MOST_CPUS, " CPUs"))
        .raise();
  }
  return cpus;
}

kj::String planCmdline(VmConfig::Reader config) {
  kj::StringPtr said = config.getCmdline();
  auto text = !config.hasCmdline()   ? kj::heapString(DEFAULT_CMDLINE)
              : said.startsWith("+") ? kj::str(DEFAULT_CMDLINE, " ", said.slice(1))
                                     : kj::heapString(said);
  if (text.size() > LONGEST_CMDLINE) {
    UserError(codes::CMDLINE, kj::str("--cmdline has ", text.size(),
                                      " bytes; a kernel takes at most ", LONGEST_CMDLINE))
        .raise();
  }
  return text;
}

kj::Array<kj::String> planCpuMask(capnp::List<capnp::Text>::Reader names) {
  if (names.size() > 512) {
    UserError(codes::CPU_MASK, kj::str("--cpu-mask lists ", names.size(), " features; at most 512"))
        .raise();
  }
  return KJ_MAP(name, names) {
    bool sound = name.size() > 0 && name.size() <= 32;
    for (char c : name) {
      sound = sound && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_');
    }
    if (!sound) {
      UserError error(codes::CPU_MASK,
                      kj::str("--cpu-mask: ", quote(name),
                              " is not the name of a CPU feature; names have lower-case letters, "
                              "digits and '_', with single commas between them"));
      error.advice("see", "grep -m1 ^flags /proc/cpuinfo").raise();
    }
    return kj::heapString(name);
  };
}

kj::Array<HostMemoryWords> planHostMemory(capnp::List<capnp::Text>::Reader texts) {
  if (texts.size() > broker::MOST_HOST_REGIONS) {
    UserError(codes::HOST_MEMORY_OPTION,
              kj::str("--host-memory is given ", texts.size(), " times; a guest has at most ",
                      broker::MOST_HOST_REGIONS, " regions of the host's memory"))
        .raise();
  }
  return KJ_MAP(text, texts) {
    return parseHostMemory("--host-memory", text);
  };
}

// PCI bus 0 has a slot for each of so many.
constexpr size_t MOST_DEVICES = 31;

void checkDeviceCount(const VmPlan& plan) {
  size_t count = plan.disks.size() + plan.nets.size() + plan.rng + (plan.consoles.size() > 0) +
                 (plan.balloon != nullptr) + (plan.vsock != nullptr);
  if (count <= MOST_DEVICES) return;
  UserError(
      codes::TOO_MANY_DEVICES,
      kj::str(count, " devices are asked for (", plan.disks.size(), " disks, ", plan.nets.size(),
              " network devices and others); a VM has at most ", MOST_DEVICES))
      .raise();
}

// Those of whose kind a recording can be replayed, as launchCompany() names them.
kj::Array<kj::String> recordableDevices(const VmPlan& plan) {
  kj::Vector<kj::String> names;
  for (size_t i = 0; i < plan.disks.size(); i++)
    names.add(kj::str("blk", i));
  bool comesAndGoes = false;  // who is at the other end is not in a recording
  for (auto& console : plan.consoles)
    comesAndGoes = comesAndGoes || !console.replay;
  if (plan.consoles.size() > 0 && !comesAndGoes) names.add(kj::str("console0"));
  if (plan.rng) names.add(kj::str("rng0"));
  for (size_t i = 0; i < plan.nets.size(); i++)
    names.add(kj::str("net", i));
  if (plan.balloon != nullptr) names.add(kj::str("balloon0"));
  if (plan.vsock != nullptr) names.add(kj::str("vsock0"));
  return names.releaseAsArray();
}

}  // namespace

void checkVmName(kj::StringPtr name) {
  auto isPlain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  bool sound = name.size() > 0 && name.size() <= LONGEST_NAME && isPlain(name[0]);
  for (char c : name)
    sound = sound && (isPlain(c) || c == '.' || c == '_' || c == '-');
  if (!sound) {
    UserError(
        codes::VM_NAME,
        kj::str("the VM name ", quote(name), " is not possible; a name has 1 to ", LONGEST_NAME,
                " letters, digits, '.', '_' or '-', and begins with a letter or a digit"))
        .raise();
  }
}

VmPlan planVm(VmConfig::Reader config) {
  if (config.getKernel().size() == 0) {
    UserError error(codes::NO_KERNEL, kj::str("no kernel is given; a VM needs --kernel FILE or the "
                                              "key \"kernel\" in its configuration file"));
    error.advice("try", "troupe demo").raise();
  }
  if (config.hasName()) checkVmName(config.getName());
  auto serial = parseEndpoint("--serial", config.getSerial(), PtyAllowed::NO);
  auto consoles = planConsoles(config.getConsoles(), serial);
  kj::Maybe<kj::String> initrd;
  if (config.getInitrd().size() > 0) initrd = kj::heapString(config.getInitrd());
  kj::Maybe<kj::String> profileDir;
  if (config.getProfileDir().size() > 0) profileDir = kj::heapString(config.getProfileDir());
  auto rng = planRng(config.getRng());
  VmPlan plan{kj::heapString(config.getName()),
              kj::heapString(config.getKernel()),
              kj::mv(initrd),
              planCmdline(config),
              planCpus(config.getCpus()),
              planMemory(config.getMemory()),
              planDisks(config.getDisks()),
              kj::mv(consoles),
              kj::mv(serial),
              rng.on,
              planCpuMask(config.getCpuMask()),
              parseOnOff("--jail", config.getJail()) ? sandbox::Jail::ON : sandbox::Jail::OFF,
              kj::mv(profileDir),
              planNets(config.getNets(), config.getName()),
              planBalloon(config),
              rng.rate};
  plan.hostMemory = planHostMemory(config.getHostMemory());
  if (config.hasVsock()) plan.vsock = planVsock(config.getVsock());
  if (config.getMetrics().size() > 0) plan.metrics = kj::heapString(config.getMetrics());
  plan.onReboot = parseOnReboot(config.getOnReboot());
  checkDeviceCount(plan);
  plan.records = planRecords(config, recordableDevices(plan));
  return plan;
}

kj::Array<broker::RamRegion> ramOf(const VmPlan& plan) {
  if (plan.placedRam.size() == 0) return broker::ramRegions(plan.memoryBytes);
  return broker::placedRegions(plan.placedRam);
}

void spellOut(VmConfig::Builder config) {
  // Copies: a text set from itself would be overwritten while it is read.
  auto said = config.asReader();
  config.setCmdline(planCmdline(said));
  config.setSerial(kj::str(said.getSerial()));
  config.setMemory(kj::str(said.getMemory()));
  config.setRng(kj::str(said.getRng()));
  config.setJail(kj::str(said.getJail()));
  config.setOnReboot(kj::str(said.getOnReboot()));
  config.setRecordLimit(kj::str(said.getRecordLimit()));
  spellOutDisks(config.getDisks());
  spellOutNets(config.getNets(), said.getName());
  spellOutConsoles(config.getConsoles());
}

}  // namespace troupe
