#include "vmm/record/replay.h"

#include <kj/debug.h>

#include <algorithm>

#include "vmm/record/event_words.h"

namespace troupe {

namespace {

class Course {
 public:
  Course(const EventList& events, const FlightIndex& index, ReplayedDevice& device)
      : events(events), index(index), device(&device) {}

  ReplayResult run() {
    for (size_t i = 0; i < index.end() && !isOver(); i++) {
      events.with(i, [&](FlightEvent::Reader event) { meet(i, event); });
      if (!isOver()) result.events = i + 1;
    }
    if (!isOver() && index.end() < events.size())
      result.unfollowed = kj::str("another process took the device's place");
    if (result.difference == nullptr) lookForMore();
    return kj::mv(result);
  }

 private:
  bool isOver() const { return result.difference != nullptr || result.unfollowed != nullptr; }

  void meet(size_t at, FlightEvent::Reader event) {
    switch (event.which()) {
      case FlightEvent::BEGAN:
        queues = event.getBegan().getQueueSizes().size();
        return compare(at, event, [this]() -> kj::Maybe<size_t> {
          if (!device->index().hasBegun()) return nullptr;
          return size_t(0);
        });
      case FlightEvent::ATTACHED:
        return act(at, event, [&]() { device->attach(event.getAttached(), queues); });
      case FlightEvent::ACTIVATED:
        if (event.getActivated().getResumed()) {
          result.unfollowed = kj::str("the device goes on with what another process had begun");
          return;
        }
        return act(at, event, [&]() { device->activate(event); });
      case FlightEvent::RESET:
        return act(at, event, [&]() { device->reset(); });
      case FlightEvent::CONFIG_WRITTEN: {
        auto write = event.getConfigWritten();
        return act(at, event, [&]() { device->writeConfig(write.getOffset(), write.getData()); });
      }
      case FlightEvent::HOST_EVENT:
        return act(at, event, [&]() { device->hostEvent(event.getHostEvent()); });
      case FlightEvent::TAKEN: {
        auto chain = event.getTaken();
        if (isTooLarge(chain)) {
          result.unfollowed = kj::str("chain ", chain.getNumber(), " of queue ", chain.getQueue(),
                                      " moves more than a recording keeps of one");
          return;
        }
        if (at >= made) act(at, event, [&]() { device->make(chain); });
        if (isOver()) return;
        return compare(at, event, [this, key = ChainKey{chain.getQueue(), chain.getNumber()}]() {
          return nth(device->index().chain(key).taken, 0);
        });
      }
      case FlightEvent::CALLED: {
        ChainKey key{event.getCalled().getQueue(), event.getCalled().getNumber()};
        if (key.number == 0) prepare(at, event);
        if (isOver()) return;
        size_t ordinal = ordinalOf(at, index.chain(key).called);
        return compare(at, event, [this, key, ordinal]() {
          return nth(device->index().chain(key).called, ordinal);
        });
      }
      case FlightEvent::ANSWERED: {
        ChainKey key{event.getAnswered().getQueue(), event.getAnswered().getNumber()};
        compare(at, event, [this, key]() { return nth(device->index().chain(key).answered, 0); });
        if (!isOver()) result.chains++;
        return;
      }
      case FlightEvent::CONFIG_CHANGED:
        return compare(at, event, [this, ordinal = ordinalOf(at, index.configChanges())]() {
          return nth(device->index().configChanges(), ordinal);
        });
      case FlightEvent::NEEDS_RESET:
        return compare(at, event, [this, ordinal = ordinalOf(at, index.resetsAsked())]() {
          return nth(device->index().resetsAsked(), ordinal);
        });
      case FlightEvent::REPORT_ASKED:
        act(at, event, [&]() { device->askForReport(); });
        if (isOver()) return;
        return compare(at, event, [this, ordinal = ordinalOf(at, index.reportsAsked())]() {
          return nth(device->index().reportsAsked(), ordinal);
        });
      case FlightEvent::ENDED:
        return;
    }
    KJ_FAIL_REQUIRE("an event of no known kind");
  }

  // What the host has to do before a device meets it.
  void prepare(size_t at, FlightEvent::Reader event) {
    auto call = event.getCalled();
    if (call.getKind() == HostCall::Kind::GIVE_BACK) {
      if (!device->giveBack(call.getQueue(), uint64_t(call.getResult()))) differs(at, event);
      return;
    }
    if (!comesOfItself(call.getKind())) return;
    if (call.getKind() == HostCall::Kind::TURN) act(at, event, [&]() { makeTurn(at); });
    device->reach(at + 1);
  }

  static bool comesOfItself(HostCall::Kind kind) {
    switch (kind) {
      case HostCall::Kind::TURN:
      case HostCall::Kind::INPUT:
      case HostCall::Kind::NEWS:
      case HostCall::Kind::TICK:
      case HostCall::Kind::CONNECTED:
      case HostCall::Kind::GONE:
      case HostCall::Kind::GAVE_UP:
        return true;
      default:
        return false;
    }
  }

  // A turn finds all chains that it took then, and takes as many again.
  void makeTurn(size_t at) {
    bool goesOn = true;
    for (size_t i = at + 1; i < index.end() && goesOn; i++) {
      events.with(i, [&](FlightEvent::Reader event) {
        goesOn = isOfTurn(event);
        if (event.isTaken() && i >= made && !isTooLarge(event.getTaken()))
          device->make(event.getTaken());
      });
      made = kj::max(made, i + 1);
    }
  }

  // What is in the midst of one: all but what comes to the device of itself.
  static bool isOfTurn(FlightEvent::Reader event) {
    if (event.isCalled()) {
      auto call = event.getCalled();
      return call.getNumber() != 0 || !comesOfItself(call.getKind());
    }
    return event.isTaken() || event.isAnswered() || event.isConfigChanged() || event.isNeedsReset();
  }

  bool isTooLarge(TakenChain::Reader chain) const {
    auto& answers = index.chain({chain.getQueue(), chain.getNumber()}).answered;
    bool isCut = !answers.empty() && events.with(answers[0], [](FlightEvent::Reader event) {
      return event.getAnswered().getBytes().size() < event.getAnswered().getWritten();
    });
    return isCut || (!chain.getRefused() && chain.getReadable().size() < chain.getReadableBytes());
  }

  static size_t ordinalOf(size_t at, const std::vector<size_t>& list) {
    return std::lower_bound(list.begin(), list.end(), at) - list.begin();
  }

  static kj::Maybe<size_t> nth(const std::vector<size_t>& list, size_t ordinal) {
    if (ordinal >= list.size()) return nullptr;
    return list[ordinal];
  }

  // What the device is told. It may refuse only what it cannot have seen.
  template <typename Tell>
  void act(size_t at, FlightEvent::Reader event, Tell&& tell) {
    KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() { tell(); })) {
      if (failure->getType() != kj::Exception::Type::DISCONNECTED &&
          failure->getType() != kj::Exception::Type::OVERLOADED) {
        kj::throwFatalException(kj::mv(*failure));
      }
      device->waitUntil([]() { return false; });
      differs(at, event);
    }
  }

  // What the device is to do: waits until it has done it.
  template <typename Find>
  void compare(size_t at, FlightEvent::Reader event, Find&& find) {
    kj::Maybe<size_t> found;
    if (!device->waitUntil([&]() { return (found = find()) != nullptr; }))
      return differs(at, event);
    device->events().with(KJ_ASSERT_NONNULL(found), [&](FlightEvent::Reader now) {
      KJ_IF_MAYBE (how, differenceOf(event, now)) {
        differs(at, event, kj::mv(*how));
      }
    });
  }

  void differs(size_t at, FlightEvent::Reader event, kj::Maybe<kj::String> how = nullptr) {
    result.difference = ReplayResult::Difference{at + 1, eventWords(event), kj::mv(how)};
  }

  // Whether it did more than it had done: for chains that were answered then, and of what has no
  // chain. Once it is reset it does no more.
  void lookForMore() {
    if (device->index().hasBegun()) kj::runCatchingExceptions([&]() { device->reset(); });
    device->waitUntil([]() { return true; });
    for (auto& [key, chain] : index.chains()) {
      // What the host does of itself, and what belongs to no chain, may go on after a recording.
      if (chain.answered.empty() || key.number == 0) continue;
      auto& now = device->index().chain(key);
      more(chain.answered, now.answered);
      more(chain.called, now.called);
    }
    more(index.resetsAsked(), device->index().resetsAsked());
    more(index.configChanges(), device->index().configChanges());
  }

  void more(const std::vector<size_t>& then, const std::vector<size_t>& now) {
    if (isOver() || now.size() <= then.size()) return;
    device->events().with(now[then.size()], [&](FlightEvent::Reader event) {
      size_t at = then.empty() ? index.end() : then.back() + 1;
      result.difference =
          ReplayResult::Difference{at, kj::str("nothing of the kind follows"), eventWords(event)};
    });
  }

  const EventList& events;
  const FlightIndex& index;
  ReplayedDevice* device;
  size_t queues = 0;
  size_t made = 0;  // the chains of events before this one are in their rings
  ReplayResult result;
};

}  // namespace

ReplayResult replay(const EventList& events, const FlightIndex& index, ReplayedDevice& device) {
  return Course(events, index, device).run();
}

}  // namespace troupe
