// A VM and its balloon: how the process that plays it is asked, and what becomes of its answer.

#include <kj/debug.h>

#include "vmm/vm/balloon_report.h"
#include "vmm/vm/local_vm.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// The balloon's process waits half a second for the guest's statistics. More than this it does not
// take, whatever the guest does.
constexpr kj::Duration PATIENCE = 2 * kj::SECONDS;

using Status = kj::Own<capnp::MallocMessageBuilder>;

}  // namespace

kj::Promise<Status> LocalVm::balloon(BalloonRequest::Reader asked) {
  if (company.balloon == nullptr) {
    UserError(codes::NO_BALLOON, kj::str("VM ", quote(place->name()), " has no balloon"))
        .advice("try", "troupe run --balloon ...")
        .raise();
  }
  uint16_t device = KJ_ASSERT_NONNULL(company.balloon);
  auto client = KJ_REQUIRE_NONNULL(broker, "the VM has ended");
  auto look = [this, client, device](bool mustHint) mutable {
    auto request = client.deviceReportRequest();
    request.setDevice(device);
    return request.send().then([this, mustHint](auto&& response) {
      auto report = response.getReport();
      KJ_REQUIRE(report.isBalloon(), "the balloon says nothing of itself");
      if (mustHint && !canHintFreePages(report.getBalloon())) {
        UserError(codes::NO_FREE_PAGE_HINTS,
                  kj::str("VM ", quote(place->name()), " cannot be asked which pages are free: ",
                          report.getBalloon().getFeatures() == 0
                              ? "its guest has no driver for the balloon"
                              : "its guest's driver does not tell"))
            .raise();
      }
      auto message = kj::heap<capnp::MallocMessageBuilder>();
      writeBalloonStatus(report.getBalloon(), plan.memoryBytes,
                         message->template initRoot<BalloonStatus>());
      return message;
    });
  };
  auto tell = [client, device](kj::Maybe<uint32_t> pages) mutable {
    auto request = client.hostEventRequest();
    request.setDevice(device);
    auto event = request.initEvent();
    KJ_IF_MAYBE (target, pages) {
      event.setBalloonTarget(*target);
    } else {
      event.setBalloonHint();
    }
    return request.send().ignoreResult();
  };
  auto done = [&]() -> kj::Promise<Status> {
    switch (asked.which()) {
      case BalloonRequest::GUEST_BYTES:
        return tell(balloonPages(asked.getGuestBytes(), plan.memoryBytes))
            .then([this, guestBytes = asked.getGuestBytes(), look = kj::mv(look)]() mutable {
              notebook.balloonChanged(guestBytes);
              return look(false);
            });
      case BalloonRequest::RECLAIM:
        return look(true).then([tell = kj::mv(tell)](Status status) mutable {
          return tell(nullptr).then([status = kj::mv(status)]() mutable { return kj::mv(status); });
        });
      default:
        return look(false);
    }
  }();
  auto silence = io.provider->getTimer().afterDelay(PATIENCE).then([this]() -> Status {
    UserError(codes::BALLOON_SILENT,
              kj::str("the balloon of VM ", quote(place->name()), " did not answer within ",
                      PATIENCE / kj::SECONDS, " s"))
        .raise();
  });
  return done.exclusiveJoin(kj::mv(silence));
}

}  // namespace troupe
