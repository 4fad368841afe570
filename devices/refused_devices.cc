// Plays devices that do what their jails do not allow, for tests: the console in its first stage,
// the random number generator when the guest's driver is ready. The serial port is the real one.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "devices/console/serial_main.h"
#include "devices/virtio/device_main.h"

namespace troupe {
namespace {

constexpr uint16_t ENTROPY_DEVICE = 4;  // §5.4.1

class RefusedEngine final: public virtio::DeviceEngine {
 public:
  virtio::DeviceDescription describe() override {
    virtio::DeviceDescription description = {};
    description.deviceType = ENTROPY_DEVICE;
    description.queueSizes = kj::heapArray<uint16_t>({uint16_t{64}});
    return description;
  }

  void start(const virtio::GuestMemory&, uint64_t, kj::Array<virtio::ActiveQueue>,
             virtio::DriverLink&) override {
    fcntl(sandbox::RPC_FD, F_GETFL, 0);
  }

  kj::Promise<void> stop() override { return kj::READY_NOW; }
};

int refusedInRun() {
  return virtio::deviceMain(
      [](kj::AsyncIoContext&, sandbox::ActorSetup&) { return kj::heap<RefusedEngine>(); });
}

}  // namespace
}  // namespace troupe

int main(int, char** argv) {
  if (strcmp(argv[0], "troupe-serial") == 0) return troupe::console::serialMain();
  if (strcmp(argv[0], "troupe-rng") == 0) return troupe::refusedInRun();
  return socket(AF_INET, SOCK_STREAM, 0) < 0 ? 1 : 2;
}
