@0xf3a9d1c6582e7b04;

# Between a vsock device and whoever finds the other end of a stream that the guest begins. The
# device holds no path and makes no socket: it asks here, and gets one that is connected. `troupe`
# answers for the host (cid 2); the same interface can answer for any other cid.
#
# The device's end of the pipe exports an `Acceptor` as its bootstrap capability, the other end a
# `Connector`. The latter's owner takes the device as hostile: it may ask for anything, any number of
# times.

using Cxx = import "/capnp/c++.capnp";
using Handle = import "handle.capnp".Handle;
$Cxx.namespace("troupe");

struct StreamName {
  # A stream between a port of the guest's and one of somebody else's.
  peerCid @0 :UInt64;
  peerPort @1 :UInt32;
  guestPort @2 :UInt32;
}

interface Connector {
  connect @0 (cid :UInt64, port :UInt32, guestPort :UInt32) -> (socket :Handle);
  # `socket`: a connected stream socket, non-blocking; null when nobody is there, or nobody who may
  # be reached. The device duplicates the fd and drops the capability at once. `guestPort`: where
  # the guest's end of the stream is.
  ended @1 (streams :List(StreamName)) -> ();
  # These, of those that were offered and accepted, have ended. At most 256, one call at a time.
}

enum OfferAnswer {
  accepted @0;
  refused @1;
  # By the guest; or it has not answered in ten seconds, has no driver, or too many streams.
  exists @2;
  # A stream between these ports is alive.
}

interface Acceptor {
  # A vsock device, to whoever has streams for its guest.
  offer @0 (stream :StreamName, socket :Handle) -> (answer :OfferAnswer);
  # `socket`: a connected stream socket, which the device duplicates. Returns when the guest has
  # answered.
}
