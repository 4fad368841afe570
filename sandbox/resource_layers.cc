#include "sandbox/resource_layers.h"

#include <algorithm>

#include "sandbox/layer_sources.h"

namespace troupe::sandbox {
namespace {

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

class ResourceReader final: LayerSources {
 public:
  ResourceReader(const std::vector<std::unique_ptr<SourceFile>>& sources,
                 const std::vector<PolicyFd>& fds,
                 const std::function<void(const ProfileError&)>& report, PolicyLayers& layers)
      : LayerSources(sources, fds, report, layers.minimumKernel), layers(layers) {}

  void read() {
    attempt([&] { readMemory(); });
    attempt([&] { readIoUring(); });
    attempt([&] { readCgroup(); });
    attempt([&] { readRestart(); });
  }

 private:
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
      for (const auto& other : layers.ioUringSqeFlags) {
        if (other.name != ring.sqe_flag(i)) continue;
        throw ProfileError(where, ring.sqe_flag(i) + " is given twice; drop one");
      }
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
      if (restart.restarts() != 0 || restart.seconds() != 0 || restart.spare() != 0) {
        throw ProfileError(where,
                           "an actor that is never replaced has no `restarts`, no `seconds` and "
                           "no `spare`; drop them");
      }
    } else {
      checkReplaced(*file, tree, restart, where);
    }
    layers.restart = {restart.policy() == policy::Restart::ALWAYS, restart.restarts(),
                      restart.seconds(), restart.spare()};
    layers.restartAt = where;
  }

  void checkReplaced(const SourceFile& file, const Locations* tree, const policy::Restart& restart,
                     const SourceLocation& where) {
    bool hasLimit = restart.restarts() != 0 || restart.seconds() != 0;
    if (restart.restarts() > MAX_RESTARTS || (hasLimit && restart.restarts() == 0)) {
      throw ProfileError(restart.restarts() == 0 ? where : locate(file, tree, restart, "restarts"),
                         "`restarts` is 1 to 1000");
    }
    if (restart.seconds() > MAX_RESTART_SECONDS || (hasLimit && restart.seconds() == 0)) {
      throw ProfileError(restart.seconds() == 0 ? where : locate(file, tree, restart, "seconds"),
                         "`seconds` is 1 to 86400");
    }
    if (restart.spare() > 1) {
      throw ProfileError(locate(file, tree, restart, "spare"), "`spare` is 0 or 1");
    }
  }

  PolicyLayers& layers;
};

}  // namespace

void readResourceLayers(const std::vector<std::unique_ptr<SourceFile>>& sources,
                        const std::vector<PolicyFd>& fds,
                        const std::function<void(const ProfileError&)>& report,
                        PolicyLayers& layers) {
  ResourceReader(sources, fds, report, layers).read();
}

}  // namespace troupe::sandbox
