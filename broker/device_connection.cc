#include "broker/device_connection.h"

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <kj/debug.h>

#include <cstdint>

namespace troupe::broker {
namespace {

// A description with the most queues and the largest configuration takes 8.4 KiB; a device can make
// the broker hold one message and this many words of calls.
constexpr uint64_t MAX_MESSAGE_WORDS = 8 * 1024;
constexpr size_t MAX_CALL_WORDS = 16 * 1024;

// A device gives the broker no fds. 1 rather than 0, with which Cap'n Proto 0.9 would send none
// either; one that comes is closed with its message.
constexpr kj::uint FDS_TAKEN_PER_MESSAGE = 1;

capnp::ReaderOptions readerOptions() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = MAX_MESSAGE_WORDS;
  options.nestingLimit = 16;
  return options;
}

// An honest device finishes each call when it has its answer, and has few under way.
constexpr uint64_t MAX_UNFINISHED_CALLS = 256;

}  // namespace

// Messages to and from a device, so that it cannot make the broker collect them. From a device that
// does not read what it is answered nothing more is let in: an honest one always reads. One that
// never finishes its calls, which Cap'n Proto remembers until then, is hung up on.
class DeviceConnection::PatientStream final: public capnp::MessageStream {
 public:
  explicit PatientStream(kj::AsyncCapabilityStream& stream) : inner(stream) {}

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fdSpace, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratchSpace) override {
    if (writes == 0) {
      return inner.tryReadMessage(fdSpace, options, scratchSpace).then([this](auto message) {
        KJ_IF_MAYBE (m, message) {
          countCall(m->reader->template getRoot<capnp::rpc::Message>());
        }
        return kj::mv(message);
      });
    }
    auto written = kj::newPromiseAndFulfiller<void>();
    allWritten = kj::mv(written.fulfiller);
    return written.promise.then([this, fdSpace, options, scratchSpace]() {
      return tryReadMessage(fdSpace, options, scratchSpace);
    });
  }

  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override {
    return count(inner.writeMessage(fds, segments));
  }

  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override {
    return count(inner.writeMessages(messages));
  }

  kj::Maybe<int> getSendBufferSize() override { return inner.getSendBufferSize(); }
  kj::Promise<void> end() override { return inner.end(); }

 private:
  void countCall(capnp::rpc::Message::Reader message) {
    if (message.isCall() || message.isBootstrap()) {
      KJ_REQUIRE(++unfinishedCalls <= MAX_UNFINISHED_CALLS,
                 "the device finishes none of its calls");
    } else if (message.isFinish()) {
      --unfinishedCalls;  // a second one for a call is an error to Cap'n Proto
    }
  }

  kj::Promise<void> count(kj::Promise<void> write) {
    ++writes;
    return write.attach(kj::defer([this]() {
      if (--writes > 0) return;
      KJ_IF_MAYBE (fulfiller, allWritten) {
        (*fulfiller)->fulfill();
        allWritten = nullptr;
      }
    }));
  }

  capnp::AsyncCapabilityMessageStream inner;
  size_t writes = 0;
  uint64_t unfinishedCalls = 0;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> allWritten;
};

DeviceConnection::DeviceConnection(kj::Own<kj::AsyncCapabilityStream> stream)
    : pipe(kj::mv(stream)),
      messages(kj::heap<PatientStream>(*pipe)),
      network(*messages, FDS_TAKEN_PER_MESSAGE, capnp::rpc::twoparty::Side::CLIENT,
              readerOptions()),
      rpc(capnp::makeRpcClient(network)) {
  rpc.setFlowLimit(MAX_CALL_WORDS);
}

DeviceConnection::~DeviceConnection() noexcept(false) {}

Device::Client DeviceConnection::bootstrap() {
  capnp::MallocMessageBuilder message(4);
  auto server = message.getRoot<capnp::rpc::twoparty::VatId>();
  server.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(server).castAs<Device>();
}

}  // namespace troupe::broker
