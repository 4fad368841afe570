// `troupe device VERB …`: what is done to a device of a running VM.

#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/command_line.h"
#include "vmm/commands.h"
#include "vmm/control_client.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

// The longest profile of ours has a third of it, and the VM's front end passes no more on.
constexpr size_t LONGEST_PROFILE = 16 << 10;
// Of an error.
constexpr size_t MOST_LINES = 40;
constexpr size_t LONGEST_LINE = 600;
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

// What the VM says of it, line by line: the first has its code. The front end that passes it on may
// be in somebody's hands.
kj::Exception shown(const kj::Exception& failure, kj::StringPtr what) {
  constexpr kj::StringPtr PREFIX = "remote exception: "_kj;
  kj::StringPtr text = failure.getDescription();
  while (text.startsWith(PREFIX))
    text = text.slice(PREFIX.size());
  if (!text.startsWith("TRP-")) return wrapActorError(failure, codes::INTERNAL, what).toException();
  kj::Vector<kj::String> lines;
  while (text.size() > 0 && lines.size() < MOST_LINES) {
    size_t end = text.findFirst('\n').orDefault(text.size());
    lines.add(escape(kj::heapString(text.slice(0, end)), LONGEST_LINE));
    text = text.slice(kj::min(end + 1, text.size()));
  }
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::strArray(lines, "\n"));
}

ExitCode replaceDevice(kj::ArrayPtr<const kj::StringPtr> given) {
  ReplaceWords words;
  CommandLine line("device replace",
                   "Starts another process for a device of a running VM and has it go on where the "
                   "one before stops. The guest does not notice.",
                   "VM DEVICE");
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
  auto io = kj::setupAsyncIo();
  ControlClient client(io, found[0]);
  auto request = client.vm().replaceDeviceRequest();
  request.setDevice(found[1]);
  KJ_IF_MAYBE (path, words.binary) {
    request.setBinary(absolute(*path));
  }
  KJ_IF_MAYBE (path, words.profile) {
    request.setProfilePath(*path);
    request.setProfile(readProfile(*path));
    request.setMayBeLooser(words.mayBeLooser);
  }
  auto replaced = request.send().ignoreResult().catch_([&](kj::Exception&& failure) {
    auto what = kj::str("device ", quote(found[1]), " of VM ", quote(found[0]), " is not replaced");
    kj::throwFatalException(shown(failure, what));
  });
  client.await(kj::mv(replaced), PATIENCE);
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
