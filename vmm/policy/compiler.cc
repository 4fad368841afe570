#include "vmm/policy/compiler.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <string>

#include "protos/compiled_profile.capnp.h"
#include "sandbox/actor_setup.h"
#include "sandbox/last_words.h"
#include "sandbox/tool/looser.h"
#include "vmm/policy/catalogue.h"
#include "vmm/policy/override.h"

namespace troupe {

namespace {

using sandbox::Policy;
using sandbox::PolicyLayers;

// `troupe` shows the first, and that there are more.
constexpr size_t MOST_ERRORS = 100;

void write(const sandbox::ProfileLayer& layer, CompiledProfile::Layer::Builder to) {
  to.setNeed(layer.need);
  to.setSince(layer.since);
}

template <typename From, typename To>
void writeEach(const From& from, To to) {
  for (size_t i = 0; i < from.size(); i++)
    write(from[i].layer, to[i]);
}

void writeFds(const Policy& policy, CompiledProfile::Builder to) {
  auto fds = to.initFds(policy.fds.size());
  for (size_t i = 0; i < policy.fds.size(); i++) {
    const auto& fd = policy.fds[i];
    fds[i].setName(fd.name);
    fds[i].setNumber(fd.number);
    fds[i].setCount(fd.count);
    fds[i].setKind(fd.kind);
    fds[i].setHanded(fd.handed);
    fds[i].setOptional(fd.optional);
    fds[i].setClosed(fd.closed);
    fds[i].setMade(fd.made);
  }
}

void writeFilters(const Override::Compiled& compiled, CompiledProfile::Builder to) {
  auto filters = to.initFilters(compiled.programs.size());
  for (size_t i = 0; i < compiled.programs.size(); i++) {
    const auto& program = compiled.programs[i];
    filters[i].setStage(compiled.policy.filters[i].stage);
    filters[i].setProgram(kj::arrayPtr(program.data(), program.size()).asBytes());
  }
}

void writeLimits(const Policy& policy, CompiledProfile::Builder to) {
  auto limits = to.initLimits(policy.limits.size());
  for (size_t i = 0; i < policy.limits.size(); i++) {
    limits[i].setResource(policy.limits[i].resource);
    limits[i].setValue(policy.limits[i].value);
  }
}

void writeMemory(const sandbox::PolicyMemory& memory, CompiledProfile::Layers::Builder to) {
  to.setMemoryAccess(memory.access);
  to.setMemoryFd(memory.fd);
  auto ranges = to.initMemoryRanges(memory.ranges.size());
  for (size_t i = 0; i < memory.ranges.size(); i++) {
    ranges[i].setAddress(memory.ranges[i].address);
    ranges[i].setSize(memory.ranges[i].size);
  }
}

void writeIoUring(const PolicyLayers& layers, CompiledProfile::Layers::Builder to) {
  auto opcodes = to.initIoUringOpcodes(layers.ioUringOpcodes.size());
  for (size_t i = 0; i < layers.ioUringOpcodes.size(); i++)
    opcodes[i] = layers.ioUringOpcodes[i].number;
  int flags = 0;
  for (const auto& flag : layers.ioUringSqeFlags)
    flags |= flag.number;
  to.setIoUringSqeFlags(flags);
}

void writeCgroup(const PolicyLayers& layers, CompiledProfile::Layers::Builder to) {
  auto limits = to.initCgroupLimits(layers.cgroupLimits.size());
  for (size_t i = 0; i < layers.cgroupLimits.size(); i++) {
    limits[i].setKind(layers.cgroupLimits[i].kind);
    limits[i].setValue(layers.cgroupLimits[i].value);
    write(layers.cgroupLimits[i].layer, limits[i].initLayer());
  }
  auto io = to.initIoLimits(layers.ioLimits.size());
  for (size_t i = 0; i < layers.ioLimits.size(); i++) {
    const auto& limit = layers.ioLimits[i];
    io[i].setFd(limit.fd);
    io[i].setReadBytesPerSecond(limit.readBytesPerSecond);
    io[i].setWriteBytesPerSecond(limit.writeBytesPerSecond);
    io[i].setReadsPerSecond(limit.readsPerSecond);
    io[i].setWritesPerSecond(limit.writesPerSecond);
    write(limit.layer, io[i].initLayer());
  }
}

void writeHelper(const sandbox::PolicyHelper& helper, CompiledProfile::Layers::Builder to) {
  to.setIsHelper(helper.is);
  auto entries = to.initRootEntries(helper.root.size());
  for (size_t i = 0; i < helper.root.size(); i++) {
    entries[i].setKind(helper.root[i].kind);
    entries[i].setPath(helper.root[i].path);
    entries[i].setTarget(helper.root[i].target);
    entries[i].setOptional(helper.root[i].optional);
  }
}

void writeLayers(const PolicyLayers& layers, CompiledProfile::Layers::Builder to) {
  writeEach(layers.namespaces, to.initNamespaces(layers.namespaces.size()));
  writeEach(layers.landlock, to.initLandlock(layers.landlock.size()));
  uint64_t capabilities = 0;
  for (const auto& capability : layers.capabilities)
    capabilities |= uint64_t{1} << capability.number;
  to.setCapabilities(capabilities);
  write(layers.mdwe.layer, to.initMdwe());
  write(layers.executableSeals.layer, to.initExecutableSeals());
  to.setMinimumKernel(layers.minimumKernel);
  writeMemory(layers.memory, to);
  writeIoUring(layers, to);
  writeCgroup(layers, to);
  writeHelper(layers.helper, to);
  to.setIsReplaced(layers.restart.always);
  to.setSpares(layers.restart.spares);
  to.setRestarts(layers.restart.restarts);
  to.setRestartSeconds(layers.restart.seconds);
}

void write(const Override& result, CompileResult::Builder to) {
  auto errors = to.initErrors(std::min(result.errors.size(), MOST_ERRORS));
  for (kj::uint i = 0; i < errors.size(); i++)
    errors.set(i, result.errors[i]);
  auto profiles = to.initProfiles(result.profiles.size());
  for (size_t i = 0; i < result.profiles.size(); i++) {
    const auto& compiled = result.profiles[i];
    profiles[i].setPath(compiled.path);
    profiles[i].setActor(compiled.policy.actor);
    profiles[i].setSource(compiled.policy.path);
    writeFds(compiled.policy, profiles[i]);
    writeFilters(compiled, profiles[i]);
    writeLimits(compiled.policy, profiles[i]);
    writeLayers(compiled.policy.layers, profiles[i].initLayers());
  }
}

std::string plain(capnp::Text::Reader text) {
  return {text.begin(), text.size()};
}

std::map<std::string, std::string> textsOf(capnp::List<ProfileFile>::Reader files) {
  std::map<std::string, std::string> texts;
  for (auto file : files) {
    auto text = file.getText();
    texts[plain(file.getPath())] = {text.asChars().begin(), text.size()};
  }
  return texts;
}

const Policy* find(const Override& compiled, const std::string& path) {
  for (const auto& profile : compiled.profiles) {
    if (profile.path == path) return &profile.policy;
  }
  return nullptr;
}

std::vector<std::string> looserThanInForce(CompileRequest::Reader request, const Override& result) {
  std::string path = plain(request.getAgainstPath());
  const Policy* next = path.empty() ? nullptr : find(result, path);
  if (next == nullptr) return {};
  auto inForce = compileOverride("in force", textsOf(request.getAgainst()), BuiltInFiles(),
                                 replaceableActors());
  if (const Policy* policy = find(inForce, path)) return sandbox::looserParts(*policy, *next);
  return sandbox::looserParts(sandbox::readPolicy(BuiltInFiles(), path), *next);
}

void compile() {
  sandbox::ActorSetup setup;
  auto request = setup.config<CompileRequest>();
  auto result = compileOverride(plain(request.getFolder()), textsOf(request.getFiles()),
                                BuiltInFiles(), replaceableActors());
  auto looser = looserThanInForce(request, result);
  capnp::MallocMessageBuilder message;
  auto to = message.initRoot<CompileResult>();
  write(result, to);
  auto parts = to.initLooser(std::min(looser.size(), MOST_ERRORS));
  for (kj::uint i = 0; i < parts.size(); i++)
    parts.set(i, looser[i]);
  capnp::writeMessageToFd(setup.fd("result"), message);
}

}  // namespace

void playCompiler() {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([]() {
                 try {
                   compile();
                 } catch (const std::exception& error) {
                   KJ_FAIL_REQUIRE(error.what());
                 }
               })) {
    sandbox::sayLastWords("the compiler of profiles ends", *exception);
    _exit(1);
  }
  _exit(0);
}

}  // namespace troupe
