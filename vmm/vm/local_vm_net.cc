// A VM and its network devices: what their user does to them while it runs.

#include <kj/debug.h>

#include "devices/net/net.capnp.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// The process answers when its driver has been told, without waiting for anybody.
constexpr kj::Duration PATIENCE = 2 * kj::SECONDS;

[[noreturn]] void notTold(kj::StringPtr name, kj::StringPtr why) {
  UserError(codes::NET_NOT_TOLD, kj::str(name, " was not told: ", why)).raise();
}

}  // namespace

// Its place among all devices.
uint16_t LocalVm::netNamed(kj::StringPtr name) {
  kj::Vector<kj::StringPtr> names;
  for (uint16_t i = 0; i < plan.nets.size(); i++) {
    auto& device = *company.devices[company.firstNet + i].actor;
    if (device.name() == name || (name.size() == 0 && plan.nets.size() == 1)) {
      return company.firstNet + i;
    }
    names.add(device.name());
  }
  auto which = names.size() == 0 ? kj::str("; it has none")
                                 : kj::str("; its devices are ", kj::strArray(names, ", "));
  auto wrong = name.size() == 0 && names.size() > 0
                   ? kj::str("VM ", quote(place->name()), " has several network devices")
                   : kj::str("VM ", quote(place->name()), " has no network device ",
                             name.size() == 0 ? kj::str() : quote(name));
  UserError(codes::NO_SUCH_NET, kj::str(wrong, which)).raise();
}

kj::Promise<void> LocalVm::tellNet(uint16_t device, NetEvent what) {
  auto request = KJ_REQUIRE_NONNULL(broker, "the VM has ended").hostEventRequest();
  request.setDevice(device);
  auto event = request.initEvent();
  if (what == NetEvent::ANNOUNCE) {
    event.setNetAnnounce();
  } else {
    event.setNetLink(what == NetEvent::LINK_UP);
  }
  return request.send().ignoreResult();
}

// A successor's configuration may be older than its user's last wish.
void LocalVm::tellNetAgain(uint16_t device) {
  KJ_IF_MAYBE (succession, company.devices[device].succession) {
    bool down = (*succession)->configuration<NetConfig>().getLinkDown();
    tellNet(device, down ? NetEvent::LINK_DOWN : NetEvent::LINK_UP).detach([](kj::Exception&&) {
    });  // it has died again
  }
}

kj::Promise<kj::String> LocalVm::net(kj::StringPtr name, NetWish::Reader wish) {
  uint16_t index = netNamed(name);
  auto& device = company.devices[index];
  auto deviceName = kj::heapString(device.actor->name());
  if (!running) notTold(deviceName, "the VM is not running yet, or not any more");
  auto what = NetEvent::ANNOUNCE;
  if (wish.isLinkUp()) what = wish.getLinkUp() ? NetEvent::LINK_UP : NetEvent::LINK_DOWN;
  bool isReplaced = false;
  KJ_IF_MAYBE (succession, device.succession) {
    isReplaced = true;
    if (what != NetEvent::ANNOUNCE) {
      (*succession)->configuration<NetConfig>().setLinkDown(what == NetEvent::LINK_DOWN);
    }
  }
  auto silence = io.provider->getTimer().afterDelay(PATIENCE).then(
      [name = kj::heapString(deviceName)]() { notTold(name, "it did not answer in time"); });
  return tellNet(index, what)
      .catch_([isReplaced](kj::Exception&& failure) {
        // One that is being replaced is told of its link then, and announces itself anyway.
        bool isAway = failure.getType() == kj::Exception::Type::DISCONNECTED;
        if (!isAway || !isReplaced) kj::throwFatalException(kj::mv(failure));
      })
      .exclusiveJoin(kj::mv(silence))
      .then([deviceName = kj::mv(deviceName)]() mutable { return kj::mv(deviceName); });
}

}  // namespace troupe
