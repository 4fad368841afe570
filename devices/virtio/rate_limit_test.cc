#include "devices/virtio/rate_limit.h"

#include <gtest/gtest.h>

#include <thread>

namespace troupe::virtio {
namespace {

constexpr uint64_t MS = 1000000;
constexpr uint64_t START = 1000000000000;

TEST(TokenBucket, WithoutLimitNobodyWaits) {
  TokenBucket bucket(0, 0);
  for (int i = 0; i < 100; i++)
    bucket.take(~0ull, START);
  EXPECT_EQ(bucket.waitNs(START), 0);
}

TEST(TokenBucket, ABurstPassesAndThenTheRateHolds) {
  TokenBucket bucket(1000, 10);  // one a millisecond, ten at once
  for (int i = 0; i < 10; i++) {
    EXPECT_EQ(bucket.waitNs(START), 0) << i;
    bucket.take(1, START);
  }
  bucket.take(1, START);  // the eleventh goes into debt
  EXPECT_EQ(bucket.waitNs(START), 1 * MS);
  EXPECT_EQ(bucket.waitNs(START + 1 * MS), 0);
}

TEST(TokenBucket, ALongRestEarnsNoMoreThanABurst) {
  TokenBucket bucket(1000, 10);
  bucket.take(1, START);
  uint64_t later = START + 3600ull * 1000 * MS;
  bucket.take(30, later);
  EXPECT_EQ(bucket.waitNs(later), 20 * MS);
}

TEST(TokenBucket, ARequestLargerThanTheBucketPassesAndIsPaidFor) {
  TokenBucket bucket(1 << 20, 4096);
  EXPECT_EQ(bucket.waitNs(START), 0);
  bucket.take(64 << 20, START);
  EXPECT_GT(bucket.waitNs(START), 63 * 1000 * MS);
}

TEST(TokenBucket, NoSizeOverflows) {
  TokenBucket bucket(1, 1);
  bucket.take(~0ull, START);
  EXPECT_GT(bucket.waitNs(START), 0);
  bucket.take(~0ull, START);
  EXPECT_GT(bucket.waitNs(START), 0);
}

TEST(TokenBucket, OverTimeTheRateIsExact) {
  TokenBucket bucket(1000000, 1000);
  uint64_t now = START;
  uint64_t taken = 0;
  while (now < START + 1000 * MS) {
    if (bucket.waitNs(now) == 0) {
      bucket.take(4096, now);
      taken += 4096;
    } else {
      now += bucket.waitNs(now);
    }
  }
  EXPECT_NEAR(double(taken), 1e6, 6000);
}

TEST(TokenBucket, ThreadsTogetherPayForAll) {
  TokenBucket bucket(1000, 1);
  auto takeMany = [&] {
    for (int i = 0; i < 10000; i++)
      bucket.take(1, START);
  };
  std::thread other(takeMany);
  takeMany();
  other.join();
  EXPECT_EQ(bucket.waitNs(START), (20000 - 1) * MS);
}

TEST(TokenBucket, RatesOutOfRangeAreRefused) {
  EXPECT_ANY_THROW(TokenBucket(TokenBucket::MAX_PER_SECOND + 1, 1));
  EXPECT_ANY_THROW(TokenBucket(1000, 0));
  EXPECT_ANY_THROW(TokenBucket(1000, 3601 * 1000));
  EXPECT_FALSE(TokenBucket::accepts(1000, 3601 * 1000));
  EXPECT_TRUE(TokenBucket::accepts(1000, 3600 * 1000));
}

}  // namespace
}  // namespace troupe::virtio
