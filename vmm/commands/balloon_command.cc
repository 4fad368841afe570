#include <capnp/message.h>
#include <kj/async-io.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/control/control_client.h"
#include "vmm/words/json_report.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/table.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct BalloonWords {
  kj::StringPtr vm;
  kj::Maybe<uint64_t> guestBytes;
  bool reclaim = false;
  bool json = false;
};

uint64_t parseGuestSize(kj::StringPtr text) {
  KJ_IF_MAYBE (bytes, parseSize(text)) {
    return *bytes;
  }
  UserError(codes::BALLOON_SIZE, kj::str(quote(text),
                                         " is not a size; expected what is left to the guest, a "
                                         "number with K, M, G or T: 512M"))
      .raise();
}

void ask(const BalloonWords& words, BalloonRequest::Builder request) {
  KJ_IF_MAYBE (bytes, words.guestBytes) {
    request.setGuestBytes(*bytes);
  } else if (words.reclaim) {
    request.setReclaim();
  }
}

// A copy with every text made safe to show.
void copyStatus(BalloonStatus::Reader from, BalloonStatus::Builder to) {
  to.setMemoryBytes(from.getMemoryBytes());
  to.setTargetBytes(kj::min(from.getTargetBytes(), from.getMemoryBytes()));
  to.setActualBytes(kj::min(from.getActualBytes(), from.getMemoryBytes()));
  to.setHasDriver(from.getHasDriver());
  to.setGivenBackBytes(from.getGivenBackBytes());
  to.setFreePageBytes(from.getFreePageBytes());
  to.setHasStatistics(from.getHasStatistics());
  to.setOffersStatistics(from.getOffersStatistics());
  to.setStatisticsAgeMs(from.getStatisticsAgeMs());
  constexpr kj::uint MOST = 64;
  auto list = to.initStatistics(kj::min(from.getStatistics().size(), MOST));
  for (kj::uint i = 0; i < list.size(); i++) {
    auto one = from.getStatistics()[i];
    list[i].setName(escape(one.getName(), 40));
    list[i].setValue(one.getValue());
    list[i].setIsBytes(one.getIsBytes());
    list[i].setTag(one.getTag());
  }
}

kj::String statisticsTable(BalloonStatus::Reader status) {
  if (!status.getHasStatistics()) return kj::str();
  constexpr kj::StringPtr HEADINGS[] = {"STATISTIC"_kj, "VALUE"_kj};
  Table table(HEADINGS);
  for (auto one : status.getStatistics()) {
    table.add(kj::arr(kj::str(one.getName()),
                      one.getIsBytes() ? sizeText(one.getValue()) : kj::str(one.getValue())));
  }
  return kj::str(table.render(), "as the guest said ", status.getStatisticsAgeMs() / 1000,
                 " s ago\n");
}

kj::String describe(const BalloonWords& words, BalloonStatus::Reader status) {
  uint64_t memory = status.getMemoryBytes();
  kj::Vector<kj::String> lines;
  lines.add(kj::str(words.vm, ": the guest is to be left ",
                    sizeText(memory - status.getTargetBytes()), " of ", sizeText(memory),
                    ", and is left ", sizeText(memory - status.getActualBytes())));
  lines.add(kj::str("the balloon is to hold ", sizeText(status.getTargetBytes()), ", and holds ",
                    sizeText(status.getActualBytes()),
                    status.getHasDriver() ? "" : "; the guest has no driver for it"));
  lines.add(kj::str("the host got back ", sizeText(status.getGivenBackBytes()), ", ",
                    sizeText(status.getFreePageBytes()), " of it reported as free"));
  if (words.reclaim) lines.add(kj::str("the guest is asked which pages are free"));
  return kj::str(kj::strArray(lines, "\n"), "\n", statisticsTable(status));
}

kj::Maybe<BalloonWords> parse(kj::ArrayPtr<const kj::StringPtr> given) {
  BalloonWords words;
  CommandLine line(
      "balloon",
      "Shows the balloon of a running VM. With SIZE the guest is left that much of its "
      "RAM, a multiple of 4K, and the balloon is to hold the rest; how fast it fills is "
      "the guest's affair and is not waited for.",
      "VM [SIZE]", "troupe balloon web 512M");
  line.add({"reclaim", "", "ask the guest once which pages are free, and take these back", false,
            [&](kj::StringPtr) { words.reclaim = true; }});
  KJ_IF_MAYBE (found, line.parse(given, 2)) {
    if (found->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which VM? give its name"))
          .advice("see", "troupe list")
          .raise();
    }
    words.vm = (*found)[0];
    words.json = line.json();
    if (found->size() == 2) words.guestBytes = parseGuestSize((*found)[1]);
    if (words.reclaim && words.guestBytes != nullptr) {
      UserError(codes::ARGUMENTS,
                kj::str("SIZE and --reclaim exclude each other; ask for one after the other"))
          .raise();
    }
    return kj::mv(words);
  }
  printOut(line.help());
  return nullptr;
}

// Asks a VM's balloon and copies what it says. `what`: for an error.
void askBalloon(const BalloonWords& words, kj::StringPtr what, BalloonStatus::Builder status) {
  auto io = kj::setupAsyncIo();
  ControlClient client(io, words.vm);
  auto request = client.vm().balloonRequest();
  ask(words, request.initRequest());
  client.await(request.send().then(
      [status](auto&& response) mutable { copyStatus(response.getStatus(), status); },
      [&](kj::Exception&& failure) {
        kj::throwFatalException(wrapActorError(failure, codes::INTERNAL, what).toException());
      }));
}

kj::String toJson(BalloonStatus::Reader status) {
  return kj::str(reportJson(status), "\n");
}

}  // namespace

ExitCode balloonStatsCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  CommandLine line("balloon-stats", "Shows what the guest of a running VM says of its memory.",
                   "VM", "troupe balloon-stats web");
  KJ_IF_MAYBE (asked, parseVmWords(line, given)) {
    BalloonWords words;
    words.vm = asked->name;
    capnp::MallocMessageBuilder message;
    auto status = message.initRoot<BalloonStatus>();
    askBalloon(words, kj::str("the balloon of VM ", quote(words.vm), " was not asked"), status);
    if (asked->json) {
      printOut(toJson(status));
    } else if (status.getHasStatistics()) {
      printOut(statisticsTable(status));
    } else {
      printOut(kj::str(words.vm, status.getOffersStatistics()
                                     ? ": the guest has not said anything yet\n"
                                     : ": the guest says nothing of its memory\n"));
    }
  }
  return ExitCode::POWERED_OFF;
}

ExitCode balloonCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  KJ_IF_MAYBE (words, parse(given)) {
    capnp::MallocMessageBuilder message;
    auto status = message.initRoot<BalloonStatus>();
    askBalloon(*words,
               kj::str("the balloon of VM ", quote(words->vm), " was not ",
                       words->guestBytes == nullptr && !words->reclaim ? "asked" : "set"),
               status);
    if (words->json) {
      printOut(toJson(status));
    } else {
      printOut(describe(*words, status));
    }
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
