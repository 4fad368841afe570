#include "vmm/config/host_memory_words.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "broker/memory_map.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/option_parts.h"
#include "vmm/words/quote.h"
#include "vmm/words/split.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t PAGE = 4096;
constexpr uint64_t END = 0xC00000000;  // 48 GiB, as for all memory of guests

constexpr OptionPart PARTS[] = {{"at"_kj, true},
                                {"size"_kj, true},
                                {"offset"_kj, true},
                                {"device"_kj, false},
                                {"shared"_kj, false}};
constexpr kj::StringPtr RULE =
    "after the path come at=ADDRESS, and size=SIZE, offset=OFFSET, device or shared"_kj;

[[noreturn]] void refuse(kj::StringPtr option, kj::StringPtr text, kj::StringPtr why) {
  UserError(codes::HOST_MEMORY_OPTION, kj::str(option, " ", quote(text), ": ", why))
      .advice("form", kj::str(option, " /dev/shm/window,at=0x100000000,size=16M"))
      .raise();
}

// Where the path ends: at the first comma that is not doubled.
size_t endOfPath(kj::StringPtr text) {
  size_t i = 0;
  while (i < text.size()) {
    if (text[i] != ',') {
      i++;
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      i += 2;
    } else {
      break;
    }
  }
  return i;
}

kj::Maybe<uint64_t> parseHex(kj::StringPtr digits) {
  if (digits.size() < 1 || digits.size() > 16) return nullptr;
  uint64_t number = 0;
  for (char c : digits) {
    uint64_t digit;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else {
      return nullptr;
    }
    number = number << 4 | digit;
  }
  return number;
}

}  // namespace

HostMemoryWords HostMemoryWords::clone() const {
  return {kj::heapString(path), at, size, offset, kind, isShared};
}

kj::StringPtr kindName(HostMemoryWords::Kind kind) {
  return kind == HostMemoryWords::Kind::CACHED ? "cached memory"_kj : "device memory"_kj;
}

kj::String regionText(uint64_t address, uint64_t size) {
  return kj::str("0x", kj::hex(address), "+0x", kj::hex(size));
}

HostMemoryWords parseHostMemory(kj::StringPtr option, kj::StringPtr text) {
  size_t end = endOfPath(text);
  auto path = kj::mv(splitAtCommas(kj::heapString(text.begin(), end), true)[0]);
  if (path.size() == 0) refuse(option, text, "it begins with no path");
  HostMemoryWords words{kj::mv(path), 0, 0, 0, HostMemoryWords::Kind::CACHED, false};
  bool hasPlace = false;
  auto number = [&](const SaidPart& part) {
    auto value =
        part.value.startsWith("0x") ? parseHex(part.value.slice(2)) : parseSize(part.value);
    KJ_IF_MAYBE (bytes, value) {
      if (*bytes % PAGE == 0) return *bytes;
      refuse(option, text,
             kj::str(part.name, "=", escape(part.value, 40), " is not a multiple of 4096"));
    }
    refuse(option, text,
           kj::str(part.name, "=", escape(part.value, 40),
                   " is neither a size such as 16M nor a hexadecimal number such as 0x100000000"));
  };
  if (end < text.size()) {
    for (auto& part :
         readParts({option, codes::HOST_MEMORY_OPTION, PARTS, RULE}, text.slice(end + 1))) {
      if (part.name == "at") {
        words.at = number(part);
        hasPlace = true;
      } else if (part.name == "size") {
        words.size = number(part);
        if (words.size == 0) refuse(option, text, "size is 0");
      } else if (part.name == "offset") {
        words.offset = number(part);
      } else if (part.name == "device") {
        words.kind = HostMemoryWords::Kind::DEVICE;
      } else {
        words.isShared = true;
      }
    }
  }
  if (!hasPlace) {
    refuse(option, text, "it does not say at which address guests see it; at=ADDRESS is missing");
  }
  if (words.offset > uint64_t(INT64_MAX) - END) refuse(option, text, "no file has such an offset");
  checkHostMemoryPlace(words);
  return words;
}

void checkHostMemoryPlace(const HostMemoryWords& words) {
  auto size = kj::max(words.size, PAGE);  // not known yet: at least that
  auto wrong = [&](kj::StringPtr why) {
    UserError(codes::HOST_MEMORY_OPTION, kj::str("memory of the host's ", quote(words.path), " at ",
                                                 regionText(words.at, size), " ", why))
        .raise();
  };
  if (words.at >= END || size > END - words.at) {
    wrong("reaches beyond 0xc00000000, where the memory of guests ends");
  }
  if (words.at < broker::HIGH_RAM_START && words.at + size > broker::LOW_RAM_END) {
    wrong("meets the addresses of devices from 0xc0000000 to 0x100000000");
  }
}

HostMemoryWords permittedPart(kj::ArrayPtr<const HostMemoryWords> permitted, uint64_t address,
                              uint64_t size, HostMemoryWords::Kind kind) {
  kj::Vector<kj::String> places;
  for (auto& one : permitted) {
    places.add(kj::str(regionText(one.at, one.size), " (", kindName(one.kind), ")"));
    if (one.kind != kind || address < one.at || address - one.at > one.size) continue;
    uint64_t distance = address - one.at;
    if (size > one.size - distance) continue;
    auto part = one.clone();
    part.at = address;
    part.size = size;
    part.offset += distance;
    return part;
  }
  UserError report(
      codes::HOST_MEMORY_FORBIDDEN,
      kj::str("the guest asks for ", regionText(address, size), " of the host's ", kindName(kind),
              ", and ",
              places.size() == 0 ? kj::str("nobody permitted any")
                                 : kj::str("what is permitted is ", kj::strArray(places, ", "))));
  if (places.size() == 0) {
    report.advice("see", "`--permit-host-memory` of `troupe serve`, if this machine is yours");
  }
  report.raise();
}

}  // namespace troupe
