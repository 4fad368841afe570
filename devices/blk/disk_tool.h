#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/common.h>
#include <kj/function.h>

#include "devices/blk/disk_tool.capnp.h"

namespace troupe::blk {

// The files of a request: borrowed fds. `backing` from top to bottom, as in the request.
struct DiskToolFiles {
  int disk;
  kj::Array<int> backing;
};

// Serves one request, as disk_tool.capnp describes. Throws TRP-blk-…, TRP-disk-… where that says
// `failed`; everything else goes to `send`.
class DiskTool {
 public:
  // Asks the files what they are. `request` must outlive this.
  DiskTool(DiskToolRequest::Reader request, const DiskToolFiles& files,
           kj::Function<void(capnp::MessageBuilder& report)> send);
  ~DiskTool() noexcept(false);
  KJ_DISALLOW_COPY(DiskTool);

  // Moves bytes of them, and nothing else.
  void serve();

 private:
  class Work;
  kj::Own<Work> work;
};

}  // namespace troupe::blk
