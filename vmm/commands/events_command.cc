// `troupe events VM`: what has happened to a running VM, and what happens to it.

#include <kj/async-io.h>
#include <kj/debug.h>

#include "devices/virtio/spin.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/commands/lasting_client.h"
#include "vmm/commands/observe_commands.h"
#include "vmm/observe/event_text.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t SECOND_NS = 1000000000;

struct Words {
  kj::StringPtr vm;
  bool follow = false;
  uint64_t after = 0;   // the number of the last event that is not wanted
  uint64_t fromNs = 0;  // nor those before this
};

// "17": what follows event 17. "90s", "5m", "2h": what happened since so long ago.
void parseSince(kj::StringPtr text, Words& words) {
  constexpr uint64_t MOST_SECONDS = uint64_t(10) * 365 * 24 * 3600;
  KJ_IF_MAYBE (number, parseNumber(text, UINT64_MAX / 2)) {
    words.after = *number;
    return;
  }
  uint64_t unit = text.endsWith("s") ? 1 : text.endsWith("m") ? 60 : text.endsWith("h") ? 3600 : 0;
  if (unit > 0) {
    KJ_IF_MAYBE (count,
                 parseNumber(kj::heapString(text.slice(0, text.size() - 1)), MOST_SECONDS / unit)) {
      uint64_t ago = *count * unit * SECOND_NS;
      uint64_t now = virtio::monotonicNs();
      words.fromNs = now > ago ? now - ago : 0;
      return;
    }
  }
  UserError(codes::EVENTS_SINCE, kj::str("--since ", quote(text),
                                         " is neither the number of an event, such as 17, nor "
                                         "how long ago: 90s, 5m, 2h"))
      .raise();
}

kj::Maybe<Words> parse(kj::ArrayPtr<const kj::StringPtr> given) {
  Words words;
  CommandLine line("events",
                   "Prints what has happened to a running VM, one line of JSON for each event.",
                   "VM", "troupe events web --follow --since 5m", "changes nothing");
  line.add({"follow", "", "go on with what happens, until the VM ends", false,
            [&](kj::StringPtr) { words.follow = true; }});
  line.add({"since", "N|TIME",
            "only what follows event number N, or happened since so long ago: 90s, 5m, 2h", false,
            [&](kj::StringPtr text) { parseSince(text, words); }});
  line.epilog(
      "A VM keeps its last 512 events. Who comes too late for some is told how many: "
      "{\"event\":\"lost\",\"count\":N}.");
  KJ_IF_MAYBE (found, parseVmWords(line, given)) {
    words.vm = found->name;
    return kj::mv(words);
  }
  return nullptr;
}

// Reads from one connection until there is no more to be had: then it returns.
class Reading {
 public:
  Reading(kj::AsyncIoContext& io, Words& words) : io(io), words(words) {}

  void from(ControlClient& client) {
    auto request = client.vm().eventsRequest();
    request.setAfter(words.after);
    auto reader = client.await(request.send().then(
        [](auto&& response) { return EventReader::Client(response.getReader()); },
        [](kj::Exception&& failure) -> EventReader::Client {
          if (failure.getType() == kj::Exception::Type::DISCONNECTED) {
            kj::throwFatalException(kj::mv(failure));
          }
          kj::throwFatalException(
              wrapActorError(failure, codes::INTERNAL, "the events cannot be read").toException());
        }));
    while (!isOver)
      take(client, reader);
  }

 private:
  void take(ControlClient& client, EventReader::Client& reader) {
    auto request = reader.nextRequest();
    request.setWait(words.follow);
    auto answer = request.send();
    auto response = words.follow ? answer.wait(io.waitScope) : client.await(kj::mv(answer));
    if (response.getLost() > 0 && words.after + response.getLost() > words.after) {
      printOut(kj::str(lostLine(response.getLost()), "\n"));
    }
    for (auto event : response.getEvents()) {
      words.after = event.getSequence();
      if (event.getMonotonicNs() < words.fromNs) continue;
      printOut(kj::str(eventLine(event), "\n"));
    }
    isOver = response.getIsEnd() || (!words.follow && response.getEvents().size() == 0);
  }

  kj::AsyncIoContext& io;
  Words& words;
  bool isOver = false;
};

}  // namespace

ExitCode eventsCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  KJ_IF_MAYBE (words, parse(given)) {
    auto io = kj::setupAsyncIo();
    LastingClient client(io, words->vm);
    Reading reading(io, *words);
    bool isWhole = client.tryWith([&](ControlClient& connection) { reading.from(connection); });
    if (!isWhole) {
      UserError(codes::VM_GONE, kj::str("VM ", quote(words->vm),
                                        " is gone and did not tell of its end: its `troupe` was "
                                        "killed, or nobody read its events in time"))
          .raise();
    }
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
