// `troupe device VERB …`: what is done to a device of a running VM.

#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/control/control_client.h"
#include "vmm/words/json_line.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

// The longest profile of ours has a third of it, and the VM's front end passes no more on.
constexpr size_t LONGEST_PROFILE = 16 << 10;
// Compiling a profile, starting a process, finishing what the one before has under way.
constexpr kj::Duration PATIENCE = 40 * kj::SECONDS;

struct ReplaceWords {
  kj::Maybe<kj::StringPtr> binary;
  kj::Maybe<kj::StringPtr> profile;
  bool mayBeLooser = false;
};

kj::String absolute(kj::StringPtr path) {
  char resolved[PATH_MAX];
  if (realpath(path.cStr(), resolved) == nullptr) {
    UserError(codes::DEVICE_PROGRAM,
              kj::str("the program ", quote(path), " cannot be found: ", errnoText(errno)))
        .raise();
  }
  return kj::heapString(resolved);
}

kj::Array<kj::byte> readProfile(kj::StringPtr path) {
  auto refuse = [&](kj::StringPtr why) {
    UserError(codes::DEVICE_PROFILE, kj::str("the profile ", quote(path), " ", why)).raise();
  };
  int raw = open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (raw < 0) refuse(kj::str("cannot be read: ", errnoText(errno)));
  kj::AutoCloseFd file(raw);
  auto buffer = kj::heapArray<kj::byte>(LONGEST_PROFILE + 1);
  size_t size = 0;
  for (;;) {
    ssize_t got = read(file, buffer.begin() + size, buffer.size() - size);
    if (got < 0) refuse(kj::str("cannot be read: ", errnoText(errno)));
    size += got;
    if (size > LONGEST_PROFILE) refuse("has more than 16 KiB");
    if (got == 0) break;
  }
  if (size == 0) refuse("is empty");
  return kj::heapArray<kj::byte>(buffer.slice(0, size));
}

ExitCode replaceDevice(kj::ArrayPtr<const kj::StringPtr> given) {
  ReplaceWords words;
  CommandLine line("device replace",
                   "Starts another process for a device of a running VM and has it go on where the "
                   "one before stops. The guest does not notice.",
                   "VM DEVICE", "troupe device replace web blk0");
  line.add({"binary", "FILE", "of this program, and later ones too, in place of that of before",
            false, [&](kj::StringPtr path) { words.binary = path; }});
  line.add({"profile", "FILE", "in a jail after this profile, and later ones too", false,
            [&](kj::StringPtr path) { words.profile = path; }});
  line.add({"allow-looser", "", "the profile may allow more than the one in force", false,
            [&](kj::StringPtr) { words.mayBeLooser = true; }});
  auto arguments = line.parse(given, 2);
  if (arguments == nullptr) {
    printOut(line.help());
    return ExitCode::POWERED_OFF;
  }
  auto& found = KJ_ASSERT_NONNULL(arguments);
  if (found.size() < 2) {
    UserError(codes::ARGUMENTS, kj::str("which device, and of which VM? give VM and DEVICE"))
        .advice("see", found.size() == 0 ? kj::str("troupe list")
                                         : kj::str("troupe status ", escape(found[0])))
        .raise();
  }
  if (words.mayBeLooser && words.profile == nullptr) {
    UserError(codes::ARGUMENTS, kj::str("--allow-looser goes with --profile FILE"))
        .advice("see", "troupe device replace --help")
        .raise();
  }
  // Files first: what is wrong with them is so whether the VM runs or not.
  auto binary = words.binary.map([](kj::StringPtr path) { return absolute(path); });
  auto profile = words.profile.map([](kj::StringPtr path) { return readProfile(path); });
  auto io = kj::setupAsyncIo();
  ControlClient client(io, found[0]);
  auto request = client.vm().replaceDeviceRequest();
  request.setDevice(found[1]);
  KJ_IF_MAYBE (path, binary) {
    request.setBinary(*path);
  }
  KJ_IF_MAYBE (text, profile) {
    request.setProfilePath(KJ_ASSERT_NONNULL(words.profile));
    request.setProfile(*text);
    request.setMayBeLooser(words.mayBeLooser);
  }
  auto replaced = request.send().ignoreResult().catch_([&](kj::Exception&& failure) {
    auto what = kj::str("device ", quote(found[1]), " of VM ", quote(found[0]), " is not replaced");
    kj::throwFatalException(passedOn(failure, codes::INTERNAL, what));
  });
  client.await(kj::mv(replaced), PATIENCE);
  if (line.json()) {
    printOut(kj::str(
        JsonLine().text("name", found[0]).text("device", found[1]).truth("replaced", true).render(),
        "\n"));
    return ExitCode::POWERED_OFF;
  }
  printOut(kj::str("device ", quote(found[1]), " of VM ", quote(found[0]),
                   " is played by another process now\n"));
  return ExitCode::POWERED_OFF;
}

}  // namespace

ExitCode deviceCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  bool asksForHelp = words.size() > 0 && (words[0] == "--help" || words[0] == "-h");
  if (asksForHelp) {
    printOut(
        "usage: troupe device VERB ...\n"
        "What is done to a device of a running VM.\n\n"
        "  replace  another process takes the place of the one that plays it\n\n"
        "`troupe device VERB --help` tells more.\n");
    return ExitCode::POWERED_OFF;
  }
  if (words.size() > 0 && words[0] == "replace") return replaceDevice(words.slice(1, words.size()));
  UserError(codes::UNKNOWN_COMMAND,
            words.size() == 0
                ? kj::str("troupe device needs a verb; there is one: replace")
                : kj::str("troupe device has no verb ", quote(words[0]), "; there is one: replace"))
      .advice("see", "troupe device --help")
      .raise();
}

}  // namespace troupe
