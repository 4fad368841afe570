#include "devices/console/console_engine.h"

#include <endian.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cstring>

#include "devices/console/complaint.h"
#include "devices/console/wire.h"
#include "devices/virtio/wire.h"

namespace troupe::console {

namespace {

// Linux fills the receive queue with one page for each of its entries.
constexpr uint16_t QUEUE_SIZE = 64;

// Serves a queue until the driver has broken it.
kj::Promise<void> untilBroken(kj::Promise<void> running, virtio::DriverLink& link) {
  return running.then([&link]() { link.needsReset(); }).eagerlyEvaluate([](kj::Exception&& e) {
    // No guest can cause it, so nothing is known of what comes next: the broker sees the end.
    complain(kj::str("TRP-con-003: serving a console queue failed: ", e.getDescription()));
    _exit(1);
  });
}

}  // namespace

struct ConsoleEngine::Active {
  virtio::DriverLink& link;
  bool wantsSize;
  kj::Maybe<TransmitQueue> transmit;
  kj::Maybe<ReceiveQueue> receive;
  kj::Promise<void> transmitting = nullptr;
  kj::Promise<void> receiving = nullptr;

  Active(virtio::DriverLink& link, bool wantsSize) : link(link), wantsSize(wantsSize) {}
};

ConsoleEngine::ConsoleEngine(kj::UnixEventPort& events, Line& line, uint16_t columns, uint16_t rows)
    : events(events),
      line(line),
      columns(columns),
      rows(rows),
      toldColumns(columns),
      toldRows(rows) {}

ConsoleEngine::~ConsoleEngine() noexcept(false) {}

virtio::DeviceDescription ConsoleEngine::describe() {
  ConsoleConfigSpace space = {htole16(columns), htole16(rows), htole32(1), 0};
  toldColumns = columns;
  toldRows = rows;
  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_CONSOLE;
  description.features = F_SIZE | F_EMERG_WRITE | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  description.queueSizes = kj::heapArray<uint16_t>({QUEUE_SIZE, QUEUE_SIZE});
  description.config = kj::heapArray(kj::arrayPtr(&space, 1).asBytes());
  description.configWriteMask = kj::heapArray<kj::byte>(sizeof(space));
  memset(description.configWriteMask.begin(), 0, sizeof(space));
  memset(description.configWriteMask.begin() + EMERGENCY_WRITE_OFFSET, 0xff,
         sizeof(space.emergencyWrite));
  return description;
}

void ConsoleEngine::start(const virtio::GuestMemory&, uint64_t features,
                          kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  KJ_REQUIRE(active == nullptr, "already active; stop() comes first");
  auto& now = *active.emplace(kj::heap<Active>(link, (features & F_SIZE) != 0));
  for (auto& queue : queues) {
    if (queue.index == TRANSMIT_QUEUE) {
      auto& transmit = now.transmit.emplace(events, kj::mv(queue), line.output);
      now.transmitting = untilBroken(transmit.run(), link);
    } else if (queue.index == RECEIVE_QUEUE) {
      auto& receive = now.receive.emplace(events, kj::mv(queue), line.input);
      now.receiving = untilBroken(receive.run(), link);
    }
  }
  tellSize();
}

kj::Promise<void> ConsoleEngine::stop() {
  // Destroying the queues' promises is all: they touch the rings in their own turns only.
  active = nullptr;
  return kj::READY_NOW;
}

void ConsoleEngine::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  // The low byte of emerg_wr is printed, whether or not the driver has got as far as a queue.
  bool covers = offset <= EMERGENCY_WRITE_OFFSET && data.size() > EMERGENCY_WRITE_OFFSET - offset;
  if (!covers) return;
  size_t at = EMERGENCY_WRITE_OFFSET - offset;
  line.output.write(data.slice(at, at + 1));
}

kj::Promise<void> ConsoleEngine::hostEvent(HostEvent::Reader event) {
  if (!event.isConsoleSize()) return kj::READY_NOW;
  columns = event.getConsoleSize().getColumns();
  rows = event.getConsoleSize().getRows();
  tellSize();
  return kj::READY_NOW;
}

kj::Promise<void> ConsoleEngine::finish() {
  // The guest's last line may still be in the ring.
  KJ_IF_MAYBE (now, active) {
    KJ_IF_MAYBE (transmit, (*now)->transmit) {
      transmit->serveOnce();
    }
  }
  return line.output.drained(LAST_WORDS_WAIT);
}

void ConsoleEngine::tellSize() {
  if (columns == toldColumns && rows == toldRows) return;
  KJ_IF_MAYBE (now, active) {
    if (!(*now)->wantsSize) return;
    uint16_t size[] = {htole16(columns), htole16(rows)};
    static_assert(sizeof(size) == SIZE_LENGTH, "columns and rows stand side by side");
    (*now)->link.configChanged(SIZE_OFFSET, kj::arrayPtr(size, 2).asBytes());
    toldColumns = columns;
    toldRows = rows;
  }
}

}  // namespace troupe::console
