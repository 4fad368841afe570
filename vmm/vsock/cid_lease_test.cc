#include "vmm/vsock/cid_lease.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/memory.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "vmm/files/run_folder.h"

namespace troupe {
namespace {

// Far from those that VMs of this machine may have now, and no other test's: for root the folder is
// everybody's.
const uint64_t CID = 4000000000 + getpid();

std::string fileOf(uint64_t cid) {
  return std::string(runFolder().cStr()) + "/cid-" + std::to_string(cid);
}

TEST(CidLease, ACidBelongsToOneVmAtATime) {
  auto first = kj::heap<CidLease>(CID);
  EXPECT_EQ(first->cid(), CID);
  try {
    CidLease second(CID);
    ADD_FAILURE() << "two have it";
  } catch (const kj::Exception& exception) {
    EXPECT_TRUE(
        exception.getDescription().startsWith(kj::str("TRP-vsk-003: --vsock cid=", CID, ": ")));
  }
  first = nullptr;
  CidLease third(CID);
}

TEST(CidLease, TheFileGoesWithIt) {
  {
    CidLease lease(CID);
    EXPECT_EQ(access(fileOf(CID).c_str(), F_OK), 0);
  }
  EXPECT_NE(access(fileOf(CID).c_str(), F_OK), 0);
}

TEST(CidLease, WhatAKilledVmLeftIsTakenOver) {
  int fd = open(fileOf(CID).c_str(), O_CREAT | O_WRONLY, 0600);
  ASSERT_GE(fd, 0);
  close(fd);
  CidLease lease(CID);
}

TEST(CidLease, OneThatIsFreeIsFound) {
  CidLease first(nullptr);
  CidLease second(nullptr);
  EXPECT_GE(first.cid(), 3);
  EXPECT_NE(first.cid(), second.cid());
}

// They remove what dead VMs left.
TEST(CidLease, SurvivesThoseWhoListVms) {
  CidLease lease(CID);
  auto before = livingVms();
  for (auto& name : before)
    EXPECT_FALSE(name.startsWith("cid-")) << name.cStr();
  EXPECT_EQ(access(fileOf(CID).c_str(), F_OK), 0);
}

}  // namespace
}  // namespace troupe
