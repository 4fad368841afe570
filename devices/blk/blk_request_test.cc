#include "devices/blk/blk_request.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>

#include "devices/virtio/testing/fake_driver.h"

namespace troupe::blk {
namespace {

using virtio::Chain;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint64_t SECTORS = 64;
constexpr DiskShape DISK{SECTORS * 512, 512, false};
constexpr DiskShape READ_ONLY_DISK{SECTORS * 512, 512, true};
constexpr DiskShape DISK_OF_4K_BLOCKS{SECTORS * 512, 4096, false};

// A ring on which one request stands, taken off it by the device.
struct Ring {
  FakeRam ram;
  FakeDriver driver{ram, 256};
  virtio::GuestMemory memory = ram.memory();
  virtio::Virtqueue queue{memory, driver.layout(), driver.ringFeatures()};

  Buffer header(uint32_t type, uint64_t sector) {
    virtio::BlkRequestHeader header{type, 0, sector};
    return driver.readableBuffer(kj::arrayPtr(&header, 1).asBytes());
  }
  Buffer out(uint32_t length) { return readable(ram.allocate(length), length); }
  Buffer in(uint32_t length) { return driver.writableBuffer(length); }
  Chain take(std::initializer_list<Buffer> buffers) {
    driver.add(buffers);
    return KJ_ASSERT_NONNULL(queue.pop());
  }
  Request parsed(std::initializer_list<Buffer> buffers, const DiskShape& shape = DISK) {
    Chain chain = take(buffers);
    return KJ_ASSERT_NONNULL(parse(chain, shape));
  }
  // Of a request that is refused; 255 for one that is not.
  int refusal(std::initializer_list<Buffer> buffers, const DiskShape& shape = DISK) {
    Request request = parsed(buffers, shape);
    return request.kind == Request::Kind::REFUSED ? request.status : 255;
  }
};

TEST(BlkRequest, ReadTakesWhatIsWritableBeforeTheStatus) {
  Ring ring;
  Chain chain = ring.take({ring.header(virtio::BLK_T_IN, 3), ring.in(1024), ring.in(1)});
  auto request = KJ_ASSERT_NONNULL(parse(chain, DISK));
  EXPECT_EQ(request.kind, Request::Kind::READ);
  EXPECT_EQ(request.offset, 3 * 512);
  EXPECT_EQ(request.bytes, 1024);
  EXPECT_EQ(chain.writableBytes(), 1024);
}

TEST(BlkRequest, StatusMayBeTheLastByteOfTheDataBuffer) {
  Ring ring;
  EXPECT_EQ(ring.parsed({ring.header(virtio::BLK_T_IN, 0), ring.in(513)}).bytes, 512);
}

TEST(BlkRequest, WriteTakesWhatIsReadableBehindTheHeader) {
  Ring ring;
  auto request = ring.parsed({ring.header(virtio::BLK_T_OUT, 63), ring.out(512), ring.in(1)});
  EXPECT_EQ(request.kind, Request::Kind::WRITE);
  EXPECT_EQ(request.offset, 63 * 512);
  EXPECT_EQ(request.bytes, 512);
}

TEST(BlkRequest, FlushAndGetIdAreRecognized) {
  Ring ring;
  EXPECT_EQ(ring.parsed({ring.header(virtio::BLK_T_FLUSH, 0), ring.in(1)}).kind,
            Request::Kind::FLUSH);
  EXPECT_EQ(ring.parsed({ring.header(virtio::BLK_T_GET_ID, 0), ring.in(20), ring.in(1)}).kind,
            Request::Kind::GET_ID);
}

TEST(BlkRequest, BLK01_HeaderMaySplitIntoSingleBytes) {
  Ring ring;
  virtio::BlkRequestHeader header{virtio::BLK_T_IN, 0, 5};
  kj::Vector<Buffer> buffers;
  for (kj::byte byte : kj::arrayPtr(&header, 1).asBytes())
    buffers.add(ring.driver.readableBuffer(kj::arrayPtr(&byte, 1)));
  buffers.add(ring.in(512));
  buffers.add(ring.in(1));
  ring.driver.add(buffers);
  Chain chain = KJ_ASSERT_NONNULL(ring.queue.pop());
  auto request = KJ_ASSERT_NONNULL(parse(chain, DISK));
  EXPECT_EQ(request.kind, Request::Kind::READ);
  EXPECT_EQ(request.offset, 5 * 512);
}

TEST(BlkRequest, BLK01_HeaderAndDataOfAWriteMayShareABuffer) {
  Ring ring;
  virtio::BlkRequestHeader header{virtio::BLK_T_OUT, 0, 1};
  kj::byte both[sizeof(header) + 512] = {};
  memcpy(both, &header, sizeof(header));
  Buffer buffer = ring.driver.readableBuffer(both);
  EXPECT_EQ(ring.parsed({buffer, ring.in(1)}).bytes, 512);
}

TEST(BlkRequest, BLK01_HeaderOf15BytesIsRefused) {
  Ring ring;
  Buffer header = ring.header(virtio::BLK_T_IN, 0);
  header.length = 15;
  EXPECT_EQ(ring.refusal({header, ring.in(512), ring.in(1)}), virtio::BLK_S_IOERR);
}

TEST(BlkRequest, BLK01_HeaderOf17BytesIsRefused) {
  Ring ring;
  Buffer header = ring.header(virtio::BLK_T_IN, 0);
  header.length = 17;
  EXPECT_EQ(ring.refusal({header, ring.in(512), ring.in(1)}), virtio::BLK_S_IOERR);
  Buffer write = ring.header(virtio::BLK_T_OUT, 0);
  write.length = 17;
  EXPECT_EQ(ring.refusal({write, ring.in(1)}), virtio::BLK_S_IOERR);
  Buffer flush = ring.header(virtio::BLK_T_FLUSH, 0);
  flush.length = 17;
  EXPECT_EQ(ring.refusal({flush, ring.in(1)}), virtio::BLK_S_IOERR);
}

TEST(BlkRequest, BLK01_NoHeaderAtAllIsRefused) {
  Ring ring;
  EXPECT_EQ(ring.refusal({ring.in(1)}), virtio::BLK_S_IOERR);
}

TEST(BlkRequest, VQ03_WithoutAStatusByteNothingCanBeAnswered) {
  Ring ring;
  Chain chain = ring.take({ring.header(virtio::BLK_T_OUT, 0), ring.out(512)});
  EXPECT_TRUE(parse(chain, DISK) == nullptr);
}

TEST(BlkRequest, BLK02_SumPastTheEndIsRefused) {
  Ring ring;
  Buffer last = ring.header(virtio::BLK_T_IN, SECTORS - 1);
  EXPECT_EQ(ring.refusal({last, ring.in(512), ring.in(1)}), 255);
  last = ring.header(virtio::BLK_T_IN, SECTORS - 1);
  EXPECT_EQ(ring.refusal({last, ring.in(1024), ring.in(1)}), virtio::BLK_S_IOERR);
  last = ring.header(virtio::BLK_T_IN, SECTORS);
  EXPECT_EQ(ring.refusal({last, ring.in(512), ring.in(1)}), virtio::BLK_S_IOERR);
}

TEST(BlkRequest, BLK02_SectorsWhoseByteOffsetOverflowsAreRefused) {
  Ring ring;
  // 2^64 / 512 and its neighbours come back to the disk's beginning when multiplied carelessly.
  for (uint64_t sector : {~0ull, 1ull << 55, (1ull << 55) + 1, (1ull << 63), ~0ull - 1}) {
    for (uint32_t type : {virtio::BLK_T_IN, virtio::BLK_T_OUT}) {
      Buffer data = type == virtio::BLK_T_IN ? ring.in(512) : ring.out(512);
      EXPECT_EQ(ring.refusal({ring.header(type, sector), data, ring.in(1)}), virtio::BLK_S_IOERR)
          << sector;
    }
  }
}

TEST(BlkRequest, BLK02_EmptyTransferAtTheEndIsAllowedAndBehindItRefused) {
  Ring ring;
  EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_IN, SECTORS), ring.in(1)}), 255);
  EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_IN, SECTORS + 1), ring.in(1)}),
            virtio::BLK_S_IOERR);
}

TEST(BlkRequest, SizesThatAreNoMultipleOf512AreRefused) {
  Ring ring;
  for (uint32_t size : {1u, 511u, 513u, 1000u}) {
    EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_IN, 0), ring.in(size), ring.in(1)}),
              virtio::BLK_S_IOERR);
    EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_OUT, 0), ring.out(size), ring.in(1)}),
              virtio::BLK_S_IOERR);
  }
}

TEST(BlkRequest, PlacesOffTheBlocksOfADirectDiskAreRefused) {
  Ring ring;
  auto read = [&](uint64_t sector, uint32_t bytes) {
    return ring.refusal({ring.header(virtio::BLK_T_IN, sector), ring.in(bytes), ring.in(1)},
                        DISK_OF_4K_BLOCKS);
  };
  EXPECT_EQ(read(8, 4096), 255);
  EXPECT_EQ(read(1, 4096), virtio::BLK_S_IOERR);
  EXPECT_EQ(read(0, 512), virtio::BLK_S_IOERR);
}

TEST(BlkRequest, BLK03_UnknownTypesAreUnsupported) {
  Ring ring;
  for (uint32_t type : {2u, 3u, 5u, 7u, 9u, 10u, 12u, 14u, 0x80000000u, ~0u}) {
    EXPECT_EQ(ring.refusal({ring.header(type, 0), ring.in(512), ring.in(1)}), virtio::BLK_S_UNSUPP)
        << type;
  }
}

TEST(BlkRequest, BLK03_WriteToAReadOnlyDiskIsRefused) {
  Ring ring;
  EXPECT_EQ(
      ring.refusal({ring.header(virtio::BLK_T_OUT, 0), ring.out(512), ring.in(1)}, READ_ONLY_DISK),
      virtio::BLK_S_IOERR);
  EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_FLUSH, 0), ring.in(1)}, READ_ONLY_DISK), 255);
}

TEST(BlkRequest, DataInTheWrongDirectionIsRefused) {
  Ring ring;
  EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_IN, 0), ring.out(512), ring.in(1)}),
            virtio::BLK_S_IOERR);
  EXPECT_EQ(ring.refusal({ring.header(virtio::BLK_T_OUT, 0), ring.in(512), ring.in(1)}),
            virtio::BLK_S_IOERR);
}

TEST(BlkRequest, RequestsBeyondWhatWasAnnouncedAreRefused) {
  FakeRam ram(1 << 20);
  FakeDriver driver(ram, 256);
  auto memory = ram.memory();
  virtio::Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
  virtio::BlkRequestHeader header{virtio::BLK_T_IN, 0, 0};
  kj::Vector<Buffer> buffers;
  buffers.add(driver.readableBuffer(kj::arrayPtr(&header, 1).asBytes()));
  for (int i = 0; i < 128; i++)  // the same half megabyte again and again: 64 MiB
    buffers.add(writable(512 << 10, 512 << 10));
  buffers.add(driver.writableBuffer(1));
  driver.add(buffers);
  Chain chain = KJ_ASSERT_NONNULL(queue.pop());
  auto request = KJ_ASSERT_NONNULL(parse(chain, DiskShape{1ull << 40, 512, false}));
  EXPECT_EQ(request.kind, Request::Kind::REFUSED);
  EXPECT_EQ(request.status, virtio::BLK_S_IOERR);
}

}  // namespace
}  // namespace troupe::blk
