#include "vmm/config/endpoint.h"

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr FORMS = "stdio, file=PATH or socket=PATH"_kj;
constexpr kj::StringPtr FORMS_WITH_PTY = "stdio, pty, file=PATH or socket=PATH"_kj;

}  // namespace

Endpoint parseEndpoint(kj::StringPtr option, kj::StringPtr text, PtyAllowed pty) {
  auto path = [&](kj::StringPtr prefix) -> kj::Maybe<kj::String> {
    if (!text.startsWith(prefix) || text.size() == prefix.size()) return nullptr;
    return kj::heapString(text.slice(prefix.size()));
  };
  bool ptyAllowed = pty == PtyAllowed::YES;
  if (text == "stdio") return {Endpoint::Kind::STDIO, nullptr};
  if (text == "pty" && ptyAllowed) return {Endpoint::Kind::PTY, nullptr};
  KJ_IF_MAYBE (file, path("file=")) {
    return {Endpoint::Kind::FILE, kj::mv(*file)};
  }
  KJ_IF_MAYBE (socket, path("socket=")) {
    return {Endpoint::Kind::SOCKET, kj::mv(*socket)};
  }
  constexpr kj::StringPtr WORDS[] = {"stdio"_kj, "file=PATH"_kj, "socket=PATH"_kj, "pty"_kj};
  auto words = kj::arrayPtr(WORDS, ptyAllowed ? 4 : 3);
  UserError(codes::NOT_A_CHOICE,
            kj::str(option, " ", quote(text), " is not a place for a console; expected ",
                    ptyAllowed ? FORMS_WITH_PTY : FORMS, didYouMean(text, words)))
      .raise();
}

}  // namespace troupe
