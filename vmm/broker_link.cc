#include "vmm/broker_link.h"

namespace troupe {

namespace {

// None is wanted; but with 0 Cap'n Proto 0.9 would send none either. What comes is closed unread.
constexpr uint32_t ACCEPTED_FDS = 1;

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 32 * 1024;  // 256 KiB: its answers are a few hundred bytes
  options.nestingLimit = 16;
  return options;
}

}  // namespace

BrokerLink::BrokerLink(kj::AsyncIoContext& io, kj::AutoCloseFd pipe)
    : stream(io.lowLevelProvider->wrapUnixSocketFd(kj::mv(pipe),
                                                   kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
      network(*stream, ACCEPTED_FDS, capnp::rpc::twoparty::Side::CLIENT, boundedReading()),
      rpc(capnp::makeRpcClient(network)) {}

Broker::Client BrokerLink::broker() {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vatId).castAs<Broker>();
}

}  // namespace troupe
