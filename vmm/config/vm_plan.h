#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "broker/ram_layout.h"
#include "protos/broker.capnp.h"
#include "protos/config.capnp.h"
#include "sandbox/launcher.h"
#include "vmm/config/balloon_option.h"
#include "vmm/config/console_plan.h"
#include "vmm/config/disk_plan.h"
#include "vmm/config/endpoint.h"
#include "vmm/config/host_memory_words.h"
#include "vmm/config/net_plan.h"
#include "vmm/config/on_reboot.h"
#include "vmm/config/rate_plan.h"
#include "vmm/config/record_plan.h"
#include "vmm/config/vsock_plan.h"

namespace troupe {

constexpr uint32_t MOST_CPUS = 255;     // xAPIC ids are 8 bits and 255 means all
constexpr uint64_t RAM_STEP = 2 << 20;  // the broker maps RAM in huge pages where it can
constexpr size_t LONGEST_NAME = 64;
constexpr size_t LONGEST_CMDLINE = 2047;  // COMMAND_LINE_SIZE of Linux on x86, less its NUL

// A configuration that was checked as far as that is possible without looking at the host: every
// value is in range and no two contradict each other.
struct VmPlan {
  kj::String name;  // empty: to be generated
  kj::String kernel;
  kj::Maybe<kj::String> initrd;
  kj::String cmdline;
  uint32_t cpus;
  uint64_t memoryBytes;
  kj::Array<DiskPlan> disks;
  kj::Array<ConsolePlan> consoles;  // ports of one device
  Endpoint serial;
  bool rng;
  kj::Array<kj::String> cpuMask;
  sandbox::Jail jail;
  kj::Maybe<kj::String> profileDir;  // whose profiles replace those built in
  kj::Array<NetPlan> nets;
  kj::Maybe<BalloonPlan> balloon;
  RatePlan rngRate;
  OnReboot onReboot = OnReboot::RESTART;
  kj::Maybe<VsockPlan> vsock = nullptr;
  kj::Maybe<kj::String> metrics = nullptr;  // the path of a socket
  RecordPlans records = {};
  kj::Array<HostMemoryWords> hostMemory = nullptr;
  // What a bundle alone says (realm/launch.h).
  kj::Array<broker::RamRange> placedRam = nullptr;  // memoryBytes in all; empty: placed by size
  KernelKind kernelKind = KernelKind::ANY;
  kj::Maybe<kj::String> deviceTree = nullptr;  // for Linux
};

// Where its RAM lies, in the guest and in the RAM file.
kj::Array<broker::RamRegion> ramOf(const VmPlan& plan);

// Throws a user error for the first value that does not do.
VmPlan planVm(VmConfig::Reader config);

// Writes what was left to a default, or said relative to one, out in full: what --print-config
// shows. `config` has passed planVm().
void spellOut(VmConfig::Builder config);

// Throws unless `name` may name a VM: letters, digits, '.', '_' and '-', beginning with a letter or
// a digit.
void checkVmName(kj::StringPtr name);

}  // namespace troupe
