#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {

// What readers of layers share: the files of a profile, which of them speaks of a layer, and how
// what stands there is checked. All that throws throws ProfileError.
class LayerSources {
 protected:
  using Locations = google::protobuf::TextFormat::ParseInfoTree;

  // Included files first, the profile itself last. `minimumKernel`: its oldest kernel, once known.
  LayerSources(const std::vector<std::unique_ptr<SourceFile>>& sources,
               const std::vector<PolicyFd>& fds,
               const std::function<void(const ProfileError&)>& report,
               const uint32_t& minimumKernel)
      : sources(sources), fds(fds), report(report), minimumKernel(minimumKernel) {}

  // Tells the report what `step` throws.
  template <typename Step>
  void attempt(Step&& step) {
    try {
      step();
    } catch (const ProfileError& error) {
      report(error);
    }
  }

  // The file whose word on a layer counts: it includes all others that have one. None: nobody has.
  const SourceFile* speaker(const std::string& name) const;

  static SourceLocation place(const SourceFile& file, const std::string& name, int index = 0) {
    return locate(file, &file.locations, file.profile, name, index);
  }

  static const Locations* within(const SourceFile& file, const std::string& name, int index = 0) {
    return inside(&file.locations, file.profile, name, index);
  }

  // What stands in an `optional` field.
  ProfileLayer need(const std::string& text, const SourceLocation& where) const;

  template <typename Message>
  ProfileLayer needOf(const SourceFile& file, const Locations* tree, const Message& message) const {
    return need(message.optional(), locate(file, tree, message, "optional"));
  }

  // The value of a C constant that is written without its prefix.
  static uint64_t constant(const std::string& prefix, const std::string& name,
                           const std::string& what, const SourceLocation& where,
                           const SourceLocation& whole);

  const PolicyFd& fdNamed(const std::string& name, const SourceLocation& where) const;

 private:
  const std::vector<std::unique_ptr<SourceFile>>& sources;
  const std::vector<PolicyFd>& fds;
  const std::function<void(const ProfileError&)>& report;
  const uint32_t& minimumKernel;
};

// kernelVersion(6, 12) of "6.12", and of nothing else; none when it is no version.
std::optional<uint32_t> parseVersion(const std::string& text);

}  // namespace troupe::sandbox
