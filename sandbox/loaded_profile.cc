#include "sandbox/loaded_profile.h"

#include <kj/debug.h>
#include <string.h>

#include "tests/fuzz/planted.h"

namespace troupe::sandbox {

// A field that is not carried over would be empty in every replaced profile.
static_assert(sizeof(Profile) == 328, "a new field goes through compiled_profile.capnp, too");

namespace {

// Far above what the compiler makes of any profile.
constexpr size_t MOST_FDS = 256;
constexpr size_t MOST_FILTERS = 32;
constexpr size_t MOST_LIMITS = 16;
constexpr size_t MOST_LAYER_LIMITS = 64;
constexpr size_t MOST_RANGES = 1024;
constexpr size_t MOST_ROOT_ENTRIES = 64;
constexpr size_t LONGEST_TEXT = 4096;
constexpr uint32_t LARGEST_NUMBER = 65535;

void require(bool sound, kj::StringPtr what) {
  if (sound) return;
  KJ_FAIL_REQUIRE(kj::str("TRP-jail-031: the compiler of profiles sent what is none: ", what));
}

constexpr kj::StringPtr KINDS[] = {
    "any"_kj,   "socket"_kj,   "pipe"_kj,     "file"_kj,     "memfd"_kj,    "eventfd"_kj,
    "epoll"_kj, "signalfd"_kj, "timerfd"_kj,  "io_uring"_kj, "terminal"_kj, "character_device"_kj,
    "kvm"_kj,   "kvm_vm"_kj,   "kvm_vcpu"_kj,
};

bool isKind(kj::StringPtr text) {
  for (auto kind : KINDS) {
    if (kind == text) return true;
  }
  return false;
}

bool isStage(kj::StringPtr text) {
  return text == "start" || text == "ready" || text == "run" || text.startsWith("thread:");
}

ProfileLayer layerOf(CompiledProfile::Layer::Reader from) {
  require(from.getNeed() <= ProfileLayer::OPTIONAL, "a layer");
  return {static_cast<ProfileLayer::Need>(from.getNeed()), from.getSince()};
}

ProfileLayer wantedLayerOf(CompiledProfile::Layer::Reader from) {
  auto layer = layerOf(from);
  require(layer.wanted(), "a limit that is off");
  return layer;
}

template <typename List>
void loadLayerList(List from, kj::ArrayPtr<ProfileLayer> to) {
  bool isAny = fuzz::isPlanted(fuzz::Bug::LAYER_COUNT);
  require(from.size() == to.size() || isAny, "the number of layers");
  for (size_t i = 0; i < from.size(); i++)
    to.begin()[i] = layerOf(from[i]);
}

bool sameFd(const ProfileFd& a, const ProfileFd& b) {
  return strcmp(a.name, b.name) == 0 && a.number == b.number && a.count == b.count &&
         strcmp(a.kind, b.kind) == 0 && a.handed == b.handed && a.optional == b.optional &&
         a.closed == b.closed && a.made == b.made;
}

bool contains(const Profile& profile, const ProfileFd& fd) {
  for (size_t i = 0; i < profile.fdCount; i++) {
    if (sameFd(profile.fds[i], fd)) return true;
  }
  return false;
}

}  // namespace

LoadedProfile::LoadedProfile(CompiledProfile::Reader from) {
  loaded.actor = keepWord(from.getActor());
  loaded.source = keep(from.getSource());
  loadFds(from);
  loadFilters(from);
  loadLimits(from);
  loadLayers(from.getLayers());
}

const char* LoadedProfile::keep(kj::StringPtr text) {
  require(text.size() > 0 && text.size() <= LONGEST_TEXT && text.findFirst('\0') == nullptr,
          "a text");
  return texts.add(kj::heapString(text)).cStr();
}

// A name as profiles have them.
const char* LoadedProfile::keepWord(kj::StringPtr text) {
  require(text.size() <= 64, "a name");
  for (char c : text) {
    bool sound =
        (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == ':';
    require(sound, "a name");
  }
  return keep(text);
}

void LoadedProfile::loadFds(CompiledProfile::Reader from) {
  auto list = from.getFds();
  require(list.size() <= MOST_FDS, "the number of fds");
  fds = KJ_MAP(fd, list) {
    require(fd.getNumber() <= LARGEST_NUMBER && fd.getCount() > 0 &&
                fd.getCount() <= LARGEST_NUMBER && isKind(fd.getKind()),
            "an fd");
    return ProfileFd{keepWord(fd.getName()), fd.getNumber(), fd.getCount(),
                     keepWord(fd.getKind()), fd.getHanded(), fd.getOptional(),
                     fd.getClosed(),         fd.getMade()};
  };
  loaded.fds = fds.begin();
  loaded.fdCount = fds.size();
}

void LoadedProfile::loadFilters(CompiledProfile::Reader from) {
  auto list = from.getFilters();
  require(list.size() > 0 && list.size() <= MOST_FILTERS && list[0].getStage() == "start",
          "the filters");
  programs = KJ_MAP(filter, list) {
    auto bytes = filter.getProgram();
    size_t length = bytes.size() / sizeof(sock_filter);
    require(bytes.size() % sizeof(sock_filter) == 0 && length > 0 && length <= BPF_MAXINSNS,
            "a filter");
    auto program = kj::heapArray<sock_filter>(length);
    memcpy(program.begin(), bytes.begin(), bytes.size());
    return program;
  };
  filters = kj::heapArray<ProfileFilter>(list.size());
  for (size_t i = 0; i < filters.size(); i++) {
    require(isStage(list[i].getStage()), "a stage");
    filters[i] = {keepWord(list[i].getStage()), programs[i].begin(), uint16_t(programs[i].size())};
    for (size_t j = 0; j < i; j++)
      require(strcmp(filters[i].stage, filters[j].stage) != 0, "a stage twice");
  }
  loaded.filters = filters.begin();
  loaded.filterCount = filters.size();
}

void LoadedProfile::loadLimits(CompiledProfile::Reader from) {
  auto list = from.getLimits();
  require(list.size() <= MOST_LIMITS, "the number of limits");
  limits = KJ_MAP(limit, list) {
    require(limit.getResource() >= 0 && limit.getResource() < RLIMIT_NLIMITS, "a limit");
    return ProfileLimit{limit.getResource(), limit.getValue()};
  };
  loaded.limits = limits.begin();
  loaded.limitCount = limits.size();
}

void LoadedProfile::loadLayers(CompiledProfile::Layers::Reader from) {
  ProfileLayers& to = loaded.layers;
  loadLayerList(from.getNamespaces(), to.namespaces);
  for (auto kind : {NamespaceKind::USER, NamespaceKind::MOUNT}) {
    require(to.namespaces[size_t(kind)].need == ProfileLayer::REQUIRED,
            "a jail without its own users and mounts");
  }
  loadLayerList(from.getLandlock(), to.landlock);
  to.capabilities = from.getCapabilities();
  to.mdwe = layerOf(from.getMdwe());
  to.executableSeals = layerOf(from.getExecutableSeals());
  to.minimumKernel = from.getMinimumKernel();
  loadMemory(from);
  loadIoUring(from);
  loadCgroup(from);
  to.restart = {from.getIsReplaced(), from.getRestarts(), from.getRestartSeconds(),
                from.getSpares()};
  require(to.restart.spares <= 1, "the number of spare processes");
  loadHelper(from);
}

void LoadedProfile::loadMemory(CompiledProfile::Layers::Reader from) {
  ProfileMemory& to = loaded.layers.memory;
  require(from.getMemoryAccess() <= ProfileMemory::ALL, "the access to memory");
  to.access = static_cast<ProfileMemory::Access>(from.getMemoryAccess());
  to.fd = to.access == ProfileMemory::NONE ? nullptr : keepWord(from.getMemoryFd());
  auto list = from.getMemoryRanges();
  bool some = list.size() > 0;
  require(some == (to.access == ProfileMemory::RANGES) && list.size() <= MOST_RANGES,
          "the ranges of memory");
  ranges = KJ_MAP(range, list) {
    return ProfileMemoryRange{range.getAddress(), range.getSize()};
  };
  uint64_t end = 0;
  for (auto& range : ranges) {
    bool sound = range.address >= end && range.size > 0 && range.size <= ~range.address &&
                 (range.address | range.size) % 4096 == 0;
    require(sound, "a range of memory");
    end = range.address + range.size;
  }
  to.ranges = ranges.begin();
  to.rangeCount = ranges.size();
}

void LoadedProfile::loadIoUring(CompiledProfile::Layers::Reader from) {
  auto numbers = from.getIoUringOpcodes();
  require(numbers.size() <= 256, "the number of opcodes");
  opcodes = kj::heapArray<uint8_t>(numbers.begin(), numbers.size());
  for (size_t i = 1; i < opcodes.size(); i++)
    require(opcodes[i] > opcodes[i - 1], "the order of opcodes");
  loaded.layers.ioUringOpcodes = opcodes.begin();
  loaded.layers.ioUringOpcodeCount = opcodes.size();
  loaded.layers.ioUringSqeFlags = from.getIoUringSqeFlags();
}

void LoadedProfile::loadCgroup(CompiledProfile::Layers::Reader from) {
  ProfileLayers& to = loaded.layers;
  require(from.getCgroupLimits().size() <= MOST_LAYER_LIMITS &&
              from.getIoLimits().size() <= MOST_LAYER_LIMITS,
          "the number of cgroup limits");
  cgroupLimits = KJ_MAP(limit, from.getCgroupLimits()) {
    require(limit.getKind() <= ProfileCgroupLimit::CPU_MAX, "a cgroup limit");
    return ProfileCgroupLimit{static_cast<ProfileCgroupLimit::Kind>(limit.getKind()),
                              limit.getValue(), wantedLayerOf(limit.getLayer())};
  };
  to.cgroupLimits = cgroupLimits.begin();
  to.cgroupLimitCount = cgroupLimits.size();
  ioLimits = KJ_MAP(limit, from.getIoLimits()) {
    return ProfileIoLimit{keepWord(limit.getFd()),        limit.getReadBytesPerSecond(),
                          limit.getWriteBytesPerSecond(), limit.getReadsPerSecond(),
                          limit.getWritesPerSecond(),     wantedLayerOf(limit.getLayer())};
  };
  to.ioLimits = ioLimits.begin();
  to.ioLimitCount = ioLimits.size();
}

void LoadedProfile::loadHelper(CompiledProfile::Layers::Reader from) {
  auto list = from.getRootEntries();
  require(list.size() <= (from.getIsHelper() ? MOST_ROOT_ENTRIES : 0), "the files of a root");
  rootEntries = KJ_MAP(entry, list) {
    kj::StringPtr path = entry.getPath();
    auto whole = kj::str(path, "/");
    bool plain = path.startsWith("/") && strstr(whole.cStr(), "//") == nullptr &&
                 strstr(whole.cStr(), "/./") == nullptr && strstr(whole.cStr(), "/../") == nullptr;
    require(plain && entry.getKind() <= ProfileRootEntry::LINK, "a file of a root");
    bool link = entry.getKind() == ProfileRootEntry::LINK;
    return ProfileRootEntry{static_cast<ProfileRootEntry::Kind>(entry.getKind()), keep(path),
                            link ? keep(entry.getTarget()) : nullptr, entry.getOptional()};
  };
  loaded.layers.helper = {from.getIsHelper(), rootEntries.begin(), rootEntries.size()};
}

void requireSameFds(const Profile& loaded, const Profile& builtIn) {
  require(loaded.fdCount == builtIn.fdCount, "a table of fds of another size");
  for (size_t i = 0; i < loaded.fdCount; i++)
    require(contains(builtIn, loaded.fds[i]), "a table of fds that is not the actor's");
}

}  // namespace troupe::sandbox
