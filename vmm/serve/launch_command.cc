#include <fcntl.h>
#include <kj/async-io.h>
#include <limits.h>
#include <stdlib.h>

#include "vmm/actors/child_log.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/signals.h"
#include "vmm/realm/guest_words.h"
#include "vmm/serve/daemon.h"
#include "vmm/serve/serve_command.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/json_line.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

using realm::Daemon;

struct LaunchWords {
  kj::String bundle;
  kj::StringPtr socket;
  kj::StringPtr realm;
  kj::Maybe<kj::StringPtr> label;
  kj::Maybe<kj::StringPtr> cmdline;
  kj::Maybe<uint8_t> cpus;
  kj::Vector<realm::MemoryWords> memory;
  kj::StringPtr net;
  bool json = false;
};

kj::String absolute(kj::StringPtr path) {
  if (path.startsWith("file://")) return kj::str(path);
  char resolved[PATH_MAX];
  if (realpath(path.cStr(), resolved) != nullptr) return kj::str(resolved);
  UserError(codes::FILE_UNREADABLE,
            kj::str("the bundle ", quote(path), " cannot be opened: ", errnoText(errno)))
      .raise();
}

// A size as everywhere, or a region as guest.cfg has it.
realm::MemoryWords parseMemory(kj::StringPtr text) {
  KJ_IF_MAYBE (bytes, parseSize(text)) {
    return {false, 0, *bytes, realm::MemoryPolicy::GUEST_CACHED};
  }
  if (text.findFirst(',') != nullptr) {
    KJ_IF_MAYBE (words, realm::parseMemory(text)) return *words;
  }
  UserError(codes::MEMORY_SIZE,
            kj::str("--memory ", quote(text),
                    " is neither a size such as 512M nor a region such as 100000000,16M,cached"))
      .raise();
}

void describe(const realm::MemoryWords& words, realm::MemorySpec::Builder spec) {
  spec.setBase(words.base);
  spec.setSize(words.size);
  spec.setPolicy(words.policy);
}

// None when --help was asked for, and printed.
kj::Maybe<LaunchWords> parse(kj::ArrayPtr<const kj::StringPtr> words) {
  LaunchWords said;
  CommandLine line("launch",
                   "Launches a guest of a bundle through `troupe serve`. In a realm of its own it "
                   "lives no longer than this command; with --realm the command returns when the "
                   "guest runs.",
                   "BUNDLE", "troupe launch guests/web --realm lab --label web");
  line.add({"realm", "R",
            "the label or number of the realm it is to be in; one of its own unless given", false,
            [&](kj::StringPtr text) { said.realm = text; }});
  line.add({"label", "L", "shown in lists; the bundle's path unless given", false,
            [&](kj::StringPtr text) { said.label = text; }, nullptr, /*mayBeEmpty=*/true});
  line.add({"cmdline", "TEXT", "follows the kernel's command line that the bundle has", false,
            [&](kj::StringPtr text) { said.cmdline = text; }, nullptr, /*mayBeEmpty=*/true});
  line.add({"cpus", "N", "virtual CPUs, 1 to 255, in place of what the bundle says", false,
            [&](kj::StringPtr text) {
              auto count = parseNumber(text, UINT8_MAX).orDefault(0);
              if (count > 0) {
                said.cpus = uint8_t(count);
              } else {
                UserError(codes::CPU_COUNT, kj::str("--cpus ", quote(text),
                                                    " is not a number of CPUs; expected 1 to 255"))
                    .raise();
              }
            }});
  line.add({"memory", "SIZE|BASE,SIZE[,cached|device]",
            "a region of memory beside those of the bundle", true,
            [&](kj::StringPtr text) { said.memory.add(parseMemory(text)); }});
  line.add(
      {"net", "user|bridge=NAME|tap-prefix=P|none",
       "what is behind its network, in a realm of its own; as `troupe serve` says unless given",
       false, [&](kj::StringPtr text) { said.net = text; }});
  line.add({"socket", "PATH", "where `troupe serve` listens, unless it is the usual place", false,
            [&](kj::StringPtr path) { said.socket = path; }});
  line.exits(
      "0 done; as `troupe run` when the guest of a realm of its own ends; 1 internal error, 2 "
      "wrong "
      "words or files, 3 the host lacks something");
  KJ_IF_MAYBE (arguments, line.parse(words, 1)) {
    if (arguments->size() == 0) {
      UserError(codes::ARGUMENTS, kj::str("which bundle? give its folder"))
          .advice("make one", "troupe guest create DIR")
          .raise();
    }
    if (said.net.size() > 0 && said.realm.size() > 0) {
      UserError(codes::GIVEN_TWICE,
                kj::str("--net is for a realm of its own; that of --realm has its network"))
          .raise();
    }
    said.bundle = absolute((*arguments)[0]);
    said.json = line.json();
    return kj::mv(said);
  }
  printOut(line.help());
  return nullptr;
}

void fill(const LaunchWords& words, realm::LaunchInfo::Builder info) {
  info.setUrl(words.bundle);
  KJ_IF_MAYBE (label, words.label) {
    info.setLabel(*label);
  }
  auto config = info.initGuestConfig();
  KJ_IF_MAYBE (text, words.cmdline) {
    config.setCmdline(*text);
  }
  KJ_IF_MAYBE (count, words.cpus) {
    config.initCpus().setValue(*count);
  }
  if (words.memory.size() == 0) return;
  auto regions = config.initMemory(words.memory.size());
  for (kj::uint i = 0; i < words.memory.size(); i++)
    describe(words.memory[i], regions[i]);
}

ExitCode launch(const LaunchWords& words) {
  captureSignals();
  auto io = kj::setupAsyncIo();
  Daemon daemon(io, words.socket);
  kj::Maybe<realm::Realm::Client> chosen;
  uint32_t realmId = 0;
  bool isOwn = words.realm.size() == 0;
  if (isOwn) {
    auto request = daemon.manager().createRequest();
    request.setLabel("");
    request.setNet(words.net);
    auto answer = request.send();
    chosen = answer.getRealm();
    realmId = daemon.await(answer.then([](auto&& made) { return made.getId(); }));
  } else {
    chosen = daemon.find(words.realm, realmId);
  }
  auto request = KJ_ASSERT_NONNULL(chosen).launchInstanceRequest();
  fill(words, request.initLaunchInfo());
  auto answer = request.send();
  auto guest = answer.getController();
  uint32_t cid = daemon.await(answer.then([](auto&& made) { return made.getCid(); }));

  StopSignals stops(io.unixEventPort, [&](kj::StringPtr) {
    auto stop = guest.stopRequest();
    stop.setForce(true);
    stop.send().ignoreResult().detach([](kj::Exception&&) {});
  });
  auto name = daemon.awaitLong(guest.waitForStartRequest().send().then([](auto&& answer) {
    for (auto note : answer.getNotes())
      printError(kj::str("troupe: ", escape(note, 400), "\n"));
    return escape(answer.getName());
  }));
  if (words.json) {
    JsonLine begun;
    begun.text("name", name).number("realm", uint64_t(realmId)).number("cid", uint64_t(cid));
    printOut(kj::str(begun.render(), "\n"));
  } else {
    printOut(kj::str(name, " runs in realm ", realmId, " with cid ", cid, "\n"));
  }
  if (!isOwn) return ExitCode::POWERED_OFF;
  uint8_t code = 0;
  auto reason = daemon.awaitLong(guest.waitForEndRequest().send().then([&code](auto&& answer) {
    code = answer.getEnd().getExitCode();
    return escape(answer.getEnd().getReason(), 4000);
  }));
  if (words.json) {
    JsonLine end;
    end.text("name", name).number("exitCode", uint64_t(code)).text("reason", reason);
    printOut(kj::str(end.render(), "\n"));
  } else if (code != 0) {
    printError(kj::str("troupe: ", reason, "\n"));
  }
  return static_cast<ExitCode>(code);
}

}  // namespace

ExitCode launchCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  KJ_IF_MAYBE (said, parse(words)) {
    return launch(*said);
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
