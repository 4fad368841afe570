#include "vmm/serve/balloon_actor.h"

#include <capnp/message.h>
#include <kj/debug.h>

#include "vmm/serve/guest_actor.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr uint64_t PAGE_BYTES = 4096;  // whatever the guest's pages are

using Message = kj::Own<capnp::MallocMessageBuilder>;

kj::Promise<Message> look(Instance& guest) {
  capnp::MallocMessageBuilder question;
  auto request = question.initRoot<BalloonRequest>();
  request.setLook();
  guest.requireRoom();
  return guest.bounded(requireVm(guest).balloon(request));
}

}  // namespace

BalloonActor::BalloonActor(kj::Own<Instance> guest, kj::Own<Session> session)
    : guest(kj::mv(guest)), session(kj::mv(session)) {}

kj::Promise<void> BalloonActor::getNumPages(GetNumPagesContext context) {
  return look(*guest).then([context](Message message) mutable {
    auto status = message->getRoot<BalloonStatus>().asReader();
    context.getResults().setCurrentNumPages(uint32_t(status.getActualBytes() / PAGE_BYTES));
  });
}

kj::Promise<void> BalloonActor::requestNumPages(RequestNumPagesContext context) {
  uint64_t pages = context.getParams().getRequestedNumPages();
  return look(*guest).then([this, pages](Message message) {
    uint64_t most = message->getRoot<BalloonStatus>().asReader().getMemoryBytes() / PAGE_BYTES;
    if (pages > most) {
      UserError(codes::REALM_PAGES, kj::str("the balloon cannot hold ", pages,
                                            " pages; the guest has ", most, " of 4 KiB"))
          .raise();
    }
    capnp::MallocMessageBuilder question;
    auto request = question.initRoot<BalloonRequest>();
    request.setGuestBytes((most - pages) * PAGE_BYTES);
    guest->requireRoom();
    return guest->bounded(requireVm(*guest).balloon(request)).ignoreResult();
  });
}

kj::Promise<void> BalloonActor::getMemStats(GetMemStatsContext context) {
  if (guest->waitingForStatistics >= MOST_WAITING) {
    context.getResults().setStatus(BalloonController::MemStatStatus::SHOULD_WAIT);
    return kj::READY_NOW;
  }
  ++guest->waitingForStatistics;
  auto over =
      kj::defer([instance = kj::addRef(*guest)]() mutable { --instance->waitingForStatistics; });
  return look(*guest).attach(kj::mv(over)).then([context](Message message) mutable {
    answerStatistics(message->getRoot<BalloonStatus>().asReader(), context.getResults());
  });
}

void answerStatistics(BalloonStatus::Reader status,
                      BalloonController::GetMemStatsResults::Builder results) {
  using Status = BalloonController::MemStatStatus;
  if (!status.getOffersStatistics()) return results.setStatus(Status::NOT_SUPPORTED);
  if (!status.getHasStatistics()) return results.setStatus(Status::SHOULD_WAIT);
  auto from = status.getStatistics();
  if (from.size() == 0) return results.setStatus(Status::IO);  // they made no sense
  auto list = results.initMemStats(from.size());
  for (kj::uint i = 0; i < from.size(); i++) {
    list[i].setTag(from[i].getTag());
    list[i].setVal(from[i].getValue());
  }
}

}  // namespace troupe::realm
