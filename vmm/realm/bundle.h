#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protos/realm.capnp.h"
#include "vmm/files/file_source.h"

namespace troupe::realm {

// A guest's bundle, a directory, and the directories that whoever launches it grants beside it.
//
// A path in a bundle's configuration is meant from the bundle, whether it begins with '/' or not,
// unless a granted directory has its beginning: then from there on (the longest such name counts).
// What a path leads to lies below that directory: one with "..", or through a symbolic link that
// leads out, is refused, as is everything but a regular file.
class Bundle final: public FileSource {
 public:
  // `url`: "/path" or "file:///path". `directories` are those of `granted`, in its order. Throws
  // TRP-rlm-007 for a url that names no directory, TRP-rlm-009 for grants that cannot be.
  Bundle(kj::StringPtr url, FlatNamespace::Reader granted, kj::Array<kj::AutoCloseFd> directories);

  // Its path.
  kj::StringPtr name() const { return path; }

  // What its file `name` holds, at most 64 KiB; none when there is no such file.
  kj::Maybe<kj::Array<char>> readText(kj::StringPtr name) const;

  // FileSource. Throw TRP-rlm-008 for what lies elsewhere or is no regular file.
  kj::AutoCloseFd open(kj::StringPtr what, kj::StringPtr path, int flags) const override;
  kj::Maybe<mode_t> kindOf(kj::StringPtr what, kj::StringPtr path) const override;

 private:
  struct Granted {
    kj::String path;
    kj::AutoCloseFd directory;
  };
  struct Place {
    int directory;
    kj::StringPtr name;   // of the directory, for errors
    kj::String relative;  // from there
  };
  Place placeOf(kj::StringPtr what, kj::StringPtr path) const;
  kj::AutoCloseFd find(kj::StringPtr what, kj::StringPtr path) const;

  kj::String path;
  kj::AutoCloseFd directory;
  kj::Vector<Granted> granted;
};

// The path of the directory that a bundle's url names. Throws TRP-rlm-007.
kj::String pathOfUrl(kj::StringPtr url);

}  // namespace troupe::realm
