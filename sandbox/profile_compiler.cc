// profile_compiler PROFILE NAME HEADER-PATH-IN-TREE OUT.h OUT.cc
//
// Compiles a sandbox profile into constants: NAME in capitals, a troupe::sandbox::Profile. Runs at
// build time, from the root of the tree.

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <exception>
#include <fstream>
#include <sstream>
#include <string>

#include "sandbox/filter_program.h"
#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {
namespace {

std::string capitals(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::isalnum(c) ? std::toupper(c) : '_'; });
  return text;
}

std::string header(const std::string& source, const std::string& name) {
  return "// Generated from " + source + ".\n#pragma once\n\n#include \"sandbox/profile.h\"\n\n" +
         "namespace troupe {\nextern const sandbox::Profile " + capitals(name) +
         ";\n}  // namespace troupe\n";
}

void writeFds(const Policy& policy, std::ostream& out) {
  auto flag = [](bool set) { return set ? "true" : "false"; };
  out << "constexpr sandbox::ProfileFd FDS[] = {\n";
  for (const PolicyFd& fd : policy.fds) {
    out << "    {\"" << fd.name << "\", " << fd.number << ", " << fd.count << ", \"" << fd.kind
        << "\", " << flag(fd.handed) << ", " << flag(fd.optional) << ", " << flag(fd.closed) << ", "
        << flag(fd.made) << "},\n";
  }
  out << "};\n\n";
}

void writeFilters(const Policy& policy, std::ostream& out) {
  for (size_t i = 0; i < policy.filters.size(); i++) {
    out << "constexpr sock_filter PROGRAM_" << i << "[] = {\n";
    for (const sock_filter& step : buildProgram(policy.filters[i])) {
      out << "    {" << step.code << ", " << int(step.jt) << ", " << int(step.jf) << ", " << step.k
          << "u},\n";
    }
    out << "};\n\n";
  }
  out << "constexpr sandbox::ProfileFilter FILTERS[] = {\n";
  for (size_t i = 0; i < policy.filters.size(); i++) {
    out << "    {\"" << policy.filters[i].stage << "\", PROGRAM_" << i << ", sizeof(PROGRAM_" << i
        << ") / sizeof(sock_filter)},\n";
  }
  out << "};\n\n";
}

std::string layerText(const ProfileLayer& layer) {
  static constexpr const char* NEEDS[] = {"OFF", "REQUIRED", "REQUIRED_SINCE", "OPTIONAL"};
  return std::string("{sandbox::ProfileLayer::") + NEEDS[layer.need] + ", " +
         std::to_string(layer.since) + "}";
}

template <typename Layers>
std::string layerTexts(const Layers& layers) {
  std::string text;
  for (const PolicyLayer& one : layers)
    text += (text.empty() ? "{" : ", ") + layerText(one.layer);
  return text + "}";
}

// A C++ literal of any bytes.
std::string quoted(const std::string& text) {
  std::string literal = "\"";
  for (unsigned char c : text) {
    char escaped[8];
    bool plain = c >= ' ' && c < 0x7f && c != '"' && c != '\\';
    snprintf(escaped, sizeof(escaped), plain ? "%c" : "\\%03o", c);
    literal += escaped;
  }
  return literal + "\"";
}

// An array of its own for each list of a layer that has entries.
void writeLayerLists(const PolicyLayers& layers, std::ostream& out) {
  if (!layers.memory.ranges.empty()) {
    out << "constexpr sandbox::ProfileMemoryRange MEMORY_RANGES[] = {\n";
    for (const ProfileMemoryRange& range : layers.memory.ranges)
      out << "    {" << range.address << "u, " << range.size << "u},\n";
    out << "};\n\n";
  }
  if (!layers.ioUringOpcodes.empty()) {
    out << "constexpr uint8_t IO_URING_OPCODES[] = {";
    for (const PolicyIoUringOpcode& opcode : layers.ioUringOpcodes)
      out << int(opcode.number) << ", ";
    out << "};\n\n";
  }
  if (!layers.helper.root.empty()) {
    out << "constexpr sandbox::ProfileRootEntry ROOT_ENTRIES[] = {\n";
    for (const PolicyRootEntry& entry : layers.helper.root) {
      bool link = entry.kind == ProfileRootEntry::LINK;
      out << "    {sandbox::ProfileRootEntry::" << nameOf(entry.kind) << ", " << quoted(entry.path)
          << ", " << (link ? quoted(entry.target) : "nullptr") << ", "
          << (entry.optional ? "true" : "false") << "},\n";
    }
    out << "};\n\n";
  }
  if (!layers.cgroupLimits.empty()) {
    static constexpr const char* KINDS[] = {"MEMORY_MAX", "PIDS_MAX", "CPU_MAX"};
    out << "constexpr sandbox::ProfileCgroupLimit CGROUP_LIMITS[] = {\n";
    for (const PolicyCgroupLimit& limit : layers.cgroupLimits) {
      out << "    {sandbox::ProfileCgroupLimit::" << KINDS[limit.kind] << ", " << limit.value
          << "u, " << layerText(limit.layer) << "},\n";
    }
    out << "};\n\n";
  }
  if (!layers.ioLimits.empty()) {
    out << "constexpr sandbox::ProfileIoLimit IO_LIMITS[] = {\n";
    for (const PolicyIoLimit& limit : layers.ioLimits) {
      out << "    {\"" << limit.fd << "\", " << limit.readBytesPerSecond << "u, "
          << limit.writeBytesPerSecond << "u, " << limit.readsPerSecond << "u, "
          << limit.writesPerSecond << "u, " << layerText(limit.layer) << "},\n";
    }
    out << "};\n\n";
  }
}

std::string layersText(const PolicyLayers& layers) {
  auto list = [](const char* name, size_t count) {
    return std::string(count == 0 ? "nullptr" : name) + ", " + std::to_string(count);
  };
  uint64_t capabilities = 0;
  for (const PolicyCapability& capability : layers.capabilities)
    capabilities |= uint64_t{1} << capability.number;
  bool none = layers.memory.access == ProfileMemory::NONE;
  int sqeFlags = 0;
  for (const PolicyIoUringOpcode& flag : layers.ioUringSqeFlags)
    sqeFlags |= flag.number;
  std::ostringstream out;
  out << "{" << layerTexts(layers.namespaces) << ",\n        " << layerTexts(layers.landlock)
      << ",\n        " << capabilities << "u, " << layerText(layers.mdwe.layer) << ", "
      << layerText(layers.executableSeals.layer) << ", " << layers.minimumKernel
      << ",\n        {sandbox::ProfileMemory::" << nameOf(layers.memory.access) << ", "
      << (none ? "nullptr" : "\"" + layers.memory.fd + "\"") << ", "
      << list("MEMORY_RANGES", layers.memory.ranges.size()) << "},\n        "
      << list("IO_URING_OPCODES", layers.ioUringOpcodes.size()) << ", " << sqeFlags << ", "
      << list("CGROUP_LIMITS", layers.cgroupLimits.size()) << ", "
      << list("IO_LIMITS", layers.ioLimits.size()) << ", {"
      << (layers.restart.always ? "true, " : "false, ") << layers.restart.restarts << ", "
      << layers.restart.seconds << ", " << layers.restart.spares << "},\n        {"
      << (layers.helper.is ? "true" : "false") << ", "
      << list("ROOT_ENTRIES", layers.helper.root.size()) << "}}";
  return out.str();
}

std::string source(const std::string& from, const std::string& name, const std::string& headerPath,
                   const Policy& policy) {
  std::ostringstream out;
  out << "// Generated from " << from << ".\n#include \"" << headerPath << "\"\n\n"
      << "namespace troupe {\nnamespace {\n\n";
  writeFds(policy, out);
  writeFilters(policy, out);
  if (!policy.limits.empty()) {
    out << "constexpr sandbox::ProfileLimit LIMITS[] = {\n";
    for (const PolicyLimit& limit : policy.limits) {
      out << "    {" << limit.resource << ", " << limit.value << "u},\n";
    }
    out << "};\n\n";
  }
  writeLayerLists(policy.layers, out);
  out << "}  // namespace\n\nconst sandbox::Profile " << capitals(name) << " = {\"" << policy.actor
      << "\", FDS, " << policy.fds.size() << ", FILTERS, " << policy.filters.size() << ", "
      << (policy.limits.empty() ? "nullptr" : "LIMITS") << ", " << policy.limits.size() << ", \""
      << from << "\",\n    " << layersText(policy.layers) << "};\n\n}  // namespace troupe\n";
  return out.str();
}

int compile(char** arguments) {
  std::string from = arguments[1], name = arguments[2], headerPath = arguments[3];
  PolicyReading reading = examinePolicy(FolderFiles(""), from);
  for (const ProfileError& error : reading.errors)
    fprintf(stderr, "%s\n", error.what());
  if (!reading.errors.empty()) return 1;
  const Policy& policy = reading.policy;
  std::string text = source(from, name, headerPath, policy);
  std::ofstream headerFile(arguments[4]), sourceFile(arguments[5]);
  headerFile << header(from, name);
  sourceFile << text;
  headerFile.close();
  sourceFile.close();
  if (headerFile && sourceFile) return 0;
  fprintf(stderr, "%s: cannot write %s or %s\n", arguments[0], arguments[4], arguments[5]);
  return 1;
}

}  // namespace
}  // namespace troupe::sandbox

int main(int count, char** arguments) {
  if (count != 6) {
    fprintf(stderr, "usage: %s PROFILE NAME HEADER-PATH OUT.h OUT.cc\n", arguments[0]);
    return 2;
  }
  try {
    return troupe::sandbox::compile(arguments);
  } catch (const std::exception& error) {
    fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
