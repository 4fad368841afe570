#include "broker/msix.h"

#include <kj/debug.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>

namespace troupe::broker {
namespace {

enum Word { ADDRESS_LOW, ADDRESS_HIGH, MESSAGE_DATA, CONTROL };
constexpr uint32_t CONTROL_MASKED = 1;

// Only a write to the window of the local APICs is an interrupt (Intel SDM 3A, §10.11.1). Anything
// else would be a store to memory, which the broker does for nobody.
bool isInterruptMessage(const uint32_t words[3]) {
  return words[ADDRESS_HIGH] == 0 && words[ADDRESS_LOW] >> 20 == 0xfee;
}

}  // namespace

bool drainEventFd(int fd) {
  eventfd_t count = 0;
  return eventfd_read(fd, &count) == 0 && count > 0;
}

void signalEventFd(int fd) {
  // A full counter (EAGAIN) has been signalled already.
  eventfd_write(fd, 1);
}

Msix::Msix(Interrupts& interrupts, uint16_t vectorCount, kj::Array<int> fds)
    : interrupts(interrupts),
      vectors(kj::heapArray<Vector>(vectorCount)),
      sources(kj::heapArray<Source>(fds.size())) {
  for (auto& vector : vectors)
    vector.gsi = interrupts.allocateMsiGsi();
  for (auto i : kj::indices(fds))
    sources[i].fd = fds[i];
}

Msix::~Msix() noexcept(false) {
  for (auto& source : sources)
    detach(source);
}

void Msix::setControl(uint16_t control, bool busMaster) {
  bool wasOn = on;
  on = (control & MSIX_CONTROL_ENABLE) != 0;
  deliverable = on && busMaster && (control & MSIX_CONTROL_FUNCTION_MASK) == 0;
  if (wasOn && !on) {
    for (auto& vector : vectors)
      vector.pending = false;
  }
  for (uint16_t i = 0; i < vectors.size(); ++i)
    refresh(i);
}

void Msix::connect(uint16_t index, uint16_t vector) {
  Source& source = sources[index];
  if (source.vector == vector) return;
  detach(source);
  source.vector = vector;
  if (vector != NO_VECTOR && vectors[vector].armed) attach(source);
}

void Msix::raise(uint16_t index) {
  if (index == NO_VECTOR || !on) return;
  Vector& vector = vectors[index];
  if (vector.armed) {
    interrupts.sendMsi(vector.gsi);
  } else {
    vector.pending = true;
  }
}

void Msix::discard() {
  for (auto& vector : vectors)
    vector.pending = false;
  for (auto& source : sources)
    drainEventFd(source.fd);
}

void Msix::clearTable() {
  const Vector fresh{};
  for (auto& vector : vectors) {
    memcpy(vector.words, fresh.words, sizeof vector.words);
    vector.pending = false;
  }
}

void Msix::readTable(uint64_t offset, kj::ArrayPtr<kj::byte> data) const {
  for (auto& byte : data) {
    uint64_t index = offset / MSIX_ENTRY_SIZE;
    uint32_t shift = offset % 4 * 8;
    byte = index < vectors.size() ? vectors[index].words[offset % MSIX_ENTRY_SIZE / 4] >> shift : 0;
    ++offset;
  }
}

void Msix::writeTable(uint64_t offset, kj::ArrayPtr<const kj::byte> data) {
  if ((data.size() != 4 && data.size() != 8) || offset % data.size() != 0) return;
  uint64_t index = offset / MSIX_ENTRY_SIZE;
  if (index >= vectors.size()) return;
  for (size_t i = 0; i < data.size(); i += 4) {
    uint32_t value;
    memcpy(&value, &data[i], sizeof value);
    writeWord(offset + i, value);
  }
  refresh(index);
}

void Msix::writeWord(uint64_t offset, uint32_t value) {
  uint32_t word = offset % MSIX_ENTRY_SIZE / 4;
  uint32_t writable = word == CONTROL ? CONTROL_MASKED : word == ADDRESS_LOW ? ~3u : ~0u;
  vectors[offset / MSIX_ENTRY_SIZE].words[word] = value & writable;
}

void Msix::readPending(uint64_t offset, kj::ArrayPtr<kj::byte> data) {
  uint64_t bits = 0;
  // Without MSI-X the counts belong to INTx, whose reader is the main loop.
  if (on) {
    for (auto& source : sources) {
      if (source.vector == NO_VECTOR || source.attached) continue;
      if (drainEventFd(source.fd)) vectors[source.vector].pending = true;
    }
    for (auto i : kj::indices(vectors)) {
      if (vectors[i].pending) bits |= uint64_t(1) << i;
    }
  }
  for (auto& byte : data) {
    byte = offset < sizeof bits ? bits >> offset * 8 : 0;
    ++offset;
  }
}

void Msix::refresh(uint16_t index) {
  Vector& vector = vectors[index];
  bool arm = deliverable && (vector.words[CONTROL] & CONTROL_MASKED) == 0 && program(vector);
  if (arm == vector.armed) return;
  vector.armed = arm;
  for (auto& source : sources) {
    if (source.vector != index) continue;
    if (arm) {
      attach(source);
    } else {
      detach(source);
    }
  }
  if (arm && vector.pending) {
    vector.pending = false;
    interrupts.sendMsi(vector.gsi);
  }
}

// Gives the kernel the vector's message if it has another; false when it is not to be sent.
bool Msix::program(Vector& vector) {
  if (!isInterruptMessage(vector.words)) return false;
  if (vector.isProgrammed &&
      memcmp(vector.programmed, vector.words, sizeof vector.programmed) == 0) {
    return true;
  }
  memcpy(vector.programmed, vector.words, sizeof vector.programmed);
  vector.isProgrammed =
      interrupts.setMsi(vector.gsi, vector.words[ADDRESS_LOW], vector.words[MESSAGE_DATA]);
  return vector.isProgrammed;
}

void Msix::attach(Source& source) {
  source.attached = interrupts.attachIrqFd(vectors[source.vector].gsi, source.fd);
  // A count from before was raised by attaching, but stays in the eventfd, where it would look
  // pending the next time the vector is masked. What comes in between KVM has consumed, so nothing
  // is lost.
  if (source.attached) drainEventFd(source.fd);
}

void Msix::detach(Source& source) {
  if (!source.attached) return;
  interrupts.detachIrqFd(vectors[source.vector].gsi, source.fd);
  source.attached = false;
}

}  // namespace troupe::broker
