#pragma once

#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>
#include <sys/types.h>

namespace troupe {

// Where the files lie that a VM's configuration names. Errors are the user's: each names the file.
class FileSource {
 public:
  virtual ~FileSource() noexcept(false) = default;

  // Opens `path` with these flags of open(2), without waiting for anybody. `what` names the file in
  // errors ("kernel").
  virtual kj::AutoCloseFd open(kj::StringPtr what, kj::StringPtr path, int flags) const = 0;

  // Of what kind the file is; none when that cannot be found out: then open() says why.
  virtual kj::Maybe<mode_t> kindOf(kj::StringPtr what, kj::StringPtr path) const = 0;
};

// Those of this process's file system.
class HostFiles final: public FileSource {
 public:
  kj::AutoCloseFd open(kj::StringPtr what, kj::StringPtr path, int flags) const override;
  kj::Maybe<mode_t> kindOf(kj::StringPtr what, kj::StringPtr path) const override;
};

// For a file that does not open. `name` is the path as it is shown.
[[noreturn]] void cannotOpen(kj::StringPtr what, kj::StringPtr name, int flags, int error,
                             kj::StringPtr see);

}  // namespace troupe
