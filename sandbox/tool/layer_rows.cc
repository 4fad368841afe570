#include "sandbox/tool/layer_rows.h"

#include <cstdio>

namespace troupe::sandbox {
namespace {

void addIo(const PolicyIoLimit& io, std::vector<LayerRow>& rows) {
  std::string text = "io of " + io.fd + ":";
  auto add = [&](const char* name, uint64_t value) {
    if (value != 0) text += " " + std::string(name) + " " + std::to_string(value);
  };
  add("read_bytes_per_second", io.readBytesPerSecond);
  add("write_bytes_per_second", io.writeBytesPerSecond);
  add("reads_per_second", io.readsPerSecond);
  add("writes_per_second", io.writesPerSecond);
  rows.push_back({"cgroup", text, needText(io.layer), io.where});
}

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string memoryText(const PolicyMemory& memory) {
  std::string text = nameOf(memory.access);
  if (memory.access != ProfileMemory::NONE) text += ", by fd " + memory.fd;
  for (const ProfileMemoryRange& range : memory.ranges)
    text += ", " + hex(range.address) + " to " + hex(range.address + range.size - 1);
  return text;
}

std::string restartText(const ProfileRestart& restart) {
  if (!restart.always) return "NEVER";
  std::string text = "ALWAYS";
  if (restart.restarts > 0) {
    text += ", " + std::to_string(restart.restarts) + " times in " +
            std::to_string(restart.seconds) + " s";
  }
  return restart.spares > 0 ? text + ", with a spare" : text;
}

}  // namespace

std::vector<LayerRow> layerRows(const PolicyLayers& layers) {
  std::vector<LayerRow> rows;
  rows.push_back({"kernel", versionText(layers.minimumKernel) + " or later", "required",
                  layers.minimumKernelAt});
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    const PolicyLayer& one = layers.namespaces[i];
    rows.push_back({"namespaces", nameOf(NamespaceKind(i)), needText(one.layer), one.where});
  }
  if (layers.helper.is) {
    rows.push_back({"helper", layers.helper.reason, "-", layers.helper.where});
  } else {
    rows.push_back({"root", "EMPTY", "required", layers.root});
  }
  for (const PolicyRootEntry& one : layers.helper.root) {
    std::string target = one.target.empty() ? "" : " to " + one.target;
    rows.push_back({"root", std::string(nameOf(one.kind)) + " " + one.path + target,
                    one.optional ? "optional" : "required", one.where});
  }
  for (size_t i = 0; i < LANDLOCK_ACCESS_COUNT; i++) {
    const PolicyLayer& one = layers.landlock[i];
    rows.push_back({"landlock", nameOf(LandlockAccess(i)), needText(one.layer), one.where});
  }
  if (layers.capabilities.empty()) rows.push_back({"capabilities", "none", "required", {}});
  for (const PolicyCapability& one : layers.capabilities)
    rows.push_back({"capability", one.name + ": " + one.reason, "-", one.where});
  rows.push_back({"mdwe", "-", needText(layers.mdwe.layer), layers.mdwe.where});
  rows.push_back({"executable_seals", "-", needText(layers.executableSeals.layer),
                  layers.executableSeals.where});
  rows.push_back({"memory", memoryText(layers.memory), "required", layers.memory.where});
  if (layers.ioUringOpcodes.empty()) rows.push_back({"io_uring", "none", "required", {}});
  for (const PolicyIoUringOpcode& one : layers.ioUringOpcodes)
    rows.push_back({"io_uring", one.name + ": " + layers.ioUringReason, "-", one.where});
  for (const auto& flag : layers.ioUringSqeFlags)
    rows.push_back({"io_uring", "flag " + flag.name, "-", flag.where});
  for (const PolicyCgroupLimit& one : layers.cgroupLimits) {
    rows.push_back({"cgroup", std::string(nameOf(one.kind)) + " " + std::to_string(one.value),
                    needText(one.layer), one.where});
  }
  for (const PolicyIoLimit& one : layers.ioLimits)
    addIo(one, rows);
  rows.push_back({"restart", restartText(layers.restart), "-", layers.restartAt});
  return rows;
}

std::vector<LayerRow> joinedRows(const std::vector<LayerRow>& rows) {
  std::vector<LayerRow> joined;
  for (const LayerRow& row : rows) {
    bool alike = !joined.empty() && joined.back().layer == row.layer &&
                 joined.back().need == row.need && joined.back().where.file == row.where.file &&
                 joined.back().where.line == row.where.line;
    bool isList = row.layer == "namespaces" || row.layer == "landlock";
    if (alike && isList) {
      joined.back().value += ", " + row.value;
    } else {
      joined.push_back(row);
    }
  }
  return joined;
}

}  // namespace troupe::sandbox
