// Who comes through the door of realms meets a process in a sound jail, or nobody.
#include "vmm/serve/realm_door.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "tests/files/temporary_folder.h"
#include "vmm/files/endpoint_files.h"
#include "vmm/words/error_codes.h"

namespace troupe::realm {
namespace {

using Fault = sandbox::LaunchFaults;

// Asks for what the other side offers (rpc.capnp, Message.bootstrap).
constexpr uint64_t BOOTSTRAP[] = {
    5ull << 32, 1ull << 32 | 1ull << 48, 8, 1ull << 32 | 1ull << 48, 1, 0};

kj::AutoCloseFd connectTo(kj::StringPtr path) {
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  kj::AutoCloseFd client(fd);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.begin(), path.size());
  KJ_SYSCALL(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  return client;
}

struct Visit {
  ssize_t heard = 0;  // bytes; -1: `error` says why none
  int error = 0;
  std::string said;  // to whoever runs the realms
};

// A client that asks at once, of fronts whose jails lack these layers.
Visit visit(uint32_t layers) {
  static bool captured = (kj::UnixEventPort::captureChildExit(), true);
  KJ_ASSERT(captured);
  Visit visit;
  ::testing::internal::CaptureStderr();
  {
    auto io = kj::setupAsyncIo();
    Stage::Choices choices;
    choices.programs = "bin"_kj;
    choices.faults = Fault{layers};
    choices.hostsMany = true;
    Stage stage(io, choices);
    Environments realms(io, stage);
    RealmTerms terms;
    testing::TemporaryFolder folder;
    auto path = kj::str(folder.at("realms").c_str());
    ListeningSocket listening(path, "the test's socket", codes::SERVE_SOCKET);
    RealmDoor door(io, listening.fd(), stage, realms, terms);
    auto client = connectTo(path);
    KJ_ASSERT(write(client, BOOTSTRAP, sizeof(BOOTSTRAP)) == sizeof(BOOTSTRAP));
    kj::UnixEventPort::FdObserver observer(io.unixEventPort, client,
                                           kj::UnixEventPort::FdObserver::OBSERVE_READ);
    char answer[4096];
    while ((visit.heard = recv(client, answer, sizeof(answer), 0)) < 0 && errno == EAGAIN)
      observer.whenBecomesReadable().wait(io.waitScope);
    visit.error = visit.heard < 0 ? errno : 0;
  }
  visit.said = ::testing::internal::GetCapturedStderr();
  return visit;
}

TEST(RealmDoor, AnswersAClientThroughAFrontInASoundJail) {
  auto sound = visit(0);
  EXPECT_GT(sound.heard, 0) << strerror(sound.error) << sound.said;
}

// A unix socket whose holder closes it with something unread is reset. So this front end has not
// read a byte.
TEST(RealmDoor, HangsUpBeforeAFrontInABrokenJailHasReadAByte) {
  for (uint32_t layers :
       {uint32_t(Fault::NET_NAMESPACE), uint32_t(Fault::EMPTY_ROOT), uint32_t(Fault::BOUNDING_SET),
        uint32_t(Fault::SECCOMP), uint32_t(Fault::LIMITS)}) {
    auto broken = visit(layers);
    EXPECT_EQ(broken.heard, -1) << layers;
    EXPECT_EQ(broken.error, ECONNRESET) << layers;
    EXPECT_NE(broken.said.find("clients of realms are hung up on: "), std::string::npos)
        << broken.said;
    EXPECT_NE(broken.said.find("is not what its profile says"), std::string::npos) << broken.said;
  }
}

}  // namespace
}  // namespace troupe::realm
