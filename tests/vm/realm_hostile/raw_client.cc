#include "tests/vm/realm_hostile/raw_client.h"

#include <capnp/serialize.h>
#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace troupe::hostile {

namespace {

constexpr size_t MOST_FDS = 64;

ssize_t sendSome(int socket, kj::ArrayPtr<const kj::byte> bytes, kj::ArrayPtr<const int> fds) {
  iovec part = {const_cast<kj::byte*>(bytes.begin()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char space[CMSG_SPACE(MOST_FDS * sizeof(int))] = {};
  if (fds.size() > 0) {
    KJ_REQUIRE(fds.size() <= MOST_FDS);
    message.msg_control = space;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    auto header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(header), fds.begin(), fds.size() * sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

RawClient::RawClient(kj::StringPtr path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  KJ_REQUIRE(path.size() < sizeof(address.sun_path));
  memcpy(address.sun_path, path.begin(), path.size());
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  fd = kj::AutoCloseFd(raw);
  KJ_SYSCALL(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), path);
}

bool RawClient::say(kj::Function<void(capnp::rpc::Message::Builder)> fill,
                    kj::ArrayPtr<const int> fds) {
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<capnp::rpc::Message>());
  return sayBytes(capnp::messageToFlatArray(message).asBytes(), fds);
}

bool RawClient::sayBytes(kj::ArrayPtr<const kj::byte> bytes, kj::ArrayPtr<const int> fds) {
  while (bytes.size() > 0) {
    ssize_t sent = sendSome(fd, bytes, fds);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      if (!wait(POLLOUT)) return false;
      continue;
    }
    if (sent < 0) return false;
    bytes = bytes.slice(sent, bytes.size());
    fds = nullptr;  // they went with the first byte
  }
  return true;
}

bool RawClient::wait(short events) {
  pollfd waiting = {fd, events, 0};
  int count;
  KJ_SYSCALL(count = poll(&waiting, 1, patienceMs));
  return count > 0;
}

RawClient::Heard RawClient::hear(kj::Function<void(capnp::rpc::Message::Reader)> look) {
  if (!wait(POLLIN)) return Heard::NOTHING;
  auto failure = kj::runCatchingExceptions([&]() {
    capnp::StreamFdMessageReader message(fd.get());
    look(message.getRoot<capnp::rpc::Message>());
  });
  return failure == nullptr ? Heard::MESSAGE : Heard::HUNG_UP;
}

RawClient::Heard RawClient::hearAnswer(uint32_t id,
                                       kj::Function<void(capnp::rpc::Return::Reader)> look) {
  for (;;) {
    bool isIt = false;
    auto heard = hear([&](capnp::rpc::Message::Reader message) {
      isIt = message.isReturn() && message.getReturn().getAnswerId() == id;
      if (isIt) look(message.getReturn());
    });
    if (isIt || heard != Heard::MESSAGE) return heard;
  }
}

void RawClient::hearWhatIsThere() {
  for (;;) {
    pollfd waiting = {fd, POLLIN, 0};
    if (poll(&waiting, 1, 0) <= 0 || hear() != Heard::MESSAGE) return;
  }
}

bool RawClient::bootstrap(uint32_t id) {
  return say(
      [id](capnp::rpc::Message::Builder message) { message.initBootstrap().setQuestionId(id); });
}

bool RawClient::finish(uint32_t id) {
  return say(
      [id](capnp::rpc::Message::Builder message) { message.initFinish().setQuestionId(id); });
}

void setPromised(capnp::rpc::MessageTarget::Builder target, uint32_t id,
                 kj::ArrayPtr<const uint16_t> fields) {
  auto promised = target.initPromisedAnswer();
  promised.setQuestionId(id);
  auto transform = promised.initTransform(kj::uint(fields.size()));
  for (size_t i = 0; i < fields.size(); i++)
    transform[kj::uint(i)].setGetPointerField(fields[i]);
}

}  // namespace troupe::hostile
