#pragma once

#include <kj/async-unix.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/balloon/kept_balloon.h"
#include "devices/balloon/wire.h"
#include "devices/virtio/device_engine.h"
#include "devices/virtio/host_inputs.h"

namespace troupe::balloon {

// A traditional memory balloon (§5.5): pages that the driver puts into it, and pages that it
// reports or hints to be free, are given back to the host by the broker, which also returns the
// chains. This process writes nothing of the guest's.
//
// It lives in the main loop: a turn is one call to the broker, and each queue has one under way.
class BalloonEngine final: public virtio::DeviceEngine {
 public:
  // `hasStatistics`: the driver is asked for statistics of its memory (STATS_VQ). `kept`: memory
  // for a KeptBalloon, which outlives the engine, or none.
  BalloonEngine(kj::UnixEventPort& events, bool hasStatistics,
                kj::ArrayPtr<kj::byte> kept = nullptr);
  ~BalloonEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  void resume(const virtio::GuestMemory& memory, uint64_t features,
              kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  void forget() override;
  void recordIn(virtio::FlightLog& log) override;
  kj::Promise<void> stop() override;
  kj::Promise<void> handOver() override;
  kj::Promise<void> takeOver() override;
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  kj::Promise<void> hostEvent(HostEvent::Reader event) override;
  kj::Promise<void> report(DeviceReport::Builder report) override;

 private:
  struct Active;  // what a driver's queues need, from start() to stop()

  void askForHints();
  void tellDriver();
  void keepConfig();
  void takeKept();
  void fill(BalloonReport::Builder report) const;

  kj::UnixEventPort& events;
  const bool hasStatistics;
  KeptBalloon keptHere;  // where nobody is to take this process's place
  KeptBalloon& kept;
  BalloonConfigSpace config = {};  // as it should be; what the driver writes included
  BalloonConfigSpace told = {};    // as the broker's copy is
  kj::Vector<kj::Own<virtio::HostInputs>> inputs;  // by queue, or none
  kj::Maybe<kj::Own<Active>> active;
};

}  // namespace troupe::balloon
