#include "vmm/channels/broker_link.h"

namespace troupe {

namespace {

// None is wanted; but with 0 Cap'n Proto 0.9 would send none either. What comes is closed unread.
constexpr uint32_t ACCEPTED_FDS = 1;

// What it is given has no methods.
constexpr uint32_t BROKERS_CALLS = 0;

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
      messages(*stream, BROKERS_CALLS),
      network(messages, ACCEPTED_FDS, capnp::rpc::twoparty::Side::CLIENT, boundedReading()),
      rpc(capnp::makeRpcClient(network)) {
  messages.watch(network);
}

Broker::Client BrokerLink::broker() {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vatId).castAs<Broker>();
}

}  // namespace troupe
