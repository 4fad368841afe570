// Launches a guest of a bundle, prints the first line of its serial port and ends it.
//
//   bazel-bin/client/example/guest BUNDLE [SOCKET]
#include <kj/async-io.h>
#include <kj/debug.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/realm_connection.h"

namespace troupe::client {
namespace {

void run(kj::StringPtr bundle, kj::StringPtr socket) {
  auto io = kj::setupAsyncIo();
  RealmConnection connection(io, socket);

  // Calls go out together, each on what the one before will answer.
  auto create = connection.manager().createRequest();
  create.setLabel("example");
  auto realm = create.send().getRealm();  // while it is held, its guests live
  auto launch = realm.launchInstanceRequest();
  launch.initLaunchInfo().setUrl(bundle);
  auto guest = launch.send().getController();
  auto started = guest.waitForStartRequest().send().wait(io.waitScope);
  printf("%s runs\n", started.getName().cStr());

  auto serial = guest.getSerialRequest().send().wait(io.waitScope);
  auto fd = fdOf(serial.getSocket()).wait(io.waitScope);
  // What it said first, to the end of a line; a read gives what there is.
  for (char c = 0; c != '\n';) {
    ssize_t bytes;
    KJ_SYSCALL(bytes = read(fd, &c, 1));
    if (bytes == 0) break;
    putchar(c);
  }

  auto stop = guest.stopRequest();
  stop.setForce(true);
  stop.send().wait(io.waitScope);
  auto end = guest.waitForEndRequest().send().wait(io.waitScope);
  printf("%s\n", end.getEnd().getReason().cStr());
}

}  // namespace
}  // namespace troupe::client

int main(int argc, char* argv[]) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s BUNDLE [SOCKET]\n", argv[0]);
    return 2;
  }
  char bundle[PATH_MAX];
  if (realpath(argv[1], bundle) == nullptr) {
    perror(argv[1]);
    return 1;
  }
  auto socket = argc > 2 ? kj::str(argv[2]) : troupe::client::defaultSocket();
  KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { troupe::client::run(bundle, socket); })) {
    fprintf(stderr, "%s\n", failure->getDescription().cStr());
    return 1;
  }
}
