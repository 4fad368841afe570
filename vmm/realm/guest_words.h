#pragma once

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>

#include <cstring>

#include "protos/realm.capnp.h"

// The values of guest.cfg, each of which is text. None of these functions says what is
// wrong: the caller knows where the text stands.
namespace troupe::realm {

// "" and "true" are true: an option that is only named is on.
kj::Maybe<bool> parseToggle(kj::StringPtr text);

// A decimal number of 1 to `limit`.
kj::Maybe<uint64_t> parseCount(kj::StringPtr text, uint64_t limit);

struct MemoryWords {
  // Whether a base was given: then the region lies there and nowhere else. Without, `size` is all
  // of the guest's RAM, which leaves room for devices below 4 GiB.
  bool isPlaced;
  uint64_t base;  // guest-physical
  uint64_t size;  // bytes
  MemoryPolicy policy;
};
// "SIZE", "BASE,SIZE" or "BASE,SIZE,cached|device". BASE is hexadecimal without a prefix; SIZE is
// decimal with b, k, M or G behind it, or bytes; what follows the letter is passed over.
kj::Maybe<MemoryWords> parseMemory(kj::StringPtr text);

struct BlockWords {
  kj::String path;
  BlockFormat format = BlockFormat::RAW;
  BlockMode mode = BlockMode::READ_WRITE;
};
// Separated by commas: a path that begins with '/', "fdio" or "qcow", "rw", "ro" or "volatile". Of
// two of a kind the last one counts. Words that are none of these are passed over, as they always
// were; `ignored` is told.
kj::Maybe<BlockWords> parseBlock(kj::StringPtr text, kj::Vector<kj::String>& ignored);

struct Mac {
  kj::byte octets[6];
  bool operator==(const Mac& other) const { return memcmp(octets, other.octets, 6) == 0; }
};
// Six bytes in hexadecimal, one digit or two each, with colons between.
kj::Maybe<Mac> parseMac(kj::StringPtr text);
kj::String macText(const Mac& mac);  // with two digits for each byte

}  // namespace troupe::realm
