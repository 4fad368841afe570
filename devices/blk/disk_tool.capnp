@0xc279333ab2f2e256;

# The actor `disk_tool`: looks into a disk image for `troupe disk`, or makes one, and ends. It gets
# the request in its setup (Setup.config) and writes DiskToolReports, one behind the other, into the
# socket "report": any number that tell of progress, then one with the result. Each that tells of
# progress is answered with one byte, and until then it waits: who asked may have gone.

using Cxx = import "/capnp/c++.capnp";
using Blk = import "blk.capnp";
$Cxx.namespace("troupe");

struct DiskToolRequest {
  path @0 :Text;
  # Of the image, as its user said it: names in its header are compared with paths. The image is the
  # fd "disk", open for reading only unless the request changes it.
  backing @1 :List(Blk.BlkConfig.Backing);
  # The files below it, from top to bottom: the fds "backing".
  union {
    create @2 :NewDisk;
    # The fd is an empty file.
    info @3 :Void;
    # Without backing files the header alone is read; with them the chain has to be as it says.
    check @4 :Check;
    # Of the image alone; backing files are not asked for.
    grow @5 :UInt64;
    # To so many bytes, no fewer than there are.
  }

  struct NewDisk {
    bytes @0 :UInt64;
    # Of the guest's disk; 0: as many as the backing file has.
    clusterBits @1 :UInt32;
    lazyRefcounts @2 :Bool;
    backingName @3 :Text;
    # As the header is to have it.
  }

  struct Check {
    repairLeaks @0 :Bool;
  }
}

struct DiskToolReport {
  union {
    progress @0 :Progress;
    created @1 :UInt64;
    # The bytes of the guest's disk.
    info @2 :DiskImageInfo;
    check @3 :DiskCheck;
    grown @4 :UInt64;
    # The bytes it had before.
    failed @5 :Text;
    # Why, with a stable code in front.
  }

  struct Progress {
    done @0 :UInt64;
    total @1 :UInt64;
    # 0: not known. Nothing but a sign of life then.
  }
}

struct DiskImageInfo {
  # What a header says.
  version @0 :UInt32;
  bytes @1 :UInt64;
  # Of the guest's disk.
  clusterBytes @2 :UInt32;
  refcountBits @3 :UInt32;
  snapshots @4 :UInt32;
  isDirty @5 :Bool;
  isCorrupt @6 :Bool;
  lazyRefcounts @7 :Bool;
  compression @8 :Text;
  bitmaps @9 :Bool;
  hasBacking @10 :Bool;
  backingName @11 :Text;
  # Anybody may have written it. At most 1023 bytes.
  backingFormat @12 :Text;
  # "" where it says none.
  chainChecked @13 :Bool;
  # Backing files were named and are those of the headers.
}

struct DiskCheck {
  errors @0 :UInt64;
  leaks @1 :UInt64;
  # That are left.
  repairedLeaks @2 :UInt64;
  totalClusters @3 :UInt64;
  allocatedClusters @4 :UInt64;
  compressedClusters @5 :UInt64;
  endOffset @6 :UInt64;
  # Of the last cluster that is used or counted.
  clusterBytes @7 :UInt32;
  findings @8 :List(Finding);
  # The first 32.
  isDirty @9 :Bool;
  # It was not closed; then counts may be too low without anything being wrong.

  struct Finding {
    flaw @0 :Flaw;
    cluster @1 :UInt64;
    # Of the file.
    counted @2 :UInt64;
    used @3 :UInt64;
  }

  enum Flaw {
    countedTooLow @0;
    leaked @1;
    copiedFlag @2;
    outside @3;
    misaligned @4;
    reservedBits @5;
    refcountBlock @6;
    sharedBlock @7;
    snapshot @8;
  }
}
