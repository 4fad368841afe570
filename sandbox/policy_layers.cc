#include "sandbox/policy_layers.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "sandbox/constants.h"
#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;

constexpr ProfileLayer REQUIRED = {ProfileLayer::REQUIRED, 0};

constexpr ProfileLayer since(uint32_t major, uint32_t minor) {
  return {ProfileLayer::REQUIRED_SINCE, kernelVersion(major, minor)};
}

// More restarts or a longer time than these are a mistake in the unit.
constexpr uint32_t MAX_RESTARTS = 1000;
constexpr uint32_t MAX_RESTART_SECONDS = 24 * 60 * 60;

// What a device maps in one go (devices/virtio/ram_mapping.cc).
constexpr int MAX_MEMORY_RANGES = 64;
constexpr uint64_t MEMORY_PAGE = 4096;

// cgroup figures beyond these limit nothing.
constexpr uint64_t MIN_MEMORY = 1 << 20;
constexpr uint64_t MAX_MEMORY = uint64_t{1} << 50;
constexpr uint64_t MAX_PIDS = 4194304;
constexpr uint64_t MAX_CPU_PERCENT = 100 * 8192;

bool isBeneath(const SourceFile& file, const SourceFile& top) {
  return std::any_of(top.includes.begin(), top.includes.end(), [&](const SourceFile* include) {
    return include == &file || isBeneath(file, *include);
  });
}

// "6.12", and nothing else; none when it is no version.
std::optional<uint32_t> parseVersion(const std::string& text) {
  uint32_t parts[2] = {};
  size_t at = 0;
  for (int part = 0; part < 2; part++) {
    size_t begin = at;
    while (at < text.size() && at < begin + 3 && text[at] >= '0' && text[at] <= '9')
      parts[part] = parts[part] * 10 + (text[at++] - '0');
    bool written = at > begin && (at == begin + 1 || text[begin] != '0');
    if (!written || (part == 0 && (at == text.size() || text[at++] != '.'))) return std::nullopt;
  }
  if (at != text.size() || parts[0] == 0) return std::nullopt;
  return kernelVersion(parts[0], parts[1]);
}

class LayerReader {
 public:
  LayerReader(const std::vector<std::unique_ptr<SourceFile>>& sources,
              const std::vector<PolicyFd>& fds,
              const std::function<void(const ProfileError&)>& report)
      : sources(sources), fds(fds), report(report) {}

  PolicyLayers read() {
    attempt([&] { readMinimumKernel(); });
    attempt([&] { readNamespaces(); });
    attempt([&] { readRoot(); });
    attempt([&] { readLandlock(); });
    attempt([&] { readCapabilities(); });
    attempt([&] { readLayer("mdwe", layers.mdwe); });
    attempt([&] { readLayer("executable_seals", layers.executableSeals); });
    attempt([&] { readMemory(); });
    attempt([&] { readIoUring(); });
    attempt([&] { readCgroup(); });
    attempt([&] { readRestart(); });
    return std::move(layers);
  }

 private:
  template <typename Step>
  void attempt(Step&& step) {
    try {
      step();
    } catch (const ProfileError& error) {
      report(error);
    }
  }

  static bool speaksOf(const SourceFile& file, const std::string& name) {
    const auto& profile = file.profile;
    auto field = profile.GetDescriptor()->FindFieldByName(name);
    auto reflection = profile.GetReflection();
    return field->is_repeated() ? reflection->FieldSize(profile, field) > 0
                                : reflection->HasField(profile, field);
  }

  static SourceLocation place(const SourceFile& file, const std::string& name, int index = 0) {
    return locate(file, &file.locations, file.profile, name, index);
  }

  static const Locations* within(const SourceFile& file, const std::string& name, int index = 0) {
    return inside(&file.locations, file.profile, name, index);
  }

  // The file whose word on a layer counts: it includes all others that have one. None: nobody has.
  const SourceFile* speaker(const std::string& name) const {
    std::vector<const SourceFile*> speakers;
    for (const auto& source : sources) {
      if (speaksOf(*source, name)) speakers.push_back(source.get());
    }
    if (speakers.empty()) return nullptr;
    // Included files come before those that include them.
    const SourceFile* last = speakers.back();
    for (const SourceFile* other : speakers) {
      if (other == last || isBeneath(*other, *last)) continue;
      throw ProfileError(place(*last, name), "`" + name + "` is given at " +
                                                 describe(place(*other, name)) +
                                                 " too, and this file does not include that one; "
                                                 "say in " +
                                                 sources.back()->path + " which holds");
    }
    return last;
  }

  // What stands in an `optional` field.
  ProfileLayer need(const std::string& text, const SourceLocation& where) const {
    if (text.empty()) return REQUIRED;
    if (text == "yes") return {ProfileLayer::OPTIONAL, 0};
    constexpr const char SINCE[] = "since ";
    if (text.compare(0, sizeof(SINCE) - 1, SINCE) == 0) {
      if (auto version = parseVersion(text.substr(sizeof(SINCE) - 1))) {
        if (*version > layers.minimumKernel) return {ProfileLayer::REQUIRED_SINCE, *version};
        throw ProfileError(where, "every kernel from `minimum_kernel` (" +
                                      versionText(layers.minimumKernel) +
                                      ") on is that new; drop "
                                      "`optional`");
      }
    }
    throw ProfileError(where, "`optional` is \"" + text +
                                  "\"; it is \"since X.Y\", where X.Y is the kernel from which on "
                                  "the layer must be there, or \"yes\"");
  }

  template <typename Message>
  ProfileLayer needOf(const SourceFile& file, const Locations* tree, const Message& message) const {
    return need(message.optional(), locate(file, tree, message, "optional"));
  }

  void readMinimumKernel() {
    const SourceFile* file = speaker("minimum_kernel");
    if (file == nullptr) return;
    SourceLocation where = place(*file, "minimum_kernel");
    auto version = parseVersion(file->profile.minimum_kernel());
    if (!version) {
      throw ProfileError(where, "`minimum_kernel` is \"" + file->profile.minimum_kernel() +
                                    "\"; it is a version like \"6.1\"");
    }
    layers.minimumKernel = *version;
    layers.minimumKernelAt = where;
  }

  void readNamespaces() {
    const SourceFile* file = speaker("namespaces");
    if (file == nullptr) return;
    std::array<PolicyLayer, NAMESPACE_COUNT> read = {};
    for (int i = 0; i < file->profile.namespaces_size(); i++) {
      const policy::Namespaces& group = file->profile.namespaces(i);
      const Locations* tree = within(*file, "namespaces", i);
      if (group.kind_size() == 0) {
        throw ProfileError(place(*file, "namespaces", i), "`namespaces` lists each `kind`: USER");
      }
      ProfileLayer layer = needOf(*file, tree, group);
      for (int k = 0; k < group.kind_size(); k++) {
        SourceLocation where = locate(*file, tree, group, "kind", k);
        if (group.kind(k) == policy::Namespaces::UNSPECIFIED) {
          throw ProfileError(where,
                             "UNSPECIFIED is no namespace; they are USER, PID, NET, MOUNT, "
                             "IPC, UTS and CGROUP");
        }
        std::string name = policy::Namespaces::Kind_Name(group.kind(k));
        PolicyLayer& slot = read[group.kind(k) - 1];
        if (slot.layer.wanted()) throw ProfileError(where, name + " is given twice; drop one");
        bool carries =
            group.kind(k) == policy::Namespaces::USER || group.kind(k) == policy::Namespaces::MOUNT;
        if (carries && layer.need != ProfileLayer::REQUIRED) {
          throw ProfileError(where, name +
                                        " cannot be optional: the empty root is built in the "
                                        "actor's own user and mount namespaces");
        }
        slot = {layer, where};
      }
    }
    for (auto kind : {NamespaceKind::USER, NamespaceKind::MOUNT}) {
      if (read[size_t(kind)].layer.wanted()) continue;
      throw ProfileError(place(*file, "namespaces"),
                         "USER and MOUNT are always among the namespaces: the empty root is built "
                         "in them; add both");
    }
    layers.namespaces = read;
  }

  void readRoot() {
    const SourceFile* file = speaker("root");
    if (file != nullptr) layers.root = place(*file, "root");
  }

  void readLandlock() {
    const SourceFile* file = speaker("landlock");
    if (file == nullptr) return;
    std::array<PolicyLayer, LANDLOCK_ACCESS_COUNT> read = {};
    for (int i = 0; i < file->profile.landlock_size(); i++) {
      const policy::Landlock& group = file->profile.landlock(i);
      const Locations* tree = within(*file, "landlock", i);
      if (group.deny_size() == 0) {
        throw ProfileError(place(*file, "landlock", i),
                           "`landlock` lists what it is to `deny`: FILES");
      }
      ProfileLayer layer = needOf(*file, tree, group);
      for (int k = 0; k < group.deny_size(); k++) {
        SourceLocation where = locate(*file, tree, group, "deny", k);
        if (group.deny(k) == policy::Landlock::UNSPECIFIED) {
          throw ProfileError(where,
                             "UNSPECIFIED is nothing to deny; there are FILES, TRUNCATE, "
                             "TCP, DEVICE_IOCTLS, ABSTRACT_SOCKETS and SIGNALS");
        }
        PolicyLayer& slot = read[group.deny(k) - 1];
        if (slot.layer.wanted()) {
          throw ProfileError(
              where, policy::Landlock::Access_Name(group.deny(k)) + " is given twice; drop one");
        }
        slot = {layer, where};
      }
    }
    layers.landlock = read;
  }

  void readCapabilities() {
    const SourceFile* file = speaker("capability");
    if (file == nullptr) return;
    for (int i = 0; i < file->profile.capability_size(); i++) {
      const policy::Capability& capability = file->profile.capability(i);
      const Locations* tree = within(*file, "capability", i);
      SourceLocation where = locate(*file, tree, capability, "name");
      uint64_t number =
          constant("CAP_", capability.name(), "capability", where, place(*file, "capability", i));
      if (capability.reason().empty()) {
        throw ProfileError(place(*file, "capability", i),
                           "the capability " + capability.name() +
                               " has no `reason`; say who needs it, and for what");
      }
      for (const PolicyCapability& other : layers.capabilities) {
        if (other.number == number) {
          throw ProfileError(where, capability.name() + " is given twice; drop one");
        }
      }
      layers.capabilities.push_back(
          {uint32_t(number), capability.name(), capability.reason(), where});
    }
  }

  // The value of a C constant that is written without its prefix.
  static uint64_t constant(const std::string& prefix, const std::string& name,
                           const std::string& what, const SourceLocation& where,
                           const SourceLocation& whole) {
    if (name.empty()) throw ProfileError(whole, "names no " + what);
    auto value = findConstant(prefix + name);
    if (value) return *value;
    std::string advice;
    if (name.compare(0, prefix.size(), prefix) == 0) {
      advice = "; it is written without " + prefix;
    } else {
      std::string nearest = nearestConstant(prefix + name);
      bool alike = nearest.size() > prefix.size() && nearest.compare(0, prefix.size(), prefix) == 0;
      if (alike) advice = "; the nearest is " + nearest.substr(prefix.size());
    }
    throw ProfileError(where, "there is no " + what + " \"" + name + "\"" + advice);
  }

  void readLayer(const std::string& name, PolicyLayer& result) {
    const SourceFile* file = speaker(name);
    if (file == nullptr) return;
    const policy::Layer& layer =
        name == "mdwe" ? file->profile.mdwe() : file->profile.executable_seals();
    const Locations* tree = within(*file, name);
    if (!layer.off().empty() && !layer.optional().empty()) {
      throw ProfileError(locate(*file, tree, layer, "off"),
                         "a layer that is `off` has no `optional`; drop one");
    }
    bool off = !layer.off().empty();
    ProfileLayer wanted = off ? ProfileLayer{ProfileLayer::OFF, 0} : needOf(*file, tree, layer);
    result = {wanted, place(*file, name)};
  }

  const PolicyFd& fdNamed(const std::string& name, const SourceLocation& where) const {
    std::string known;
    for (const PolicyFd& fd : fds) {
      if (fd.name == name) return fd;
      known += (known.empty() ? "" : ", ") + fd.name;
    }
    throw ProfileError(where, "the profile has no fd \"" + name + "\"; it has " +
                                  (known.empty() ? "none" : known));
  }

  void readMemory() {
    const SourceFile* file = speaker("memory");
    if (file == nullptr) return;
    const policy::Memory& memory = file->profile.memory();
    const Locations* tree = within(*file, "memory");
    SourceLocation where = place(*file, "memory");
    if (memory.access() == policy::Memory::UNSPECIFIED) {
      throw ProfileError(where, "`memory` has an `access`: NONE, READ_ONLY, RANGES or ALL");
    }
    auto access = ProfileMemory::Access(memory.access() - 1);
    if (access == ProfileMemory::NONE) {
      if (!memory.fd().empty()) {
        throw ProfileError(locate(*file, tree, memory, "fd"),
                           "an actor without access to guest RAM has no fd of it; drop `fd`");
      }
    } else {
      if (memory.fd().empty()) {
        throw ProfileError(where, "`memory` names the `fd` that is guest RAM");
      }
      checkMemoryFd(access, fdNamed(memory.fd(), locate(*file, tree, memory, "fd")),
                    locate(*file, tree, memory, "fd"));
    }
    layers.memory = {access, memory.fd(), rangesOf(*file, tree, memory, where), where};
  }

  static std::vector<ProfileMemoryRange> rangesOf(const SourceFile& file, const Locations* tree,
                                                  const policy::Memory& memory,
                                                  const SourceLocation& whole) {
    bool wanted = memory.access() == policy::Memory::RANGES;
    if (wanted && memory.range_size() == 0) {
      throw ProfileError(whole, "`memory` with RANGES names each `range` { address: … size: … }");
    }
    if (memory.range_size() > MAX_MEMORY_RANGES) {
      throw ProfileError(whole, "`memory` has " + std::to_string(memory.range_size()) +
                                    " ranges; at most " + std::to_string(MAX_MEMORY_RANGES) +
                                    " can be mapped");
    }
    std::vector<ProfileMemoryRange> ranges;
    for (int i = 0; i < memory.range_size(); i++) {
      SourceLocation where = locate(file, tree, memory, "range", i);
      if (!wanted) throw ProfileError(where, "`range` goes with `access: RANGES` only");
      ProfileMemoryRange range = {memory.range(i).address(), memory.range(i).size()};
      if (range.size == 0 || range.address % MEMORY_PAGE != 0 || range.size % MEMORY_PAGE != 0) {
        throw ProfileError(where,
                           "a range is made of whole pages: `address` and `size` are "
                           "multiples of 4096, and `size` is not 0");
      }
      if (range.size > UINT64_MAX - range.address) {
        throw ProfileError(where, "this range goes beyond the last address");
      }
      if (i > 0 && range.address < ranges.back().address + ranges.back().size) {
        throw ProfileError(where, "this range begins before the end of the one above it");
      }
      ranges.push_back(range);
    }
    return ranges;
  }

  static void checkMemoryFd(ProfileMemory::Access access, const PolicyFd& fd,
                            const SourceLocation& where) {
    if (fd.kind != "memfd" || fd.count != 1) {
      throw ProfileError(where, "guest RAM is one fd of kind MEMFD; \"" + fd.name + "\" (" +
                                    describe(fd.where) + ") is not");
    }
    if (access == ProfileMemory::RANGES && !fd.closed) {
      throw ProfileError(where,
                         "an actor that may reach ranges of guest RAM keeps no fd of all of "
                         "it: \"" +
                             fd.name + "\" (" + describe(fd.where) + ") needs `closed: true`");
    }
  }

  void readIoUring() {
    const SourceFile* file = speaker("io_uring");
    if (file == nullptr) return;
    const policy::IoUring& ring = file->profile.io_uring();
    const Locations* tree = within(*file, "io_uring");
    SourceLocation whole = place(*file, "io_uring");
    if (ring.opcode_size() == 0) {
      throw ProfileError(whole, "`io_uring` names each `opcode`; without any, drop it");
    }
    if (ring.reason().empty()) {
      throw ProfileError(whole, "`io_uring` has no `reason`; say who needs it, and for what");
    }
    for (int i = 0; i < ring.opcode_size(); i++) {
      SourceLocation where = locate(*file, tree, ring, "opcode", i);
      uint64_t number =
          constant("IORING_OP_", ring.opcode(i), "operation of io_uring", where, where);
      for (const PolicyIoUringOpcode& other : layers.ioUringOpcodes) {
        if (other.number == number) {
          throw ProfileError(where, ring.opcode(i) + " is given twice; drop one");
        }
      }
      layers.ioUringOpcodes.push_back({uint8_t(number), ring.opcode(i), where});
    }
    for (int i = 0; i < ring.sqe_flag_size(); i++) {
      SourceLocation where = locate(*file, tree, ring, "sqe_flag", i);
      uint64_t bit =
          constant("IOSQE_", ring.sqe_flag(i), "flag of io_uring operations", where, where);
      layers.ioUringSqeFlags.push_back({uint8_t(bit), ring.sqe_flag(i), where});
    }
    layers.ioUringReason = ring.reason();
    std::sort(layers.ioUringOpcodes.begin(), layers.ioUringOpcodes.end(),
              [](const auto& a, const auto& b) { return a.number < b.number; });
  }

  void readCgroup() {
    const SourceFile* file = speaker("cgroup");
    if (file == nullptr) return;
    const policy::Cgroup& cgroup = file->profile.cgroup();
    const Locations* tree = within(*file, "cgroup");
    auto maximum = [&](bool given, const policy::Cgroup::Maximum& value, const char* name,
                       ProfileCgroupLimit::Kind kind, uint64_t least, uint64_t most) {
      if (!given) return;
      const Locations* inner = inside(tree, cgroup, name);
      SourceLocation where = locate(*file, tree, cgroup, name);
      if (value.value() < least || value.value() > most) {
        throw ProfileError(value.value() == 0 ? where : locate(*file, inner, value, "value"),
                           std::string("the `value` of ") + name + " is " +
                               std::to_string(value.value()) + "; it is " + std::to_string(least) +
                               " to " + std::to_string(most));
      }
      ProfileLayer layer = needOf(*file, inner, value);
      layers.cgroupLimits.push_back({kind, value.value(), layer, where});
    };
    attempt([&] {
      maximum(cgroup.has_memory_max(), cgroup.memory_max(), "memory_max",
              ProfileCgroupLimit::MEMORY_MAX, MIN_MEMORY, MAX_MEMORY);
    });
    attempt([&] {
      maximum(cgroup.has_pids_max(), cgroup.pids_max(), "pids_max", ProfileCgroupLimit::PIDS_MAX, 1,
              MAX_PIDS);
    });
    attempt([&] {
      maximum(cgroup.has_cpu_max(), cgroup.cpu_max(), "cpu_max", ProfileCgroupLimit::CPU_MAX, 1,
              MAX_CPU_PERCENT);
    });
    for (int i = 0; i < cgroup.io_size(); i++)
      attempt([&] { readIo(*file, tree, cgroup, i); });
    if (!cgroup.has_memory_max() && !cgroup.has_pids_max() && !cgroup.has_cpu_max() &&
        cgroup.io_size() == 0) {
      throw ProfileError(place(*file, "cgroup"),
                         "`cgroup` limits nothing; it has memory_max, pids_max, cpu_max and io");
    }
  }

  void readIo(const SourceFile& file, const Locations* cgroupTree, const policy::Cgroup& cgroup,
              int index) {
    const policy::Cgroup::Io& io = cgroup.io(index);
    const Locations* tree = inside(cgroupTree, cgroup, "io", index);
    SourceLocation where = locate(file, cgroupTree, cgroup, "io", index);
    if (io.fd().empty()) throw ProfileError(where, "`io` names the `fd` whose device it limits");
    const PolicyFd& fd = fdNamed(io.fd(), locate(file, tree, io, "fd"));
    if (fd.kind != "file" && fd.kind != "any") {
      throw ProfileError(locate(file, tree, io, "fd"), "`io` is about files and block devices; \"" +
                                                           fd.name + "\" is of kind " + fd.kind);
    }
    for (const PolicyIoLimit& other : layers.ioLimits) {
      if (other.fd == io.fd()) {
        throw ProfileError(where, "`io` of \"" + io.fd() + "\" is given at " +
                                      describe(other.where) + " too; keep one");
      }
    }
    bool limits = io.read_bytes_per_second() != 0 || io.write_bytes_per_second() != 0 ||
                  io.reads_per_second() != 0 || io.writes_per_second() != 0;
    if (!limits) {
      throw ProfileError(where,
                         "`io` limits nothing; it has read_bytes_per_second, "
                         "write_bytes_per_second, reads_per_second and writes_per_second");
    }
    layers.ioLimits.push_back({io.fd(), io.read_bytes_per_second(), io.write_bytes_per_second(),
                               io.reads_per_second(), io.writes_per_second(),
                               needOf(file, tree, io), where});
  }

  void readRestart() {
    const SourceFile* file = speaker("restart");
    if (file == nullptr) return;
    const policy::Restart& restart = file->profile.restart();
    const Locations* tree = within(*file, "restart");
    SourceLocation where = place(*file, "restart");
    if (restart.policy() == policy::Restart::UNSPECIFIED) {
      throw ProfileError(where, "`restart` has a `policy`: NEVER or ALWAYS");
    }
    if (restart.policy() == policy::Restart::NEVER) {
      if (restart.restarts() != 0 || restart.seconds() != 0) {
        throw ProfileError(where,
                           "an actor that is never replaced has no `restarts` and no "
                           "`seconds`; drop them");
      }
    } else if (restart.restarts() < 1 || restart.restarts() > MAX_RESTARTS) {
      throw ProfileError(restart.restarts() == 0 ? where : locate(*file, tree, restart, "restarts"),
                         "`restarts` is 1 to 1000");
    } else if (restart.seconds() < 1 || restart.seconds() > MAX_RESTART_SECONDS) {
      throw ProfileError(restart.seconds() == 0 ? where : locate(*file, tree, restart, "seconds"),
                         "`seconds` is 1 to 86400");
    }
    layers.restart = {restart.restarts(), restart.seconds()};
    layers.restartAt = where;
  }

  const std::vector<std::unique_ptr<SourceFile>>& sources;
  const std::vector<PolicyFd>& fds;
  const std::function<void(const ProfileError&)>& report;
  PolicyLayers layers;
};

}  // namespace

PolicyLayers::PolicyLayers()
    : landlock{{{REQUIRED, {}},
                {since(6, 2), {}},
                {since(6, 7), {}},
                {since(6, 10), {}},
                {since(6, 12), {}},
                {since(6, 12), {}}}},
      mdwe{since(6, 3), {}},
      executableSeals{since(6, 3), {}},
      minimumKernel(kernelVersion(6, 1)) {
  namespaces.fill({REQUIRED, {}});
}

PolicyLayers readLayers(const std::vector<std::unique_ptr<SourceFile>>& sources,
                        const std::vector<PolicyFd>& fds,
                        const std::function<void(const ProfileError&)>& report) {
  return LayerReader(sources, fds, report).read();
}

}  // namespace troupe::sandbox
