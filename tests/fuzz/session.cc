#include "tests/fuzz/session.h"

#include <kj/debug.h>

#include "devices/virtio/wire.h"
#include "tests/fuzz/allocations.h"
#include "tests/fuzz/finding.h"

namespace troupe::fuzz {
Session::Session(Arena& arena, Watch& watch, FuzzedDevice& device)
    : arena(arena),
      watch(watch),
      device(device),
      sizes(device.queueSizes()),
      driver(arena, kj::arrayPtr(sizes.data(), sizes.size())),
      memory(arena.memory()),
      features(device.features()),
      rings(sizes.size()),
      unseen(sizes.size()),
      usedIsOdd(sizes.size()) {
  device.use(memory);
  arena.onGuestWrite = [&watch](const kj::byte* host, size_t size) {
    watch.guestWrote(host, size);
  };
  watch.setListener(this);
}

Session::~Session() noexcept(false) {
  arena.onGuestWrite = nullptr;
  watch.setListener(nullptr);
  watch.reset();
  arena.restore();
}

uint16_t Session::queueOf(const void* ring) const {
  for (uint16_t i = 0; i < rings.size(); i++)
    if (rings[i].get() == ring) return i;
  KJ_FAIL_ASSERT("a ring nobody knows");
}

void Session::taken(const void* ring, uint16_t head, kj::ArrayPtr<const iovec> readable,
                    kj::ArrayPtr<const iovec> writable) {
  device.taken(queueOf(ring), head, readable, writable);
}

void Session::returned(const void* ring, uint16_t head, uint32_t written) {
  device.returned(queueOf(ring), head, written);
}

void Session::run(kj::ArrayPtr<const kj::byte> input) {
  for (const Op& op : decode(input))
    perform(op);
  if (active) {
    settle();
    stop();
  }
}

void Session::perform(const Op& op) {
  switch (op.what()) {
    case OpKind::FEATURES:
      features = (device.features() & (op.a & 1 ? ~op.d : op.d)) | (device.choices() & op.d);
      return;
    case OpKind::QUEUE:
      driver.choose(op);
      return;
    case OpKind::RESET:
      if (active) stop();
      return;
    case OpKind::FLIP:
      watch.setFlipping(true);
      return;
    default:
      break;
  }
  if (!active) start();
  switch (op.what()) {
    case OpKind::BUFFER:
      driver.addBuffer(op);
      break;
    case OpKind::REQUEST: {
      RequestTemplate request;
      device.request(op, request);
      driver.addRequest(request);
      break;
    }
    case OpKind::PUBLISH:
      driver.publish(op);
      break;
    case OpKind::POKE: {
      size_t size = size_t(1) << op.a % 4;
      arena.write(driver.address(op, size),
                  kj::arrayPtr(reinterpret_cast<const kj::byte*>(&op.d), size));
      break;
    }
    case OpKind::KICK:
      kick(driver.queueOf(op.a));
      break;
    case OpKind::INTERLEAVE:
      interleave(op);
      break;
    case OpKind::EVENT:
      device.event(op);
      break;
    case OpKind::CONFIG:
      device.config(op);
      break;
    default:
      break;
  }
}

void Session::interleave(const Op& op) {
  size_t size = size_t(1) << op.a % 4;
  kj::byte* at = arena.host(driver.address(op, size), size);
  if (at == nullptr) return;
  watch.interleave(op.b % 256, at, kj::arrayPtr(reinterpret_cast<const kj::byte*>(&op.d), size));
}

// As DeviceActor::activate(): a ring that cannot be leaves the device off.
void Session::start() {
  driver.prepare();
  virtio::RingFeatures ringFeatures{(features & virtio::F_INDIRECT_DESC) != 0,
                                    (features & virtio::F_EVENT_IDX) != 0};
  std::vector<virtio::Virtqueue*> enabled(sizes.size());
  for (uint16_t i = 0; i < sizes.size(); i++) {
    usedIsOdd[i] = false;
    unseen[i].clear();
    auto layout = driver.layout(i);
    if (!driver.isEnabled(i) || layout.size > sizes[i] || !isSound(memory, layout)) continue;
    rings[i] = kj::heap<virtio::Virtqueue>(memory, layout, ringFeatures);
    watch.addRing(*rings[i], layout);
    enabled[i] = rings[i].get();
  }
  active = true;
  device.start(features, enabled);
}

void Session::stop() {
  device.stop();
  active = false;
  watch.forgetRings();
  for (auto& ring : rings)
    ring = nullptr;
}

void Session::kick(uint16_t queue) {
  if (rings[queue].get() == nullptr) return;
  watch.turnBegins();
  uint64_t before = allocatedBytes();
  device.kick(queue);
  uint64_t allocated = allocatedBytes() - before;
  if (allocated > device.allocationBound()) {
    finding(kj::str("one turn took ", allocated, " bytes from the heap"));
  }
  for (uint16_t i = 0; i < rings.size(); i++)
    if (rings[i].get() != nullptr) lookAtUsed(i);
}

// The used ring says what the device returned, each chain once and in that order.
void Session::lookAtUsed(uint16_t queue) {
  auto& ring = *rings[queue];
  auto used = driver.takeUsed(queue);
  auto& returned = unseen[queue];
  for (auto& answer : watch.takeReturned(ring))
    returned.push_back(answer);
  usedIsOdd[queue] = usedIsOdd[queue] || watch.usedRingSpoiled(ring);
  if (usedIsOdd[queue]) return returned.clear();
  if (used.size() > returned.size()) {
    finding(kj::str("the driver sees ", used.size(), " answers where the device gave ",
                    returned.size()));
  }
  for (size_t i = 0; i < used.size(); i++) {
    if (used[i].head != returned[i].head || used[i].written != returned[i].written) {
      finding(kj::str("an answer reads ", used[i].head, " with ", used[i].written,
                      " bytes and was ", returned[i].head, " with ", returned[i].written));
    }
  }
  returned.erase(returned.begin(), returned.begin() + used.size());
}

// Every request that was accepted is answered, once the host has done its part.
void Session::settle() {
  device.settle();
  auto busy = [&](uint16_t i) {
    if (rings[i].get() == nullptr || device.keepsBuffers(i)) return false;
    return rings[i]->inFlight() > 0 || rings[i]->hasWork() || !unseen[i].empty();
  };
  for (int turn = 0; turn < device.turnsToSettle(); turn++) {
    bool anyBusy = false;
    for (uint16_t i = 0; i < rings.size(); i++) {
      if (!busy(i)) continue;
      anyBusy = true;
      kick(i);
      device.settle();
    }
    if (!anyBusy) return;
  }
  for (uint16_t i = 0; i < rings.size(); i++) {
    if (busy(i)) {
      finding(kj::str("queue ", i, " has ", rings[i]->inFlight(),
                      " requests that are never answered, ", unseen[i].size(),
                      " answers nobody was told of, or buffers nobody takes"));
    }
  }
}

void runSession(FuzzedDevice& device, kj::ArrayPtr<const kj::byte> input) {
  static Arena arena;
  static Watch watch(arena);
  try {
    Session session(arena, watch, device);
    session.run(input);
  } catch (const kj::Exception& exception) {
    finding(kj::str("an exception left the device: ", exception));
  } catch (const std::exception& exception) {
    finding(kj::str("an exception left the device: ", exception.what()));
  }
}

}  // namespace troupe::fuzz
