#pragma once

#include <kj/io.h>
#include <kj/string.h>

#include "vmm/files/open_file.h"

namespace troupe {

// A file of the user's that appears under its name when it is complete, and not at all if that does
// not come to pass. Until then it has no name; where the file system cannot do that, one of its own
// in the same folder, which goes with this object.
class NewFile {
 public:
  enum class Existing { REFUSE, REPLACE };

  // Throws a user error if something is there already that is not to be replaced, or cannot be: a
  // disk in use, something that is no file. Who is to be replaced stays locked until it is.
  NewFile(kj::StringPtr path, Existing existing);
  ~NewFile() noexcept(false);
  KJ_DISALLOW_COPY(NewFile);

  int fd() const { return file; }

  // Gives it its name, also for after a power loss. Its contents have been synced.
  void publish();

 private:
  void makeNamed();
  void keepMode();
  void linkTo(kj::StringPtr name);
  [[noreturn]] void failed(kj::StringPtr doing, int error) const;
  kj::String temporaryName() const;

  kj::String path;  // where it is to be: with REPLACE behind symbolic links
  kj::String folder;
  kj::Maybe<OpenFile> replaced;
  kj::AutoCloseFd file;
  kj::Maybe<kj::String> ownName;
};

}  // namespace troupe
