#include "broker/virtio_pci_function.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/eventfd.h>

#include <bitset>
#include <cstring>
#include <mutex>

#include "broker/memory_map.h"
#include "broker/msix.h"
#include "broker/virtio_pci_config.h"
#include "broker/virtio_transport.h"

namespace troupe::broker {
namespace {

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

}  // namespace

class VirtioPciFunction::Registers final: public BusDevice {
 public:
  Registers(const DeviceDescription& description, VirtioDevice& device, PciSocket socket,
            uint8_t slot)
      : device(device),
        socket(socket),
        slot(slot),
        intxGsi(PciBus::intxGsi(slot)),
        transport(description, description.queueSizes.size() + 1),
        config(description.deviceType, transport.queueCount(), transport.configBytes().size(),
               socket.pci.allocateMmio(BAR_SIZE), intxGsi) {
    makeEventFds(description.queueSizes.size());
    auto calls = KJ_MAP(queue, queueFds) {
      return queue.call;
    };
    msix = kj::heap<Msix>(socket.interrupts, transport.queueCount() + 1, kj::mv(calls));
    notifyAttached = kj::heapArray<bool>(transport.queueCount());
    for (auto& attached : notifyAttached)
      attached = false;
  }

  ~Registers() noexcept(false) {
    setNotifyAttached(false);
    KJ_IF_MAYBE (base, decodedAt) {
      socket.mmio.remove(*base);
    }
  }

  // PciFunction

  void configRead(uint32_t offset, kj::ArrayPtr<kj::byte> data) {
    std::lock_guard<std::mutex> lock(mutex);
    KJ_IF_MAYBE (target, config.windowTarget(offset, data.size())) {
      barRead(*target, data);
    } else {
      config.setInterruptStatus(transport.interruptStatus() != 0 && !msix->enabled());
      config.read(offset, data);
    }
  }

  void configWrite(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
    std::lock_guard<std::mutex> lock(mutex);
    KJ_IF_MAYBE (target, config.windowTarget(offset, data.size())) {
      barWrite(*target, data);
    } else {
      config.write(offset, data);
      applyConfig();
    }
    sendErrand();
  }

  // BusDevice: BAR 0

  void busRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) override {
    std::lock_guard<std::mutex> lock(mutex);
    barRead(offset, data);
  }

  void busWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) override {
    std::lock_guard<std::mutex> lock(mutex);
    barWrite(offset, data);
    sendErrand();
  }

  // VirtioDeviceClient

  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!transport.configChanged(offset, data)) return false;
    if (transport.active()) interruptForConfig();
    return true;
  }

  void needsReset() {
    std::lock_guard<std::mutex> lock(mutex);
    if (transport.needsReset()) interruptForConfig();
  }

  void resetDone() {
    std::lock_guard<std::mutex> lock(mutex);
    if (!transport.resetDone()) return;
    cleared();
    sendErrand();
    KJ_IF_MAYBE (waiting, powerCycled) {
      (*waiting)->fulfill();
      powerCycled = nullptr;
    }
  }

  kj::Promise<void> powerCycle() {
    auto released = kj::newPromiseAndFulfiller<void>();
    {
      std::lock_guard<std::mutex> lock(mutex);
      config.powerOn();
      applyConfig();
      msix->clearTable();
      perform(transport.reset());
      sendErrand();
      // Asked for now, or by a driver before.
      if (!transport.isResetting()) return kj::READY_NOW;
    }
    powerCycled = kj::mv(released.fulfiller);
    return kj::mv(released.promise);
  }

  uint64_t countNotifyExits() {
    std::lock_guard<std::mutex> lock(mutex);
    return notifyExits;
  }

  kj::ArrayPtr<const QueueFds> queues() const { return queueFds; }

 private:
  // What the device is to be told, gathered under the mutex and carried by the main loop. At most
  // one errand is in the mailbox, however much a guest adds to it.
  struct Activation {
    uint64_t features;
    kj::Array<QueueSettings> queues;
  };
  struct Errand {
    kj::Maybe<Activation> activation;
    bool reset = false;
    bool readCalls = false;  // whether the main loop is to read the call eventfds: INTx
    std::bitset<PCI_CONFIG_SIZE> written;  // bytes of the device's configuration
  };

  // One call eventfd while its interrupts go by INTx.
  struct CallReader {
    CallReader(Registers& registers, uint16_t queue, kj::UnixEventPort& events, int fd)
        : registers(registers),
          queue(queue),
          observer(events, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ),
          reading(read().eagerlyEvaluate(nullptr)) {}

    kj::Promise<void> read() {
      return observer.whenBecomesReadable().then([this]() {
        registers.interruptForQueue(queue);
        return read();
      });
    }

    Registers& registers;
    uint16_t queue;
    kj::UnixEventPort::FdObserver observer;
    kj::Promise<void> reading;
  };

  void makeEventFds(size_t count) {
    kj::Vector<QueueFds> made(count);
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t index = (slot - 1) * MAX_QUEUES + i;
      auto& kick = eventFds.add(socket.fds.place("kick", index, makeEventFd()));
      int kickFd = kick.get();
      auto& call = eventFds.add(socket.fds.place("call", index, makeEventFd()));
      made.add(QueueFds{kickFd, call.get()});
    }
    queueFds = made.releaseAsArray();
  }

  void applyConfig() {
    uint16_t command = config.command();
    bool isMaster = (command & PCI_COMMAND_MASTER) != 0;
    msix->setControl(config.msixControl(), isMaster);
    decode();
    if (isMaster && !wasMaster && transport.active()) kickAll();
    wasMaster = isMaster;
    // A function that may not reach memory gets no work either: notifications wait.
    setNotifyAttached(isMaster && decodedAt != nullptr);
    updateInterrupts();
  }

  // Brings the BAR's place on the bus in line with the configuration space. One that does not lie
  // in the MMIO window, or on another's, does not decode; the next write to it or to the command
  // register tries again. So no BAR can shadow RAM, ECAM or an interrupt controller.
  void decode() {
    kj::Maybe<uint64_t> wanted;
    if ((config.command() & PCI_COMMAND_MEMORY) != 0) {
      uint64_t base = config.barAddress();
      if (base >= MMIO32_START && base + BAR_SIZE <= MMIO32_END) wanted = base;
    }
    if (wanted == decodedAt) return;
    setNotifyAttached(false);
    KJ_IF_MAYBE (base, decodedAt) {
      socket.mmio.remove(*base);
      decodedAt = nullptr;
    }
    KJ_IF_MAYBE (base, wanted) {
      if (socket.mmio.add(*base, BAR_SIZE, *this)) decodedAt = *base;
    }
  }

  // Connects the notification slots to the kick eventfds. One the kernel refuses comes as an exit.
  void setNotifyAttached(bool attached) {
    for (size_t i = 0; i < notifyAttached.size(); ++i) {
      if (notifyAttached[i] == attached) continue;
      uint64_t address =
          KJ_ASSERT_NONNULL(decodedAt) + BAR_NOTIFY + i * uint64_t(NOTIFY_OFF_MULTIPLIER);
      if (attached) {
        notifyAttached[i] = socket.interrupts.attachIoEventFd(address, queueFds[i].kick);
      } else {
        socket.interrupts.detachIoEventFd(address, queueFds[i].kick);
        notifyAttached[i] = false;
      }
    }
  }

  void kickAll() {
    for (auto& queue : queueFds)
      signalEventFd(queue.kick);
  }

  void barRead(uint64_t offset, kj::ArrayPtr<kj::byte> data) {
    memset(data.begin(), 0, data.size());
    uint64_t within = offset % BAR_PAGE;
    switch (offset - within) {
      case BAR_COMMON:
        return transport.readCommon(within, data);
      case BAR_ISR:
        if (within == 0) data[0] = transport.takeIsr();  // §4.1.4.5.1: reading clears
        return updateInterrupts();
      case BAR_DEVICE:
        return transport.readConfig(within, data);
      case BAR_TABLE:
        return msix->readTable(within, data);
      case BAR_PENDING:
        return msix->readPending(within, data);
    }
  }

  void barWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
    uint64_t within = offset % BAR_PAGE;
    switch (offset - within) {
      case BAR_COMMON:
        return perform(transport.writeCommon(within, data));
      case BAR_DEVICE:
        for (size_t i = transport.writeConfig(within, data); i > 0; --i) {
          errand.written.set(within + i - 1);
          errandWanted = true;
        }
        return;
      case BAR_NOTIFY:
        return notify(within);
      case BAR_TABLE:
        return msix->writeTable(within, data);
    }
  }

  // A notification that no ioeventfd took: the slot alone says which queue, whatever was written.
  void notify(uint64_t offset) {
    KJ_IF_MAYBE (queue, transport.notifiedQueue(offset)) {
      ++notifyExits;
      if (wasMaster) signalEventFd(queueFds[*queue].kick);
    }
  }

  void perform(TransportAction action) {
    switch (action) {
      case TransportAction::NONE:
        return;
      case TransportAction::ACTIVATE:
        errand.activation = Activation{transport.features(), transport.enabledQueues()};
        errandWanted = true;
        break;
      case TransportAction::RESET:
        errand.reset = true;
        errandWanted = true;
        break;
      case TransportAction::CLEARED:
        return cleared();
      case TransportAction::VECTORS:
        connectVectors();
        break;
    }
    updateInterrupts();
  }

  void cleared() {
    connectVectors();
    msix->discard();
    updateInterrupts();
  }

  void connectVectors() {
    for (uint16_t i = 0; i < transport.queueCount(); ++i) {
      msix->connect(i, transport.queueVector(i));
    }
  }

  // Brings the INTx pin, and who reads the call eventfds, in line with the state.
  void updateInterrupts() {
    bool disabled = (config.command() & PCI_COMMAND_INTX_DISABLE) != 0;
    bool level = transport.interruptStatus() != 0 && !disabled && !msix->enabled();
    if (level != lineLevel) socket.intxLines.set(intxGsi, slot, level);
    lineLevel = level;

    bool readCalls = transport.active() && !msix->enabled();
    if (readCalls != errand.readCalls) errandWanted = true;
    errand.readCalls = readCalls;
  }

  void interruptForConfig() {
    transport.raiseIsr(ISR_CONFIG);  // §4.1.5.4
    msix->raise(transport.configVector());
    updateInterrupts();
  }

  // Main loop: the device has signalled a call eventfd that is nobody's irqfd.
  void interruptForQueue(uint16_t queue) {
    std::lock_guard<std::mutex> lock(mutex);
    // MSI-X may have been switched on since, and then the count is a pending bit.
    if (!transport.active() || msix->enabled() || !drainEventFd(queueFds[queue].call)) return;
    transport.raiseIsr(ISR_QUEUE);
    updateInterrupts();
  }

  void sendErrand() {
    if (!errandWanted || errandSent) return;
    errandSent = true;
    socket.mailbox.post([this]() { carry(); });
  }

  // Main loop: tells the device. The mutex is not held, since it may answer at once.
  void carry() {
    Errand taken;
    kj::Vector<kj::Array<kj::byte>> pieces;
    kj::Vector<uint32_t> offsets;
    {
      std::lock_guard<std::mutex> lock(mutex);
      errandSent = false;
      errandWanted = false;
      collectWritten(offsets, pieces);
      taken = kj::mv(errand);
      errand = Errand();
      errand.readCalls = taken.readCalls;
    }
    for (auto i : kj::indices(pieces))
      device.writeConfig(offsets[i], pieces[i]);
    setCallReaders(taken.readCalls);
    if (taken.readCalls) {
      // Readers that were left in place meanwhile may have seen a signal and passed it over.
      for (uint16_t i = 0; i < queueFds.size(); ++i)
        interruptForQueue(i);
    }
    bool wasToStart = false;
    KJ_IF_MAYBE (activation, taken.activation) {
      wasToStart = true;
      if (!taken.reset) device.activate(activation->features, kj::mv(activation->queues));
    }
    if (!taken.reset) return;
    if (wasToStart) {
      resetDone();  // it never heard of the driver that came and went
    } else {
      device.reset();
    }
  }

  // The runs of bytes the driver wrote, as they are now.
  void collectWritten(kj::Vector<uint32_t>& offsets, kj::Vector<kj::Array<kj::byte>>& pieces) {
    if (errand.written.none()) return;
    auto bytes = transport.configBytes();
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (!errand.written.test(i)) continue;
      size_t start = i;
      while (i < bytes.size() && errand.written.test(i))
        ++i;
      offsets.add(start);
      pieces.add(kj::heapArray<kj::byte>(bytes.slice(start, i)));
    }
  }

  void setCallReaders(bool wanted) {
    if (!wanted) return callReaders.clear();
    if (!callReaders.empty()) return;
    for (uint16_t i = 0; i < queueFds.size(); ++i) {
      callReaders.add(kj::heap<CallReader>(*this, i, socket.events, queueFds[i].call));
    }
  }

  VirtioDevice& device;
  const PciSocket socket;
  const uint8_t slot;
  const uint32_t intxGsi;
  kj::Vector<kj::AutoCloseFd> eventFds;
  kj::Array<QueueFds> queueFds;
  kj::Vector<kj::Own<CallReader>> callReaders;                 // main loop only
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> powerCycled;  // main loop only

  std::mutex mutex;  // guards what follows; a mutex the thread sanitizer knows, unlike KJ's
  VirtioTransport transport;
  VirtioPciConfig config;
  kj::Own<Msix> msix;
  kj::Maybe<uint64_t> decodedAt;
  kj::Array<bool> notifyAttached;
  bool wasMaster = false;
  bool lineLevel = false;
  uint64_t notifyExits = 0;
  Errand errand;
  bool errandWanted = false;
  bool errandSent = false;
};

VirtioPciFunction::VirtioPciFunction(const DeviceDescription& description, VirtioDevice& device,
                                     PciSocket socket)
    : ownSlot(socket.pci.add(*this)),
      registers(kj::heap<Registers>(description, device, socket, ownSlot)) {}

VirtioPciFunction::~VirtioPciFunction() noexcept(false) = default;

uint8_t VirtioPciFunction::slot() const {
  return ownSlot;
}

kj::ArrayPtr<const QueueFds> VirtioPciFunction::queueFds() const {
  return registers->queues();
}

kj::Promise<void> VirtioPciFunction::powerCycle() {
  return registers->powerCycle();
}

uint64_t VirtioPciFunction::notifyExits() {
  return registers->countNotifyExits();
}

void VirtioPciFunction::configRead(uint32_t offset, kj::ArrayPtr<kj::byte> data) {
  registers->configRead(offset, data);
}

void VirtioPciFunction::configWrite(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  registers->configWrite(offset, data);
}

bool VirtioPciFunction::configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  return registers->configChanged(offset, data);
}

void VirtioPciFunction::needsReset() {
  registers->needsReset();
}

void VirtioPciFunction::resetDone() {
  registers->resetDone();
}

}  // namespace troupe::broker
