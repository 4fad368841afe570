#include "vmm/config/console_option.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/option_parts.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr OptionPart PARTS[] = {
    {"stdio"_kj, false}, {"pty"_kj, false},  {"file"_kj, true}, {"socket"_kj, true},
    {"name"_kj, true},   {"port"_kj, false}, {"size"_kj, true}, {"replay"_kj, true},
};

const OptionForm FORM = {
    "--console"_kj, codes::CONSOLE_OPTION, PARTS,
    "its parts are stdio, pty, file=PATH or socket=PATH, and name=NAME, port, size=80x25 or off, "
    "and replay=on or off; a comma in a path is written twice"_kj};

void setPlace(kj::StringPtr text, kj::String place, ConsoleOptions::Builder console) {
  if (console.getWhere().size() > 0) {
    UserError(codes::CONSOLE_OPTION,
              kj::str("--console ", quote(text), ": ", quote(console.getWhere()), " and ",
                      quote(place), " exclude each other; a console has one place to go"))
        .raise();
  }
  console.setWhere(place);
}

}  // namespace

void parseConsole(kj::StringPtr text, ConsoleOptions::Builder console) {
  auto parts = readParts(FORM, text);
  for (auto& part : parts) {
    kj::StringPtr name = part.name;
    if (name == "stdio" || name == "pty") setPlace(text, kj::str(name), console);
    if (name == "file" || name == "socket") setPlace(text, kj::str(name, "=", part.value), console);
    if (name == "name") console.setName(part.value);
    if (name == "port") console.setPort(true);
    if (name == "size") console.setSize(part.value);
    if (name == "replay") console.setReplay(part.value);
  }
  if (console.getWhere().size() == 0) {
    UserError(codes::CONSOLE_OPTION,
              kj::str("--console ", quote(text),
                      " does not say where to; expected stdio, pty, file=PATH or socket=PATH"))
        .raise();
  }
}

}  // namespace troupe
