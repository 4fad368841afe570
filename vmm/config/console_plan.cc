#include "vmm/config/console_plan.h"

#include <kj/vector.h>

#include "vmm/cli/command_line.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

kj::String optionOf(const Endpoint& where) {
  switch (where.kind) {
    case Endpoint::Kind::STDIO:
      return kj::str("--console stdio");
    case Endpoint::Kind::PTY:
      return kj::str("--console pty");
    case Endpoint::Kind::FILE:
      return kj::str("--console ", quote(kj::str("file=", where.path)));
    case Endpoint::Kind::SOCKET:
      return kj::str("--console ", quote(kj::str("socket=", where.path)));
  }
  KJ_UNREACHABLE;
}

kj::String planName(kj::StringPtr option, kj::StringPtr name) {
  bool sound = name.size() <= LONGEST_CONSOLE_NAME;
  for (char c : name) {
    sound = sound && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '.' || c == '_' || c == '-');
  }
  // The guest makes a file of this name.
  sound = sound && !name.startsWith(".");
  if (!sound) {
    UserError(codes::CONSOLE_NAME,
              kj::str(option, ": the name ", quote(name), " is not possible; a name has at most ",
                      LONGEST_CONSOLE_NAME,
                      " letters, digits, '.', '_' or '-', and does not begin with a '.'"))
        .raise();
  }
  return kj::heapString(name);
}

[[noreturn]] void wrongSize(kj::StringPtr option, kj::StringPtr size) {
  UserError(codes::CONSOLE_OPTION,
            kj::str(option, ": size=", escape(size),
                    " is not possible; expected COLUMNSxROWS, 1 to 65535 each, such as 80x25, or "
                    "off"))
      .raise();
}

void planSize(kj::StringPtr option, ConsoleOptions::Reader config, ConsolePlan& plan) {
  kj::StringPtr size = config.getSize();
  if (size.size() > 0 && plan.plain) {
    UserError(codes::CONSOLE_OPTION,
              kj::str(option, ": size= and port exclude each other; consoles alone have a size"))
        .raise();
  }
  if (size.size() == 0) {
    bool onTerminal = plan.where.kind == Endpoint::Kind::STDIO && !plan.plain;
    plan.size = onTerminal ? ConsolePlan::Size::OF_THE_TERMINAL : ConsolePlan::Size::NONE;
    return;
  }
  if (size == "off") return;
  plan.size = ConsolePlan::Size::SAID;
  KJ_IF_MAYBE (x, size.findFirst('x')) {
    auto columns = parseNumber(kj::heapString(size.begin(), *x), UINT16_MAX).orDefault(0);
    auto rows = parseNumber(size.slice(*x + 1), UINT16_MAX).orDefault(0);
    if (columns == 0 || rows == 0) wrongSize(option, size);
    plan.columns = static_cast<uint16_t>(columns);
    plan.rows = static_cast<uint16_t>(rows);
  } else {
    wrongSize(option, size);
  }
}

ConsolePlan planConsole(ConsoleOptions::Reader config) {
  auto where = parseEndpoint("--console", config.getWhere(), PtyAllowed::YES);
  auto option = optionOf(where);
  ConsolePlan plan = {kj::mv(where),
                      planName(option, config.getName()),
                      config.getPort(),
                      ConsolePlan::Size::NONE,
                      0,
                      0,
                      parseOnOff(kj::str(option, ": replay"), config.getReplay())};
  planSize(option, config, plan);
  if (!plan.replay && plan.where.kind != Endpoint::Kind::SOCKET) {
    UserError(
        codes::CONSOLE_OPTION,
        kj::str(option, ": replay=off goes with socket=PATH; only there can a reader be late"))
        .raise();
  }
  return plan;
}

void checkDifferent(const ConsolePlan& one, const ConsolePlan& other) {
  if (one.name.size() > 0 && one.name == other.name) {
    UserError(codes::CONSOLE_NAME,
              kj::str(consoleOption(one), " and ", consoleOption(other), " have the same name ",
                      quote(one.name), "; a name is that of one port"))
        .raise();
  }
}

// Two that cannot share where they go.
void checkPlaces(kj::StringPtr one, const Endpoint& first, kj::StringPtr other,
                 const Endpoint& second) {
  if (first.kind != second.kind) return;
  if (first.kind == Endpoint::Kind::STDIO) {
    UserError(codes::STDIO_TWICE,
              kj::str(one, " and ", other,
                      " exclude each other; only one of them can have the terminal, and --serial "
                      "is on stdio unless told otherwise (--serial file=PATH)"))
        .raise();
  }
  if (first.kind == Endpoint::Kind::SOCKET && first.path == second.path) {
    UserError(codes::BACKEND_SOCKET, kj::str(one, " and ", other, " want the same socket ",
                                             quote(first.path), "; each has its own"))
        .raise();
  }
}

}  // namespace

kj::Array<ConsolePlan> planConsoles(capnp::List<ConsoleOptions>::Reader configs,
                                    const Endpoint& serial) {
  if (configs.size() > MOST_CONSOLES) {
    UserError(codes::TOO_MANY_CONSOLES, kj::str(configs.size(),
                                                " consoles are asked for; a VM has "
                                                "at most ",
                                                MOST_CONSOLES))
        .raise();
  }
  kj::Vector<ConsolePlan> consoles;
  for (auto config : configs) {
    auto console = planConsole(config);
    for (auto& earlier : consoles) {
      checkDifferent(earlier, console);
      checkPlaces(consoleOption(earlier), earlier.where, consoleOption(console), console.where);
    }
    checkPlaces(consoleOption(console), console.where, "--serial", serial);
    consoles.add(kj::mv(console));
  }
  return consoles.releaseAsArray();
}

void spellOutConsoles(capnp::List<ConsoleOptions>::Builder consoles) {
  for (auto console : consoles)
    console.setReplay(kj::str(console.asReader().getReplay()));
}

kj::String consoleOption(const ConsolePlan& console) {
  return optionOf(console.where);
}

kj::String guestsNameOf(kj::ArrayPtr<const ConsolePlan> consoles, uint32_t index) {
  auto& console = consoles[index];
  if (console.plain) {
    return console.name.size() > 0 ? kj::str("port ", quote(console.name))
                                   : kj::str("port ", index);
  }
  uint32_t number = 0;
  for (auto& earlier : consoles.slice(0, index))
    number += !earlier.plain;
  return kj::str("console hvc", number);
}

}  // namespace troupe
