// The end of a draft: defaults, and what no guest can have.
#include <kj/debug.h>

#include <algorithm>

#include "broker/memory_map.h"
#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/user_error.h"

namespace troupe::realm {

namespace {

constexpr uint64_t DEFAULT_MEMORY = 1 << 30;
constexpr uint64_t PAGE = 4096;
constexpr size_t LONGEST_CMDLINE = 4095;         // a page with its closing zero, of the era
constexpr size_t MOST_NETS = 8;                  // of a VM
constexpr uint64_t DEVICE_WINDOW = 0xC00000000;  // 48 GiB: from here on devices get their addresses
constexpr Mac DEFAULT_MAC{{0x02, 0x1a, 0x11, 0x00, 0x01, 0x00}};

[[noreturn]] void refuse(kj::String message, kj::StringPtr advice) {
  UserError(codes::GUEST_IMPOSSIBLE, kj::mv(message)).advice("use", advice).raise();
}

kj::String shown(const MemoryWords& region) {
  return region.isPlaced ? kj::str("0x", kj::hex(region.base), "+0x", kj::hex(region.size))
                         : kj::str("of 0x", kj::hex(region.size), " bytes");
}

void checkRegion(const MemoryWords& region) {
  auto refuseIt = [&](kj::StringPtr why) {
    refuse(kj::str("memory region ", shown(region), " ", why),
           "whole pages of 4 KiB below 0xC00000000");
  };
  if (region.size == 0) refuseIt("is empty");
  if (region.base % PAGE != 0 || region.size % PAGE != 0) refuseIt("is not made of whole pages");
  if (region.base > DEVICE_WINDOW || region.size > DEVICE_WINDOW - region.base) {
    refuseIt("reaches into the addresses of devices");
  }
  if (region.isPlaced && region.base < broker::HIGH_RAM_START &&
      region.base + region.size > broker::LOW_RAM_END) {
    refuseIt("meets the addresses of devices from 0xc0000000 to 0x100000000");
  }
  if (region.policy != MemoryPolicy::GUEST_CACHED) {
    refuse(kj::str("memory region ", shown(region), " is the host's own, which nobody permitted"),
           "memory of the guest's own: BASE,SIZE without a policy");
  }
}

// A region, or a part of one that goes round the hole.
struct Piece {
  broker::RamRange range;
  const MemoryWords* from;
};

// Where RAM lies, by ascending addresses.
kj::Array<broker::RamRange> placeMemory(kj::ArrayPtr<const MemoryWords> memory) {
  kj::Vector<Piece> pieces;
  for (auto& region : memory) {
    checkRegion(region);
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
    refuse(kj::str("memory regions ", shown(*pieces[i - 1].from), " and ", shown(*pieces[i].from),
                   " overlap"),
           "one region, or bases further apart");
  }
  auto& first = pieces[0].range;
  if (first.guestAddress != 0 || first.size < broker::LEAST_FIRST_REGION) {
    refuse(
        kj::str("no memory region begins at 0 and has 2 MiB at least; kernel, ramdisk and what a "
                "kernel finds at its start lie in that one"),
        "a SIZE without a base");
  }
  if (pieces.size() > broker::MOST_REGIONS) {
    refuse(kj::str("memory lies in ", pieces.size(), " regions"),
           kj::str("at most ", broker::MOST_REGIONS));
  }
  return KJ_MAP(piece, pieces) {
    return piece.range;
  };
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

}  // namespace

GuestPlan GuestDraft::finish(const Host& host) {
  GuestPlan plan;
  if (kernel != nullptr || !kernelIsTyped) plan.kernel = kernel.orDefault(Kernel::ZIRCON);
  KJ_IF_MAYBE (path, kernelPath) {
    plan.kernelPath = kj::mv(*path);
  } else {
    refuse(kj::str("the guest has no kernel"), "\"linux\": \"PATH\" in guest.cfg");
  }
  plan.ramdiskPath = kj::mv(ramdiskPath);
  plan.dtbOverlayPath = kj::mv(dtbOverlayPath);
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
  plan.ram = placeMemory(memory);
  if (interrupts.size() > 0) {
    refuse(kj::str("interrupt ", interrupts[0], " of the host belongs to no device of the guest"),
           "no \"interrupt\": nothing is passed through");
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
