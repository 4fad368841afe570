// The end of a draft: defaults, and what no guest can have.
#include <kj/debug.h>

#include <algorithm>

#include "broker/memory_map.h"
#include "tests/fuzz/planted.h"
#include "vmm/config/net_plan.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr uint64_t DEFAULT_MEMORY = 1 << 30;
constexpr uint64_t PAGE = 4096;
constexpr size_t LONGEST_CMDLINE = 4095;  // a page with its closing zero, of the era
constexpr Mac DEFAULT_MAC{{0x02, 0x1a, 0x11, 0x00, 0x01, 0x00}};

[[noreturn]] void refuse(kj::String message, kj::StringPtr advice) {
  UserError(codes::GUEST_IMPOSSIBLE, kj::mv(message)).advice("use", advice).raise();
}

kj::String shown(const MemoryWords& region) {
  return region.isPlaced ? kj::str("0x", kj::hex(region.base), "+0x", kj::hex(region.size))
                         : kj::str("of 0x", kj::hex(region.size), " bytes");
}

void checkRegion(const MemoryWords& region, uint64_t end) {
  auto refuseIt = [&](kj::StringPtr why) {
    refuse(kj::str("memory region ", shown(region), " ", why),
           kj::str("whole pages of 4 KiB below 0x", kj::hex(end)));
  };
  if (region.size == 0) refuseIt("is empty");
  if (region.base % PAGE != 0 || region.size % PAGE != 0) refuseIt("is not made of whole pages");
  if (region.base > end || region.size > end - region.base) {
    refuseIt("reaches into the addresses of devices");
  }
  if (region.isPlaced && region.base < broker::HIGH_RAM_START &&
      region.base + region.size > broker::LOW_RAM_END) {
    refuseIt("meets the addresses of devices from 0xc0000000 to 0x100000000");
  }
}

// A region, or a part of one that goes round the hole.
struct Piece {
  broker::RamRange range;
  const MemoryWords* from;
};

// All regions by ascending addresses.
kj::Vector<Piece> placeAll(kj::ArrayPtr<const MemoryWords> memory, uint64_t end) {
  kj::Vector<Piece> pieces;
  for (auto& region : memory) {
    checkRegion(region, end);
    if (region.isPlaced) {
      pieces.add(Piece{{region.base, region.size}, &region});
      continue;
    }
    for (auto& part : broker::ramRegions(region.size))
      pieces.add(Piece{{part.guestAddress, part.size}, &region});
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.range.guestAddress < b.range.guestAddress;
  });
  for (size_t i = 1; i < pieces.size(); i++) {
    auto& before = pieces[i - 1].range;
    if (pieces[i].range.guestAddress - before.guestAddress >= before.size) continue;
    if (fuzz::isPlanted(fuzz::Bug::RAM_UPON_RAM)) continue;
    refuse(kj::str("memory regions ", shown(*pieces[i - 1].from), " and ", shown(*pieces[i].from),
                   " overlap"),
           "one region, or bases further apart");
  }
  return pieces;
}

// Where RAM lies.
kj::Array<broker::RamRange> ramAmong(kj::ArrayPtr<const Piece> pieces) {
  kj::Vector<broker::RamRange> ram;
  for (auto& piece : pieces) {
    if (piece.from->policy == MemoryPolicy::GUEST_CACHED) ram.add(piece.range);
  }
  bool isFirstSound =
      ram.size() > 0 && ram[0].guestAddress == 0 && ram[0].size >= broker::LEAST_FIRST_REGION;
  if (!isFirstSound) {
    refuse(kj::str("no memory region of the guest's own begins at 0 and has 2 MiB at least; "
                   "kernel, ramdisk and what a "
                   "kernel finds at its start lie in that one"),
           "a SIZE without a base");
  }
  if (ram.size() > broker::MOST_REGIONS) {
    refuse(kj::str("memory lies in ", ram.size(), " regions"),
           kj::str("at most ", broker::MOST_REGIONS));
  }
  return ram.releaseAsArray();
}

kj::Array<HostRegionWords> hostMemoryAmong(kj::ArrayPtr<const Piece> pieces) {
  kj::Vector<HostRegionWords> found;
  for (auto& piece : pieces) {
    auto policy = piece.from->policy;
    if (policy == MemoryPolicy::GUEST_CACHED) continue;
    found.add(HostRegionWords{piece.range.guestAddress, piece.range.size, policy});
  }
  if (found.size() > broker::MOST_HOST_REGIONS) {
    refuse(kj::str(found.size(), " memory regions are the host's"),
           kj::str("at most ", broker::MOST_HOST_REGIONS));
  }
  return found.releaseAsArray();
}

void checkNets(kj::ArrayPtr<const Mac> nets) {
  if (nets.size() > MOST_NETS) {
    refuse(kj::str("the guest has ", nets.size(), " network devices"),
           kj::str("at most ", MOST_NETS, ", the default one among them"));
  }
  for (size_t i = 0; i < nets.size(); i++) {
    auto octets = nets[i].octets;
    bool isZero = std::all_of(octets, octets + sizeof(Mac), [](kj::byte b) { return b == 0; });
    if ((octets[0] & 1) || isZero) {
      refuse(kj::str("MAC address ", macText(nets[i]), " is a group's or no address"),
             "six bytes, the first of them even");
    }
    for (size_t k = 0; k < i; k++) {
      if (nets[k] == nets[i]) {
        refuse(kj::str("two network devices have the MAC address ", macText(nets[i])),
               "one address for each; default-net has 02:1a:11:00:01:00");
      }
    }
  }
}

// "" is what a launcher says who wants none, whatever the bundle has.
kj::Maybe<kj::String> pathIn(kj::Maybe<kj::String>& said) {
  KJ_IF_MAYBE (path, said) {
    if (path->size() > 0) return kj::mv(*path);
  }
  return nullptr;
}

}  // namespace

GuestPlan GuestDraft::finish(const Host& host) {
  GuestPlan plan;
  if (kernel != nullptr || !kernelIsTyped) plan.kernel = kernel.orDefault(Kernel::ZIRCON);
  KJ_IF_MAYBE (path, pathIn(kernelPath)) {
    plan.kernelPath = kj::mv(*path);
  } else {
    refuse(kj::str("the guest has no kernel"), "\"linux\": \"PATH\" in guest.cfg");
  }
  plan.ramdiskPath = pathIn(ramdiskPath);
  plan.dtbOverlayPath = pathIn(dtbOverlayPath);
  plan.blocks = kj::mv(blocks);

  plan.cmdline = cmdline == nullptr ? kj::String() : kj::mv(KJ_ASSERT_NONNULL(cmdline));
  for (auto& word : cmdlineAdd) {
    // Before it has taken the time that a million words would.
    if (plan.cmdline.size() > LONGEST_CMDLINE) break;
    plan.cmdline = kj::str(plan.cmdline, " ", word);
  }
  if (plan.cmdline.size() > LONGEST_CMDLINE) {
    refuse(kj::str("the command line has more than ", LONGEST_CMDLINE, " bytes"),
           "a shorter one; what a kernel takes can be less");
  }

  if (memory.size() == 0) {
    memory.add(MemoryWords{false, 0, DEFAULT_MEMORY, MemoryPolicy::GUEST_CACHED});
  }
  auto pieces = placeAll(memory, host.memoryEnd);
  plan.ram = ramAmong(pieces);
  plan.hostMemory = hostMemoryAmong(pieces);
  if (interrupts.size() > 0) {
    refuse(kj::str("interrupt ", interrupts[0], " of the host belongs to no device of the guest"),
           "no \"interrupt\": no device of the host's is passed through with its interrupts");
  }
  plan.cpus = cpus.orDefault(kj::min(host.cpus, kj::uint(UINT8_MAX)));

  plan.nets = kj::mv(nets);
  plan.hasDefaultNet = defaultNet.orDefault(true);
  if (plan.hasDefaultNet) plan.nets.add(DEFAULT_MAC);
  checkNets(plan.nets);

  plan.notes = kj::mv(notes);
  for (size_t i = 0; i < TOGGLE_COUNT; i++)
    plan.toggles[i] = toggles[i].orDefault(Toggle(i) != Toggle::MAGMA);
  auto& gpu = plan.toggles[size_t(Toggle::GPU)];
  if (gpu && !host.hasGpu) {
    if (toggles[size_t(Toggle::GPU)] != nullptr) {
      refuse(kj::str("there is no virtio-gpu to switch on"), "\"virtio-gpu\": \"false\"");
    }
    gpu = false;
    plan.notes.add(kj::str("virtio-gpu is off: there is none yet"));
  }
  if (plan.toggles[size_t(Toggle::MAGMA)] && !host.hasMagma) {
    refuse(kj::str("there is no virtio-magma to switch on"), "\"virtio-magma\": \"false\"");
  }
  plan.typed = kj::mv(typed);
  return plan;
}

}  // namespace troupe::realm
