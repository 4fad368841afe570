// Fuzzes what reads a compiled profile: the compiler may be in the hands of who wrote the profile.
// Whatever it sends is refused, or keeps every promise of sandbox/profile.h.
#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>

#include <cstring>

#include "sandbox/fuzz_message.h"
#include "sandbox/loaded_profile.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/op.h"

namespace troupe::sandbox {
namespace {

using fuzz::finding;
using fuzz::Op;

void require(bool holds, const char* promise) {
  if (!holds) finding(kj::str("a profile was taken in which ", promise, " does not hold"));
}

template <typename Builder>
void fillLayer(Builder layer, const Op& op) {
  layer.setNeed(op.a & 4 ? op.a : op.a % 4);
  layer.setSince(op.c);
}

// A sound profile, but for what the operations make of it.
void fill(CompiledProfile::Builder profile, const fuzzing::Operations& ops) {
  profile.setPath("devices/rng/rng.profile");
  profile.setActor(ops.text(0, "sample"));
  profile.setSource(ops.text(1, "/etc/mine/sample.profile"));
  auto fds = ops.of(2);
  auto fdList = profile.initFds(fds.size());
  for (uint32_t i = 0; i < fds.size(); i++) {
    fdList[i].setName(fuzzing::word(fds[i].a, "disk"));
    fdList[i].setNumber(fds[i].a & 0x40 ? fds[i].c : i);
    fdList[i].setCount(fds[i].a & 0x20 ? fds[i].b : 1);
    fdList[i].setKind(fuzzing::word(fds[i].b, "file"));
    fdList[i].setHanded(fds[i].d & 1);
  }
  auto filters = ops.of(3);
  auto filterList = profile.initFilters(filters.size() + 1);
  for (uint32_t i = 0; i < filterList.size(); i++) {
    bool isFirst = i == 0;
    filterList[i].setStage(isFirst ? "start"_kj : fuzzing::word(filters[i - 1].a, "run"));
    size_t size = isFirst ? 8 : filters[i - 1].a & 0x40 ? filters[i - 1].b : 8 * (i + 1);
    filterList[i].setProgram(kj::heapArray<kj::byte>(kj::min(size, size_t(40000))));
  }
  auto limits = ops.of(4);
  auto limitList = profile.initLimits(limits.size());
  for (uint32_t i = 0; i < limits.size(); i++) {
    limitList[i].setResource(limits[i].c);
    limitList[i].setValue(limits[i].d);
  }
  auto layers = profile.initLayers();
  auto namespaces = layers.initNamespaces(ops.number(5, NAMESPACE_COUNT) % 40);
  for (auto layer : namespaces)
    layer.setNeed(ProfileLayer::REQUIRED);
  auto landlock = layers.initLandlock(ops.number(6, LANDLOCK_ACCESS_COUNT) % 40);
  for (const Op& op : ops.of(7)) {
    if (op.a & 0x80) {
      if (namespaces.size() > 0) fillLayer(namespaces[op.b % namespaces.size()], op);
    } else if (landlock.size() > 0) {
      fillLayer(landlock[op.b % landlock.size()], op);
    }
  }
  layers.setMemoryAccess(ops.number(8, 0));
  layers.setMemoryFd(ops.text(8, "ram"));
  auto ranges = ops.of(9);
  auto rangeList = layers.initMemoryRanges(ranges.size());
  for (uint32_t i = 0; i < ranges.size(); i++) {
    bool raw = ranges[i].a & 1;
    rangeList[i].setAddress(raw ? ranges[i].d : i * 0x100000);
    rangeList[i].setSize(raw ? ranges[i].c : 0x1000);
  }
  auto limited = ops.of(10);
  auto cgroups = layers.initCgroupLimits(limited.size());
  auto io = layers.initIoLimits(limited.size());
  for (uint32_t i = 0; i < limited.size(); i++) {
    cgroups[i].setKind(limited[i].b % 5);
    cgroups[i].setValue(limited[i].d);
    fillLayer(cgroups[i].initLayer(), limited[i]);
    io[i].setFd(fuzzing::word(limited[i].b >> 8, "disk"));
    fillLayer(io[i].initLayer(), limited[i]);
  }
  for (const Op& op : ops.of(11)) {
    auto opcodes = layers.initIoUringOpcodes(op.b % 300);
    for (uint32_t i = 0; i < opcodes.size(); i++)
      opcodes[i] = op.a & 1 ? i : i * 7;
  }
}

bool isText(const char* text) {
  return text != nullptr && strlen(text) > 0 && strlen(text) <= 4096;
}

void requireLayers(const ProfileLayer* layers, size_t count) {
  for (size_t i = 0; i < count; i++)
    require(layers[i].need <= ProfileLayer::OPTIONAL, "a layer's need");
}

// What sandbox/profile.h promises, and everybody who starts an actor believes.
void check(const Profile& profile) {
  require(isText(profile.actor) && isText(profile.source), "a name");
  for (size_t i = 0; i < profile.fdCount; i++) {
    const ProfileFd& fd = profile.fds[i];
    require(isText(fd.name) && isText(fd.kind), "the name of an fd");
    require(fd.count >= 1 && fd.number <= 65535 && fd.count <= 65535, "the number of an fd");
  }
  require(profile.filterCount >= 1 && strcmp(profile.filters[0].stage, "start") == 0, "a start");
  uint64_t sum = 0;
  for (size_t i = 0; i < profile.filterCount; i++) {
    const ProfileFilter& filter = profile.filters[i];
    require(isText(filter.stage) && filter.length >= 1 && filter.length <= BPF_MAXINSNS,
            "a filter");
    for (uint16_t j = 0; j < filter.length; j++)
      sum += filter.program[j].k;
  }
  fuzzing::looked = sum;  // so that each instruction is looked at
  for (size_t i = 0; i < profile.limitCount; i++)
    require(profile.limits[i].resource >= 0 && profile.limits[i].resource < RLIMIT_NLIMITS,
            "a limit");
  const ProfileLayers& layers = profile.layers;
  requireLayers(layers.namespaces, NAMESPACE_COUNT);
  requireLayers(layers.landlock, LANDLOCK_ACCESS_COUNT);
  for (auto kind : {NamespaceKind::USER, NamespaceKind::MOUNT}) {
    require(layers.namespaces[size_t(kind)].need == ProfileLayer::REQUIRED,
            "that user and mount are required");
  }
  const ProfileMemory& memory = layers.memory;
  require((memory.fd == nullptr) == (memory.access == ProfileMemory::NONE), "the fd of memory");
  require((memory.rangeCount > 0) == (memory.access == ProfileMemory::RANGES), "memory's ranges");
  uint64_t end = 0;
  for (size_t i = 0; i < memory.rangeCount; i++) {
    const ProfileMemoryRange& range = memory.ranges[i];
    require(range.address >= end && range.size > 0 && range.address + range.size > range.address,
            "the order of ranges");
    require((range.address | range.size) % 4096 == 0, "whole pages");
    end = range.address + range.size;
  }
  for (size_t i = 1; i < layers.ioUringOpcodeCount; i++)
    require(layers.ioUringOpcodes[i] > layers.ioUringOpcodes[i - 1], "ascending opcodes");
  for (size_t i = 0; i < layers.cgroupLimitCount; i++) {
    require(layers.cgroupLimits[i].kind <= ProfileCgroupLimit::CPU_MAX, "a cgroup limit's kind");
    requireLayers(&layers.cgroupLimits[i].layer, 1);
    require(layers.cgroupLimits[i].layer.wanted(), "a cgroup limit's layer");
  }
  for (size_t i = 0; i < layers.ioLimitCount; i++) {
    require(isText(layers.ioLimits[i].fd), "an io limit's fd");
    requireLayers(&layers.ioLimits[i].layer, 1);
    require(layers.ioLimits[i].layer.wanted(), "an io limit's layer");
  }
}

}  // namespace
}  // namespace troupe::sandbox

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace troupe::sandbox;
  fuzzing::Quiet quiet;
  fuzzing::Operations ops(kj::arrayPtr(data, size), 12);
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<troupe::CompiledProfile>(), ops);
  auto words = capnp::messageToFlatArray(message);
  ops.poke(words.asBytes());
  // A refusal is an exception; so is a message that is none.
  kj::runCatchingExceptions([&] {
    capnp::FlatArrayMessageReader reader(words);
    LoadedProfile loaded(reader.getRoot<troupe::CompiledProfile>());
    check(loaded.profile());
    requireSameFds(loaded.profile(), loaded.profile());
  });
  return 0;
}
