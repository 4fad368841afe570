#include "sandbox/layer_sources.h"

#include <algorithm>

#include "sandbox/constants.h"

namespace troupe::sandbox {
namespace {

bool isBeneath(const SourceFile& file, const SourceFile& top) {
  return std::any_of(top.includes.begin(), top.includes.end(), [&](const SourceFile* include) {
    return include == &file || isBeneath(file, *include);
  });
}

bool speaksOf(const SourceFile& file, const std::string& name) {
  const auto& profile = file.profile;
  auto field = profile.GetDescriptor()->FindFieldByName(name);
  auto reflection = profile.GetReflection();
  return field->is_repeated() ? reflection->FieldSize(profile, field) > 0
                              : reflection->HasField(profile, field);
}

}  // namespace

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

const SourceFile* LayerSources::speaker(const std::string& name) const {
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

ProfileLayer LayerSources::need(const std::string& text, const SourceLocation& where) const {
  if (text.empty()) return {ProfileLayer::REQUIRED, 0};
  if (text == "yes") return {ProfileLayer::OPTIONAL, 0};
  constexpr const char SINCE[] = "since ";
  if (text.compare(0, sizeof(SINCE) - 1, SINCE) == 0) {
    if (auto version = parseVersion(text.substr(sizeof(SINCE) - 1))) {
      if (*version > minimumKernel) return {ProfileLayer::REQUIRED_SINCE, *version};
      // What is shared is written for older kernels, too.
      if (where.file != sources.back()->path) return {ProfileLayer::REQUIRED, 0};
      throw ProfileError(where, "every kernel from `minimum_kernel` (" +
                                    versionText(minimumKernel) +
                                    ") on is that new; drop "
                                    "`optional`");
    }
  }
  throw ProfileError(where, "`optional` is \"" + text +
                                "\"; it is \"since X.Y\", where X.Y is the kernel from which on "
                                "the layer must be there, or \"yes\"");
}

uint64_t LayerSources::constant(const std::string& prefix, const std::string& name,
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

const PolicyFd& LayerSources::fdNamed(const std::string& name, const SourceLocation& where) const {
  std::string known;
  for (const PolicyFd& fd : fds) {
    if (fd.name == name) return fd;
    known += (known.empty() ? "" : ", ") + fd.name;
  }
  throw ProfileError(
      where, "the profile has no fd \"" + name + "\"; it has " + (known.empty() ? "none" : known));
}

}  // namespace troupe::sandbox
