@0x846e9b0a8a13744c;

# What `troupe disk … --json` prints. Text out of an image is escaped: it may be anybody's.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct DiskInfoJson {
  path @0 :Text;
  format @1 :Text;
  virtualBytes @2 :UInt64;
  # What a guest sees.
  fileBytes @3 :UInt64;
  allocatedBytes @4 :UInt64;
  # What the file takes of its file system; of a block device 0.
  image @5 :Image;
  # Of a qcow2 image only.

  struct Image {
    version @0 :UInt32;
    clusterBytes @1 :UInt32;
    refcountBits @2 :UInt32;
    compression @3 :Text;
    features @4 :List(Text);
    # "lazy-refcounts", "bitmaps".
    dirty @5 :Bool;
    corrupt @6 :Bool;
    snapshots @7 :UInt32;
    backing @8 :Backing;
    # None where the header names none.
  }

  struct Backing {
    name @0 :Text;
    # As the header has it.
    format @1 :Text;
    checked @2 :Bool;
    # It was named on the command line and is what the header says.
  }
}

struct DiskCreatedJson {
  path @0 :Text;
  format @1 :Text;
  virtualBytes @2 :UInt64;
  backing @3 :List(Text);
  # As `--disk` wants them: each "PATH:FORMAT".
}

struct DiskResizedJson {
  path @0 :Text;
  format @1 :Text;
  bytesBefore @2 :UInt64;
  virtualBytes @3 :UInt64;
}

struct DiskCheckJson {
  path @0 :Text;
  errors @1 :UInt64;
  leaks @2 :UInt64;
  repairedLeaks @3 :UInt64;
  totalClusters @4 :UInt64;
  allocatedClusters @5 :UInt64;
  compressedClusters @6 :UInt64;
  endOffset @7 :UInt64;
  findings @8 :List(Finding);
  # The first 32.
  dirty @9 :Bool;
  # It was not closed, so counts may be wrong that are repaired when it is next written.

  struct Finding {
    flaw @0 :Text;
    offset @1 :UInt64;
    counted @2 :UInt64;
    used @3 :UInt64;
  }
}
