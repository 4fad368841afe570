#pragma once

namespace troupe::blk {

// The process of `troupe disk`: one request, one result. Its exit status.
int diskToolMain();

}  // namespace troupe::blk
