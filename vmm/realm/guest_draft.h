#pragma once

#include <kj/string.h>
#include <kj/vector.h>

#include "protos/realm.capnp.h"
#include "vmm/realm/guest_words.h"

namespace troupe::realm {

// A guest's configuration while its sources are put together. Three speak, and the first that says
// a thing is right: the launcher's GuestConfig, guest.cfg in the bundle, the defaults. Lists are
// the exception: what each says is appended, the launcher's first.
//
//   GuestDraft draft(launchInfo.getGuestConfig());
//   draft.merge(text of guest.cfg, "DIR/guest.cfg");
//   GuestPlan plan = draft.finish(host);

enum class Toggle { BALLOON, CONSOLE, GPU, MAGMA, RNG, VSOCK };
constexpr size_t TOGGLE_COUNT = 6;

// Everything said. A value.
struct GuestPlan {
  Kernel kernel;
  kj::String kernelPath;
  kj::Maybe<kj::String> ramdiskPath;
  kj::Maybe<kj::String> dtbOverlayPath;
  kj::Vector<BlockWords> blocks;  // of which the Nth is called "block-N"
  kj::String cmdline;
  kj::Vector<MemoryWords> memory;  // at least one
  uint8_t cpus;                    // at least 1
  kj::Vector<Mac> nets;            // each address once; the default network is the last
  bool toggles[TOGGLE_COUNT];
  kj::Vector<kj::String> notes;  // for the user: what was passed over or left out, a line each
};

class GuestDraft {
 public:
  // What the launcher says. Throws TRP-rlm-003 for what no field may hold.
  explicit GuestDraft(GuestConfig::Reader launch);

  // What the JSON text of guest.cfg says: one object whose values are texts and lists of texts.
  // `origin` names it in errors. Throws TRP-rlm-001 for another shape, TRP-rlm-002 for a key that
  // does not exist, TRP-rlm-003 for a value its key cannot have. Once.
  void merge(kj::ArrayPtr<const char> json, kj::StringPtr origin);

  struct Host {
    kj::uint cpus;
    bool hasGpu, hasMagma;  // whether we have such devices
  };
  // Defaults for what nobody said. Throws TRP-rlm-004 for what cannot be had. Ends this object.
  GuestPlan finish(const Host& host);

 private:
  struct Key;
  static const Key KEYS[];

  bool setKernel(Kernel kind, kj::StringPtr path, bool overrides);
  void set(kj::StringPtr name, kj::StringPtr text, bool overrides, kj::StringPtr origin);

  kj::Maybe<Kernel> kernel;
  kj::Maybe<kj::String> kernelPath, ramdiskPath, dtbOverlayPath, cmdline;
  kj::Vector<kj::String> cmdlineAdd;
  kj::Vector<BlockWords> blocks;
  kj::Vector<MemoryWords> memory;
  kj::Vector<uint32_t> interrupts;
  kj::Maybe<uint8_t> cpus;
  kj::Vector<Mac> nets;
  kj::Maybe<bool> defaultNet;
  kj::Maybe<bool> toggles[TOGGLE_COUNT];
  kj::Vector<kj::String> notes;
};

}  // namespace troupe::realm
