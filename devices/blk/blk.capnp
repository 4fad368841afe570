@0xf1b0c6d2a97e3845;

# What the actor `blk` is told at its start (Setup.config). The disk itself is the fd "disk", and
# what the file knows is asked of the file: its size, and whether it was opened with O_DIRECT.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct BlkConfig {
  readOnly @0 :Bool;
  # No request changes the disk. Otherwise the fd must be open for writing.
  id @1 :Text;
  # What GET_ID answers (§5.2.6): at most 20 bytes.
  queues @2 :UInt16 = 1;
  # 1 to 16, each with a thread of its own.
  spinMicroseconds @3 :UInt32 = 50;
  # How long a queue's thread looks for more work before it sleeps; 0 never looks.
  rate @4 :RateLimit;
  format @5 :Format;
  # What is in the disk. It is said, never found out.
  path @6 :Text;
  # Of a disk that is no raw one, as its user said it: names in its header are compared with paths.
  backing @7 :List(Backing);
  # The backing files, from top to bottom: the fds "backing", open for reading only.
  volatileBytes @8 :UInt64;
  # Not 0: the disk is only read, and what the guest writes goes to the fd "overlay", a memfd of at
  # least the disk's size. It uses at most this many bytes of memory; readOnly is then false.

  replayed @9 :Data;
  # Not empty: nothing is asked of the file, and nothing is read or written. The disk is as a recording
  # found it (§5.2.4, struct virtio_blk_config), and the recording has the host's answers.

  const mostVolatileBytes :UInt64 = 70368744177664;
  # 64 TiB.
  const mappingJournalBytes :UInt64 = 1048576;
  # What the fd "kept" has for an image that is written: 65532 changes of its mappings until they
  # have to be saved.

  enum Format {
    raw @0;
    qcow2 @1;
  }

  struct Backing {
    path @0 :Text;
    format @1 :Format;
  }

  struct RateLimit {
    # What the driver may use of the disk, all queues together.
    bytesPerSecond @0 :UInt64;
    # 0 is without limit; at most 2^40.
    burstBytes @1 :UInt64;
    # How much may move at once after a rest: from 1 to an hour's worth.
    requestsPerSecond @2 :UInt64;
    burstRequests @3 :UInt64;
    # The same for the number of requests.
  }
}
