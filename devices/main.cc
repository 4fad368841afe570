// troupe-devices: all small devices in one executable, so that their processes share its pages. The
// name it is started under chooses the actor.
#include <unistd.h>

#include <cstring>

#include "devices/balloon/balloon_main.h"
#include "devices/blk/blk_main.h"
#include "devices/blk/disk_tool_main.h"
#include "devices/console/console_main.h"
#include "devices/console/serial_main.h"
#include "devices/net/net_main.h"
#include "devices/recorder/recorder_main.h"
#include "devices/rng/rng_main.h"
#include "devices/vsock/vsock_main.h"

namespace {

struct Actor {
  const char* program;
  int (*main)();
};

constexpr Actor ACTORS[] = {
    {"troupe-balloon", troupe::balloon::balloonMain},
    {"troupe-blk", troupe::blk::blkMain},
    {"troupe-disk-tool", troupe::blk::diskToolMain},
    {"troupe-console", troupe::console::consoleMain},
    {"troupe-net", troupe::net::netMain},
    {"troupe-recorder", troupe::recorder::recorderMain},
    {"troupe-rng", troupe::rng::rngMain},
    {"troupe-serial", troupe::console::serialMain},
    {"troupe-vsock", troupe::vsock::vsockMain},
};

constexpr char USAGE[] =
    "TRP-int-102: troupe-devices plays a device only for troupe, which starts it under the name of "
    "that device; to run a VM, use `troupe run`\n";
constexpr int USAGE_STATUS = 64;  // EX_USAGE

const char* baseName(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

}  // namespace

int main(int argc, char** argv) {
  const char* program = argc > 0 ? baseName(argv[0]) : "";
  for (const Actor& actor : ACTORS) {
    if (strcmp(program, actor.program) == 0) return actor.main();
  }
  ssize_t written = write(STDERR_FILENO, USAGE, sizeof(USAGE) - 1);
  static_cast<void>(written);
  return USAGE_STATUS;
}
