#include "vmm/config/vsock_option.h"

#include <kj/vector.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/option_parts.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::StringPtr CID = "cid"_kj;
constexpr kj::StringPtr SOCKET = "socket"_kj;
constexpr kj::StringPtr FORWARD = "forward"_kj;

const OptionPart PARTS[] = {{CID, true}, {SOCKET, true}, {FORWARD, true, /*repeats=*/true}};
const OptionForm FORM = {
    "--vsock"_kj, codes::VSOCK_OPTION, PARTS,
    "its parts are cid=N, socket=PATH and any number of forward=PORT:PATH, and "
    "a comma in a path is written twice"_kj};

uint32_t parseCid(kj::StringPtr text, kj::StringPtr value) {
  uint32_t cid = 0;
  KJ_IF_MAYBE (number, parseNumber(value, UINT32_MAX)) {
    cid = static_cast<uint32_t>(*number);
  }
  if (cid != 0) return cid;  // 0 means none in a file; here it is as wrong as a word
  UserError(codes::VSOCK_CID, kj::str("--vsock ", quote(text), ": cid=", escape(value),
                                      " is not a cid; a guest has one from 3 to 4294967294"))
      .raise();
}

}  // namespace

void parseVsock(kj::StringPtr text, VsockOptions::Builder vsock) {
  kj::Vector<kj::StringPtr> forwards;
  auto parts = readParts(FORM, text);
  for (auto& part : parts) {
    if (part.name == CID) {
      vsock.setCid(parseCid(text, part.value));
    } else if (part.name == SOCKET) {
      vsock.setSocket(part.value);
    } else {
      forwards.add(part.value);
    }
  }
  auto list = vsock.initForward(uint(forwards.size()));
  for (uint i = 0; i < forwards.size(); i++)
    list.set(i, forwards[i]);
}

}  // namespace troupe
