#pragma once

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace troupe {

struct ProfileText {
  kj::String path;  // below the folder: "devices/rng/rng.profile"
  kj::Array<kj::byte> text;
};

// The files of a --profile-dir, unparsed: all that are in it and below, but those whose names begin
// with '.' or README. Throws a user error when it cannot be read, has none or more than there can
// be of profiles, or has a file that is no *.profile.
kj::Vector<ProfileText> readProfileFolder(kj::StringPtr folder);

}  // namespace troupe
