#include "devices/balloon/queue_roles.h"

#include <gtest/gtest.h>

#include <string>

#include "devices/balloon/wire.h"

namespace troupe::balloon {
namespace {

// A letter for each queue: what it is for.
std::string roles(uint64_t features, uint32_t enabled) {
  std::string letters;
  for (uint16_t i = 0; i < ROLE_COUNT + 2; i++) {
    KJ_IF_MAYBE (role, roleOf(i, features, enabled)) {
      letters += "IDSHR"[int(*role)];
    } else {
      letters += '-';
    }
  }
  return letters;
}

constexpr uint64_t ALL = F_STATS_VQ | F_FREE_PAGE_HINT | F_PAGE_REPORTING;

TEST(QueueRoles, AreNumberedAsTheSpecificationSays) {
  EXPECT_EQ(roles(ALL, 0b11111), "IDSHR--");
  EXPECT_EQ(roles(F_FREE_PAGE_HINT | F_PAGE_REPORTING, 0b11011), "ID-HR--");
  EXPECT_EQ(roles(F_PAGE_REPORTING, 0b10011), "ID--R--");
  EXPECT_EQ(roles(F_STATS_VQ | F_PAGE_REPORTING, 0b10111), "IDS-R--");
  EXPECT_EQ(roles(0, 0b00011), "ID-----");
}

TEST(QueueRoles, OfADriverThatLeavesOutWhatItDoesNotUseAreCounted) {
  EXPECT_EQ(roles(F_FREE_PAGE_HINT | F_PAGE_REPORTING, 0b01111), "IDHR---");
  EXPECT_EQ(roles(F_PAGE_REPORTING, 0b00111), "IDR----");
  EXPECT_EQ(roles(F_STATS_VQ | F_PAGE_REPORTING, 0b01111), "IDSR---");
}

TEST(QueueRoles, WhatWasNotNegotiatedHasNone) {
  EXPECT_EQ(roles(0, 0b11111), "ID-----");
  EXPECT_EQ(roles(F_STATS_VQ, 0b00011), "IDS----");
  EXPECT_EQ(roles(F_PAGE_REPORTING, 0b11111), "ID--R--");
}

}  // namespace
}  // namespace troupe::balloon
