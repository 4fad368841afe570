#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

#include "protos/config.capnp.h"
#include "vmm/config/rate_plan.h"

namespace troupe {

constexpr uint32_t MOST_NETS = 8;
constexpr uint32_t MOST_FORWARDS = 64;  // of one device
constexpr size_t MAC_BYTES = 6;

// A port of the host's whose connections are the guest's.
struct ForwardPlan {
  bool udp;
  kj::String address;  // of the host's; empty: all
  uint16_t hostPort;
  uint16_t guestPort;
};

struct NetPlan {
  enum class Backend { TAP, FD, USER };
  Backend backend;
  kj::String tap;      // with TAP
  kj::Array<int> fds;  // with FD: one for each queue
  kj::byte mac[MAC_BYTES];
  uint16_t mtu;  // 0: not said
  uint16_t queues;
  kj::Array<ForwardPlan> forwards;
  kj::Maybe<kj::String> pcap;
  RatePlan rateIn, rateOut;  // to the guest, from the guest
  bool nospoof;
};

// Throws a user error for the first value that does not do. `vmName` is what addresses are made of;
// without a name they are random.
kj::Array<NetPlan> planNets(capnp::List<NetOptions>::Reader configs, kj::StringPtr vmName);

// Writes what was left to a default out in full. `nets` has passed planNets().
void spellOutNets(capnp::List<NetOptions>::Builder nets, kj::StringPtr vmName);

// "52:54:00:12:34:56".
kj::String macText(const kj::byte (&mac)[MAC_BYTES]);

// "--net tap=NAME": how errors name a device.
kj::String netName(const NetPlan& net);

}  // namespace troupe
