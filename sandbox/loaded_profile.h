#pragma once

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protos/compiled_profile.capnp.h"
#include "sandbox/profile.h"

namespace troupe::sandbox {

// A profile that was compiled after the build, as the compiler sent it: a copy, every field of
// which was checked. The compiler may be in the hands of who wrote the profile, so what is not as
// it sends things throws TRP-jail-031.
class LoadedProfile {
 public:
  explicit LoadedProfile(CompiledProfile::Reader from);
  KJ_DISALLOW_COPY(LoadedProfile);

  // Lives as long as this object.
  const Profile& profile() const { return loaded; }

 private:
  const char* keep(kj::StringPtr text);
  const char* keepWord(kj::StringPtr text);
  void loadFds(CompiledProfile::Reader from);
  void loadFilters(CompiledProfile::Reader from);
  void loadLimits(CompiledProfile::Reader from);
  void loadLayers(CompiledProfile::Layers::Reader from);
  void loadMemory(CompiledProfile::Layers::Reader from);
  void loadIoUring(CompiledProfile::Layers::Reader from);
  void loadCgroup(CompiledProfile::Layers::Reader from);
  void loadHelper(CompiledProfile::Layers::Reader from);

  kj::Vector<kj::String> texts;
  kj::Array<ProfileFd> fds;
  kj::Array<kj::Array<sock_filter>> programs;
  kj::Array<ProfileFilter> filters;
  kj::Array<ProfileLimit> limits;
  kj::Array<ProfileMemoryRange> ranges;
  kj::Array<uint8_t> opcodes;
  kj::Array<ProfileCgroupLimit> cgroupLimits;
  kj::Array<ProfileIoLimit> ioLimits;
  kj::Array<ProfileRootEntry> rootEntries;
  Profile loaded = {};
};

// Throws TRP-jail-031 unless both have the same table of fds: the actor's code knows it by heart.
void requireSameFds(const Profile& loaded, const Profile& builtIn);

}  // namespace troupe::sandbox
