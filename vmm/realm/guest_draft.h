#pragma once

#include <capnp/message.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "broker/ram_layout.h"
#include "protos/config.capnp.h"
#include "protos/realm.capnp.h"
#include "vmm/realm/guest_words.h"

namespace troupe::realm {

// A guest's configuration while its sources are put together. Four speak, and the first that says
// a thing is right: the launcher's GuestConfig, troupe.json and guest.cfg in the bundle, the
// defaults. Lists are the exception: what each says is appended, the launcher's first. The two
// files of the bundle may not say the same thing.
//
//   GuestDraft draft(launchInfo.getGuestConfig());
//   draft.merge(text of guest.cfg, "DIR/guest.cfg");
//   draft.mergeTyped(text of troupe.json, "DIR/troupe.json");
//   GuestPlan plan = draft.finish(host);
//
// Or without a bundle, for a launcher whose GuestConfig says all, in Troupe's own words what that
// cannot say:
//
//   GuestDraft draft(guestConfig);
//   draft.addOwn(vmConfig);
//   GuestPlan plan = draft.finish(host);

enum class Toggle { BALLOON, CONSOLE, GPU, MAGMA, RNG, VSOCK };
constexpr size_t TOGGLE_COUNT = 6;

// Memory of the host's that a guest asks for.
struct HostRegionWords {
  uint64_t guestAddress;
  uint64_t size;
  MemoryPolicy policy;  // HOST_CACHED or HOST_DEVICE
};

// Everything said. A value.
struct GuestPlan {
  kj::Maybe<Kernel> kernel;  // none: whatever its file says
  kj::String kernelPath;
  kj::Maybe<kj::String> ramdiskPath;
  kj::Maybe<kj::String> dtbOverlayPath;
  kj::Vector<BlockWords> blocks;  // of which the Nth is called "block-N"
  kj::String cmdline;
  kj::Array<broker::RamRange> ram;  // where its RAM lies, in ascending order; the first from 0 on
  // What of the host's memory it asks for, in ascending order. Who may have it is not asked yet.
  kj::Array<HostRegionWords> hostMemory;
  uint8_t cpus;          // at least 1
  kj::Vector<Mac> nets;  // each address once
  bool hasDefaultNet;    // the last of them, behind all others
  bool toggles[TOGGLE_COUNT];
  kj::Vector<kj::String> notes;  // for the user: what was passed over or left out, a line each
  // What troupe.json, or addOwn(), says of things that the other sources have no words for, a
  // VmConfig. Of troupe.json disks, nets, rng, balloon, cpuMask, onReboot: all else in it is in the
  // fields above.
  kj::Own<capnp::MallocMessageBuilder> typed;
};

class GuestDraft {
 public:
  // What the launcher says. Throws TRP-rlm-003 for what no field may hold.
  explicit GuestDraft(GuestConfig::Reader launch);

  // What the JSON text of guest.cfg says: one object whose values are texts and lists of texts.
  // `origin` names it in errors. Throws TRP-rlm-001 for another shape, TRP-rlm-002 for a key that
  // does not exist, TRP-rlm-003 for a value its key cannot have. Once.
  void merge(kj::ArrayPtr<const char> json, kj::StringPtr origin);

  // What the JSON text of troupe.json says, which has the schema of `troupe run`'s configuration.
  // After merge(); once. Throws TRP-rlm-005 for what guest.cfg says, too, TRP-rlm-006 for what is
  // not a bundle's to say, and what parseConfig() throws.
  void mergeTyped(kj::ArrayPtr<const char> json, kj::StringPtr origin);

  // The words of whoever runs this process, for whom nothing is foreign. What a kernel named there
  // is, its file says, which GuestConfig has no word for. In place of the two above.
  void addOwn(VmConfig::Reader words);

  static constexpr uint64_t DEVICE_WINDOW = 0xC00000000;  // 48 GiB: devices' addresses, of the era

  struct Host {
    kj::uint cpus;
    bool hasGpu, hasMagma;               // whether we have such devices
    uint64_t memoryEnd = DEVICE_WINDOW;  // no region reaches beyond
  };
  // Defaults for what nobody said. Throws TRP-rlm-004 for what cannot be had. Ends this object.
  GuestPlan finish(const Host& host);

 private:
  struct Key;
  static const Key KEYS[];

  void passOver(kj::StringPtr word);
  bool setKernel(Kernel kind, kj::StringPtr path, bool overrides);
  void set(kj::StringPtr name, kj::StringPtr text, bool overrides, kj::StringPtr origin);
  void refuseSetTwice(kj::StringPtr key, kj::StringPtr origin);

  kj::String cfgOrigin;            // what merge() was told
  kj::Vector<kj::String> cfgKeys;  // which it saw
  kj::Own<capnp::MallocMessageBuilder> typed;
  bool kernelIsTyped = false;  // so its file says what it is
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
