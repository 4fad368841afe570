// What a device process that somebody took over can do with fds, and what it can ask for.
#include <capnp/schema.h>
#include <capnp/serialize-async.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "broker/remote_device_bench.h"

namespace troupe::broker {
namespace {

// Every fd of this process, which is the broker's here too, and what it is.
std::map<std::string, std::string> openFds() {
  std::map<std::string, std::string> fds;
  for (auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the one that lists them
    auto target = std::filesystem::read_symlink(entry.path(), gone);
    if (!gone) fds[entry.path().filename().string()] = target.string();
  }
  return fds;
}

// Sends the same fds with whatever its device says.
class FdThrower final: public capnp::MessageStream {
 public:
  explicit FdThrower(kj::AsyncCapabilityStream& stream) : inner(stream) {}

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratchSpace) override {
    return inner.tryReadMessage(fdSpace, options, scratchSpace);
  }
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int>,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override {
    return inner.writeMessage(kj::arrayPtr(thrown.data(), thrown.size()), segments);
  }
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override {
    kj::Promise<void> written = kj::READY_NOW;
    for (auto& message : messages)
      written = written.then([this, message]() { return writeMessage(nullptr, message); });
    return written;
  }
  kj::Maybe<int> getSendBufferSize() override { return inner.getSendBufferSize(); }
  kj::Promise<void> end() override { return inner.end(); }

  std::vector<int> thrown;

 private:
  capnp::AsyncCapabilityMessageStream inner;
};

struct ThrowingLink: Link {
  ThrowingLink() {
    rpc = nullptr;
    network = nullptr;
    auto served = kj::heap<ScriptedDevice>(script);
    device = served.get();
    network = kj::heap<capnp::TwoPartyVatNetwork>(thrower, 64, capnp::rpc::twoparty::Side::SERVER);
    rpc = kj::heap<capnp::RpcSystem<capnp::rpc::twoparty::VatId>>(
        capnp::makeRpcServer(*network, kj::mv(served)));
    start();
  }
  ~ThrowingLink() noexcept { hangUp(); }

  // The broker answers what came with the fds, and does what it says.
  void needsReset() {
    uint64_t before = client.needsResets;
    KJ_ASSERT_NONNULL(device->host).needsResetRequest().send().wait(io.waitScope);
    turn();
    EXPECT_EQ(client.needsResets, before + 1);
  }

  FdThrower thrower{*peer};
};

int opened(int fd) {
  KJ_SYSCALL(fd);
  return fd;
}

// Fds of every kind that is worse than a file.
std::vector<std::pair<std::string, kj::AutoCloseFd>> badFds() {
  std::vector<std::pair<std::string, kj::AutoCloseFd>> fds;
  auto add = [&](std::string name, int fd) {
    fds.emplace_back(std::move(name), kj::AutoCloseFd(opened(fd)));
  };
  add("a folder", open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  add("/proc/self/mem", open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  add("O_PATH", open("/", O_PATH | O_CLOEXEC));
  add("an epoll", epoll_create1(EPOLL_CLOEXEC));
  add("an epoll that waits for another", epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  KJ_SYSCALL(epoll_ctl(fds[4].second, EPOLL_CTL_ADD, fds[3].second, &event));
  int pair[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  add("a socket", pair[0]);
  add("its other end", pair[1]);
  // One that holds itself: nobody but the kernel's collector can close it.
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &pair[1], sizeof(int));
  KJ_SYSCALL(sendmsg(pair[0], &message, 0));
  add("a device", open("/dev/zero", O_RDWR | O_CLOEXEC));
  return fds;
}

TEST(RemoteDeviceFds, BRK03AnFdThatADeviceSendsIsClosedWhateverItIs) {
  auto fds = badFds();
  ThrowingLink link;
  link.needsReset();
  auto before = openFds();
  for (auto& [name, fd] : fds) {
    link.thrower.thrown = {fd};
    link.needsReset();
    EXPECT_EQ(openFds(), before) << name;
  }
  EXPECT_EQ(link.losses.size(), 0);
}

TEST(RemoteDeviceFds, BRK03AnyNumberOfFdsIsClosed) {
  auto fds = badFds();
  ThrowingLink link;
  link.needsReset();
  auto before = openFds();
  for (size_t count : {2, 3, 17, 200}) {
    // The same ones again and again.
    link.thrower.thrown.assign(count, fds[0].second);
    link.needsReset();
    link.thrower.thrown.clear();
    for (size_t i = 0; i < count; i++)
      link.thrower.thrown.push_back(fds[i % fds.size()].second);
    link.needsReset();
    EXPECT_EQ(openFds(), before) << count;
  }
  EXPECT_EQ(link.losses.size(), 0);
}

// Numbers of fds mean nothing between processes: what a device says closes none of the broker's and
// puts none in its place.
TEST(RemoteDeviceFds, BRK04NoFdOfTheBrokerIsClosedOrReplaced) {
  ThrowingLink link;
  auto fds = badFds();
  link.needsReset();
  auto before = openFds();
  for (uint32_t number = 0; number < 1000; number++) {
    auto request = KJ_ASSERT_NONNULL(link.device->host).configChangedRequest();
    request.setOffset(number % 16);
    kj::byte data[4] = {kj::byte(number), kj::byte(number >> 8), 0, 0};
    request.setData(kj::arrayPtr(data, number % 3));
    link.thrower.thrown.assign(number % 4, fds[number % fds.size()].second);
    request.send().ignoreResult().catch_([](kj::Exception&&) {}).wait(link.io.waitScope);
  }
  link.turn();
  EXPECT_EQ(openFds(), before);
  EXPECT_EQ(link.losses.size(), 0);
}

// There is nothing by which a device could ask for an ioeventfd, an interrupt route or memory: what
// it has it was handed, once. returnChains() takes memory away, from a guest, and stores what a
// driver reads in its own used ring (ram_deputy_test). Whoever adds a method here has to say what
// it lets a stranger do.
TEST(RemoteDeviceFds, BRK06_BRK07ADeviceHasLittleToAskItsBrokerFor) {
  auto methods = capnp::Schema::from<DeviceHost>().getMethods();
  std::string names;
  for (auto method : methods)
    names += std::string(method.getProto().getName().cStr()) + ";";
  EXPECT_EQ(names, "configChanged;needsReset;returnChains;");
}

TEST(RemoteDeviceFds, BRK07CallsOfMethodsThatAreNotThereAreRefusedAndChangeNothing) {
  ThrowingLink link;
  capnp::Capability::Client host = KJ_ASSERT_NONNULL(link.device->host);
  for (uint16_t method : {3, 4, 100, 65535}) {
    auto request =
        host.typelessRequest(capnp::typeId<DeviceHost>(), method, capnp::MessageSize{64, 1});
    request.initAsAnyStruct(4, 1);
    EXPECT_NE(failureOf([&]() { request.send().wait(link.io.waitScope); }), "") << method;
  }
  EXPECT_EQ(link.client.needsResets, 0);
  EXPECT_EQ(link.client.changes, 0);
  link.needsReset();
}

}  // namespace
}  // namespace troupe::broker
