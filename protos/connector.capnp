@0xf3a9d1c6582e7b04;

# Between a vsock device and whoever finds the other end of a stream that the guest begins. The
# device holds no path and makes no socket: it asks here, and gets one that is connected. `troupe`
# answers for the host (cid 2); the same interface can answer for any other cid.
#
# The device's end of the pipe exports nothing, the other end a `Connector` as its bootstrap
# capability. Its owner takes the device as hostile: it may ask for anything, any number of times.

using Cxx = import "/capnp/c++.capnp";
using Handle = import "handle.capnp".Handle;
$Cxx.namespace("troupe");

interface Connector {
  connect @0 (cid :UInt64, port :UInt32) -> (socket :Handle);
  # `socket`: a connected stream socket, non-blocking; null when nobody is there, or nobody who may
  # be reached. The device duplicates the fd and drops the capability at once.
}
