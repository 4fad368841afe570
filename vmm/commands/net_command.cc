#include <kj/async-io.h>
#include <kj/debug.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/control/control_client.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

struct NetWords {
  kj::StringPtr vm;
  kj::StringPtr device;  // empty: the only one
  enum class Wish { LINK_UP, LINK_DOWN, ANNOUNCE } wish = Wish::ANNOUNCE;
  bool json = false;
};

[[noreturn]] void refuse(kj::StringPtr why) {
  UserError(
      codes::NET_WISH,
      kj::str(why, "; expected what a network device is to do: link up, link down or announce"))
      .advice("try", "troupe net VM link down")
      .raise();
}

NetWords parseWish(kj::ArrayPtr<const kj::StringPtr> words) {
  if (words.size() == 0) {
    UserError(codes::ARGUMENTS, kj::str("which VM? give its name"))
        .advice("see", "troupe list")
        .raise();
  }
  NetWords result;
  result.vm = words[0];
  words = words.slice(1, words.size());
  if (words.size() > 0 && words[0] != "link" && words[0] != "announce") {
    result.device = words[0];
    words = words.slice(1, words.size());
  }
  if (words.size() == 0) {
    constexpr kj::StringPtr WISHES[] = {"link"_kj, "announce"_kj};
    refuse(result.device.size() == 0
               ? kj::str("it is not said what to do")
               : kj::str("it is not said what to do with ", quote(result.device),
                         didYouMean(result.device, WISHES)));
  }
  if (words[0] == "announce" && words.size() == 1) return result;
  if (words[0] == "link" && words.size() == 2 && (words[1] == "up" || words[1] == "down")) {
    result.wish = words[1] == "up" ? NetWords::Wish::LINK_UP : NetWords::Wish::LINK_DOWN;
    return result;
  }
  refuse(kj::str(quote(kj::strArray(words, " ")), " is nothing that can be done"));
}

kj::String toldJson(const NetWords& words, kj::StringPtr device) {
  JsonLine line;
  line.text("name", words.vm).text("device", escape(device, 32));
  if (words.wish == NetWords::Wish::ANNOUNCE) {
    line.truth("announced", true);
  } else {
    line.text("link", words.wish == NetWords::Wish::LINK_UP ? "up" : "down");
  }
  return kj::str(line.render(), "\n");
}

kj::String told(const NetWords& words, kj::StringPtr device) {
  if (words.json) return toldJson(words, device);
  auto name = kj::str(words.vm, ": ", escape(device, 32));
  if (words.wish == NetWords::Wish::ANNOUNCE) {
    return kj::str(name, " is asked to announce itself\n");
  }
  return kj::str(name, "'s link is ", words.wish == NetWords::Wish::LINK_UP ? "up" : "down", "\n");
}

}  // namespace

ExitCode netCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  CommandLine line(
      "net",
      "Plugs the cable of a running VM's network device in or out, or asks its guest to "
      "tell its neighbours where it is. DEVICE is net0, net1, …, and may be left out "
      "where there is one.",
      "VM [DEVICE] link up|link down|announce", "troupe net web net0 link down");
  KJ_IF_MAYBE (found, line.parse(given, 4)) {
    auto words = parseWish(*found);
    words.json = line.json();
    auto io = kj::setupAsyncIo();
    ControlClient client(io, words.vm);
    auto request = client.vm().netRequest();
    request.setDevice(words.device);
    auto wish = request.initWish();
    if (words.wish == NetWords::Wish::ANNOUNCE) {
      wish.setAnnounce();
    } else {
      wish.setLinkUp(words.wish == NetWords::Wish::LINK_UP);
    }
    auto answer = client.await(request.send().then(
        [&](auto&& response) { return told(words, response.getDevice()); },
        [&](kj::Exception&& failure) -> kj::String {
          kj::throwFatalException(
              wrapActorError(failure, codes::INTERNAL,
                             kj::str("a network device of VM ", quote(words.vm), " was not told"))
                  .toException());
        }));
    printOut(answer);
  } else {
    printOut(line.help());
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
