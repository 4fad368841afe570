// Plays the broker as whoever has broken into it might: the command line of the guest says how.
#include <capnp/rpc-twoparty.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "protos/broker.capnp.h"
#include "sandbox/actor_setup.h"

namespace {

using troupe::Broker;

constexpr size_t LONG = 200000;

// Text a terminal must not obey, a line must not contain and nobody wants to read to its end.
kj::String nastyText(kj::StringPtr start) {
  std::string text = start.cStr();
  while (text.size() < LONG)
    text += "\x1b[31mred\x07\nTRP-cfg-001: \xff\xfe";
  return kj::heapString(text.data(), text.size());
}

void sendAll(kj::ArrayPtr<const kj::byte> bytes) {
  if (write(troupe::sandbox::RPC_FD, bytes.begin(), bytes.size()) < 0) _exit(0);
}

void sendBlocking() {
  int flags = fcntl(troupe::sandbox::RPC_FD, F_GETFL);
  fcntl(troupe::sandbox::RPC_FD, F_SETFL, flags & ~O_NONBLOCK);
}

[[noreturn]] void sendGarbage() {
  sendBlocking();
  kj::byte garbage[4096];
  memset(garbage, 0xff, sizeof(garbage));
  for (;;)
    sendAll(garbage);
}

// Faster than anybody reads.
[[noreturn]] void sayLines() {
  std::string lines;
  while (lines.size() < 4096)
    lines += "x\n";
  for (;;) {
    ssize_t written = write(troupe::sandbox::LOG_FD, lines.data(), lines.size());
    if (written < 0 && errno == EPIPE) _exit(0);
  }
}

// Calls without end: asks for the other side's bootstrap capability, again and again. No answer is
// ever read; `finish` lets go of each at once.
[[noreturn]] void sendCalls(bool finish) {
  sendBlocking();
  constexpr uint32_t CALLS_AT_ONCE = 1000;
  for (uint32_t question = 1u << 20;;) {
    kj::VectorOutputStream bytes;
    for (uint32_t i = 0; i < CALLS_AT_ONCE; i++, question++) {
      capnp::MallocMessageBuilder call;
      call.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(question);
      capnp::writeMessage(bytes, call);
      if (!finish) continue;
      capnp::MallocMessageBuilder end;
      end.initRoot<capnp::rpc::Message>().initFinish().setQuestionId(question);
      capnp::writeMessage(bytes, end);
    }
    sendAll(bytes.getArray());
  }
}

class RudeBroker final: public Broker::Server {
 public:
  kj::Promise<void> create(CreateContext) override { return kj::READY_NOW; }

  kj::Promise<void> addDevice(AddDeviceContext context) override {
    pipes.add(context.getParams().getPipe());  // else the device would end
    return kj::READY_NOW;
  }

  kj::Promise<void> load(LoadContext context) override {
    manner = kj::heapString(context.getParams().getFiles().getCommandLine());
    return kj::READY_NOW;
  }

  kj::Promise<void> prepare(PrepareContext) override {
    if (manner == "silent") return kj::NEVER_DONE;
    if (manner == "long-error") fail(nastyText("TRP-kvm-001: "));
    if (manner == "error-without-code") fail(nastyText("\x1b[2J"));
    if (manner == "unknown-code") fail(kj::str("TRP-zzz-999: made up"));
    if (manner == "garbage") sendGarbage();
    if (manner == "lines") sayLines();
    if (manner == "calls") sendCalls(false);
    if (manner == "finished-calls") sendCalls(true);
    return kj::READY_NOW;
  }

  kj::Promise<void> run(RunContext) override { return kj::READY_NOW; }

  kj::Promise<void> waitForEnd(WaitForEndContext context) override {
    if (manner == "late-calls") sendCalls(true);
    auto end = context.getResults().initEnd();
    end.setDetail(nastyText("\x1b"));
    end.setDevice(65535);
    if (manner == "unknown-end") {
      end.setReason(static_cast<troupe::EndReason>(999));
    } else if (manner == "unknown-device") {
      end.setReason(troupe::EndReason::DEVICE_LOST);
    } else if (manner == "long-crash") {
      end.setReason(troupe::EndReason::CRASHED);
    } else {
      return kj::NEVER_DONE;
    }
    return kj::READY_NOW;
  }

 private:
  [[noreturn]] static void fail(kj::String description) {
    kj::throwFatalException(
        kj::Exception(kj::Exception::Type::FAILED, "rude", 1, kj::mv(description)));
  }

  kj::Vector<troupe::Handle::Client> pipes;
  kj::String manner;
};

}  // namespace

int main() {
  auto io = kj::setupAsyncIo();
  auto pipe = io.lowLevelProvider->wrapUnixSocketFd(troupe::sandbox::RPC_FD,
                                                    kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
  capnp::TwoPartyVatNetwork network(*pipe, 64, capnp::rpc::twoparty::Side::SERVER);
  auto rpc = capnp::makeRpcServer(network, Broker::Client(kj::heap<RudeBroker>()));
  network.onDisconnect().wait(io.waitScope);
  _exit(0);
}
