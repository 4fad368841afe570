#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

#include "protos/config.capnp.h"
#include "vmm/config/endpoint.h"

namespace troupe {

constexpr uint32_t MOST_CONSOLES = 8;  // what the profile of the console's actor has fds for
constexpr size_t LONGEST_CONSOLE_NAME = 64;

// One port of the virtio console.
struct ConsolePlan {
  Endpoint where;
  kj::String name;  // empty: none
  bool plain;       // a port of bytes, not a console
  enum class Size { OF_THE_TERMINAL, SAID, NONE };
  Size size;
  uint16_t columns;  // if SAID
  uint16_t rows;
  bool replay;  // what was said is kept for who comes late
};

// Throws a user error for the first value that does not do, and for two that want the same: a name,
// a socket, or stdio, which `serial` may have.
kj::Array<ConsolePlan> planConsoles(capnp::List<ConsoleOptions>::Reader consoles,
                                    const Endpoint& serial);

// Writes what was left to a default out in full. `consoles` has passed planConsoles().
void spellOutConsoles(capnp::List<ConsoleOptions>::Builder consoles);

// The option, for errors: `--console "socket=a"`.
kj::String consoleOption(const ConsolePlan& console);

// What Linux calls the port: "hvc0", "port agent".
kj::String guestsNameOf(kj::ArrayPtr<const ConsolePlan> consoles, uint32_t index);

}  // namespace troupe
