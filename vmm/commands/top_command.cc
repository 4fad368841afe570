// `troupe top VM`: what each process of a running VM uses, again and again.

#include <capnp/message.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_words.h"
#include "vmm/commands/lasting_client.h"
#include "vmm/commands/observe_commands.h"
#include "vmm/observe/load_copy.h"
#include "vmm/observe/top_table.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr double SHORTEST_SECONDS = 0.1;  // a VM looks at itself no more often
constexpr double LONGEST_SECONDS = 3600;
constexpr uint64_t MOST_SAMPLES = 1000000000;
constexpr kj::StringPtr FROM_THE_TOP = "\x1b[H\x1b[2J"_kj;

struct Words {
  kj::StringPtr vm;
  bool json = false;
  kj::Duration interval = 1 * kj::SECONDS;
  kj::Maybe<uint64_t> count;
};

kj::Duration parseInterval(kj::StringPtr text) {
  char* end;
  double seconds = strtod(text.cStr(), &end);
  bool isNumber = text.size() > 0 && end == text.end() && isfinite(seconds);
  if (isNumber && seconds >= SHORTEST_SECONDS && seconds <= LONGEST_SECONDS) {
    return int64_t(seconds * 1e6) * kj::MICROSECONDS;
  }
  UserError(codes::TOP_OPTION, kj::str("--interval ", quote(text), " is no interval; expected ",
                                       SHORTEST_SECONDS, " to ", LONGEST_SECONDS, " seconds"))
      .raise();
}

uint64_t parseCount(kj::StringPtr text) {
  KJ_IF_MAYBE (count, parseNumber(text, MOST_SAMPLES)) {
    if (*count > 0) return *count;
  }
  UserError(codes::TOP_OPTION, kj::str("--count ", quote(text),
                                       " is no number of samples; expected 1 to ", MOST_SAMPLES))
      .raise();
}

kj::Maybe<Words> parse(kj::ArrayPtr<const kj::StringPtr> given) {
  Words words;
  CommandLine line("top",
                   "Shows what each process of a running VM uses and what its queues do, again "
                   "and again until the VM ends.",
                   "VM", "troupe top web --interval 5", "print a line of JSON for each sample");
  line.add({"interval", "SECONDS", "how long each sample is, 0.1 to 3600; 1 unless given", false,
            [&](kj::StringPtr text) { words.interval = parseInterval(text); }});
  line.add({"count", "N", "end after so many samples; with the VM unless given", false,
            [&](kj::StringPtr text) { words.count = parseCount(text); }});
  line.epilog(
      "MEMORY is what nobody shares; RING is requests in flight now; WAIT is how long they took, "
      "of\n"
      "one in 16, and P99<= what 99 of 100 stayed below. LIMITS are those in force: used/allowed.");
  KJ_IF_MAYBE (found, parseVmWords(line, given)) {
    words.vm = found->name;
    words.json = found->json;
    return kj::mv(words);
  }
  return nullptr;
}

// One look at a VM, safe to show.
using Look = kj::Own<capnp::MallocMessageBuilder>;

kj::Maybe<Look> look(LastingClient& client) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  bool isThere = client.tryWith([&](ControlClient& connection) {
    connection.await(connection.vm().loadRequest().send().then(
        [&](auto&& response) { copyLoad(response.getLoad(), message->initRoot<VmLoad>()); }));
  });
  if (!isThere) return nullptr;
  return kj::mv(message);
}

kj::String render(const Words& words, VmLoad::Reader now, VmLoad::Reader earlier, bool onTerminal) {
  if (words.json) return kj::str(topLine(now, earlier), "\n");
  return kj::str(onTerminal ? FROM_THE_TOP : ""_kj, topTable(now, earlier), onTerminal ? "" : "\n");
}

}  // namespace

ExitCode topCommand(kj::ArrayPtr<const kj::StringPtr> given) {
  KJ_IF_MAYBE (words, parse(given)) {
    auto io = kj::setupAsyncIo();
    LastingClient client(io, words->vm);
    bool onTerminal = isatty(STDOUT_FILENO);
    uint64_t left = words->count.orDefault(UINT64_MAX);
    auto earlier = look(client);
    while (earlier != nullptr && left-- > 0) {
      io.provider->getTimer().afterDelay(words->interval).wait(io.waitScope);
      auto now = look(client);
      KJ_IF_MAYBE (one, now) {
        auto& before = KJ_ASSERT_NONNULL(earlier);
        printOut(render(*words, (*one)->getRoot<VmLoad>().asReader(),
                        before->getRoot<VmLoad>().asReader(), onTerminal));
      }
      earlier = kj::mv(now);
    }
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
