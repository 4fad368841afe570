@0xb5c7f0a3d6e81f21;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

# A file descriptor in transit: the capability has no method, only an fd attached to it (`getFd()`).
#
# The receiver borrows the fd for as long as it holds the capability, so it duplicates what it keeps.
# Cap'n Proto 0.9 silently drops fds beyond the `maxFdsPerMessage` of the receiving side: a receiver
# counts, and treats a capability without its fd as a broken peer. Both ends allow
# `MAX_FDS_PER_MESSAGE`.
interface Handle {}

const maxFdsPerMessage :UInt8 = 64;
