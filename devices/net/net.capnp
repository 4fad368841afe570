@0x80c2e2743ba8f6df;

# What the actor `net` is told at its start (Setup.config). Its backend comes as fds: "tap", one for
# each queue pair, or "socket"; and "pcap", if frames are to be written down. Sockets and taps are
# set to O_NONBLOCK by the device.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct NetConfig {
  mac @0 :Data;
  # 6 bytes, as on the wire: not a group address, not all zeroes.
  mtu @1 :UInt16;
  # Told to the driver (VIRTIO_NET_F_MTU): 68 to 65535; 0 tells it nothing. Frames are not cut to it.
  queuePairs @2 :UInt16 = 1;
  # 1 to `mostQueuePairs`, each with a thread of its own: with `tap` as many as there are fds "tap",
  # with `packets` as there are fds "socket" (at most 4), with `stream` 1.
  backend @3 :Backend;
  socketHasHeaders @4 :Bool;
  # With `packets`: each message begins with a struct virtio_net_hdr_v1 of 12 bytes (§5.1.6), in both
  # directions. A tap always has them: IFF_VNET_HDR, TUNSETVNETHDRSZ 12. A stream never has.
  offloads @5 :Offloads;
  # What the backend can do with such a header; without headers nothing.
  spinMicroseconds @6 :UInt32 = 50;
  # How long a pair's thread looks for more work before it sleeps; 0 never looks.
  receiveRate @7 :RateLimit;
  # Of frames to the guest, and from the guest; all queue pairs together.
  transmitRate @8 :RateLimit;
  spoofFilter @9 :Bool;
  # Frames of the guest leave only with `mac` as their source, untagged (no VLAN), and with `mac` in
  # the sender's place of ARP. The guest may then not change its address.
  capture @10 :Bool;
  # Frames of both directions go into the fd "pcap", a regular file of length 0 open for writing.
  captureBytes @11 :UInt64 = 1073741824;
  # The file ends with the last frame that leaves it at most this long.
  captureFrameBytes @12 :UInt32 = 65535;
  # Of a frame longer than that, so much is kept; at least 64.

  linkDown @13 :Bool;
  # The cable is unplugged from the start, until HostEvent.netLink says otherwise.

  const mostQueuePairs :UInt16 = 15;
  # A kick and a call eventfd for each of 31 queues, the control queue among them, fit one message.

  enum Backend {
    tap @0;
    stream @1;
    # One connected unix stream socket, each frame behind its length: 4 bytes, big-endian (passt,
    # QEMU's -netdev stream).
    packets @2;
    # A socket that keeps messages apart (SOCK_SEQPACKET, SOCK_DGRAM), one frame a message.
  }

  struct Offloads {
    # The first lets the guest leave out checksums, the others let it send segments of up to 64 KiB
    # (HOST_…); a tap does the same towards the guest where the driver agrees (GUEST_…). None of the
    # others without `checksum`; `ecn` with tso4 or tso6.
    checksum @0 :Bool;
    # TUN_F_CSUM
    tso4 @1 :Bool;
    # TUN_F_TSO4
    tso6 @2 :Bool;
    # TUN_F_TSO6
    ecn @3 :Bool;
    # TUN_F_TSO_ECN
    ufo @4 :Bool;
    # TUN_F_UFO
    uso @5 :Bool;
    # TUN_F_USO4 and TUN_F_USO6: Linux 6.2
  }

  struct RateLimit {
    bytesPerSecond @0 :UInt64;
    # 0 is without limit; at most 2^40. Bytes of frames, from the destination address on.
    burstBytes @1 :UInt64;
    # How much may pass at once after a rest: from 1 to an hour's worth.
    framesPerSecond @2 :UInt64;
    burstFrames @3 :UInt64;
    # The same for the number of frames.
  }
}
