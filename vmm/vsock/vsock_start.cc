#include "vmm/vsock/vsock_start.h"

#include "devices/vsock/vsock.capnp.h"

namespace troupe {

using sandbox::HandedFd;

capnp::AnyPointer::Reader describeVsock(const VsockPlan& plan, const VsockFiles& files,
                                        capnp::MallocMessageBuilder& message) {
  auto config = message.initRoot<VsockConfig>();
  config.setGuestCid(files.cid);
  auto ports = config.initForwards(uint(plan.forwards.size()));
  for (uint i = 0; i < plan.forwards.size(); i++)
    ports.set(i, plan.forwards[i].port);
  return message.getRoot<capnp::AnyPointer>().asReader();
}

void handVsock(const VsockFiles& files, kj::Vector<HandedFd>& fds) {
  KJ_IF_MAYBE (socket, files.socket) {
    fds.add(HandedFd{"listen", 0, (*socket)->fd()});
  }
  for (uint i = 0; i < files.forwards.size(); i++)
    fds.add(HandedFd{"forward", i, files.forwards[i]->fd()});
}

}  // namespace troupe
