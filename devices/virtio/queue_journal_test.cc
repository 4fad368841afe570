#include "devices/virtio/queue_journal.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::virtio {
namespace {

using testing::FakeDriver;
using testing::FakeRam;
using testing::readable;
using testing::writable;

constexpr uint16_t SIZE = 16;
constexpr RingFeatures FEATURES = {true, true};

struct Fixture {
  Fixture() : driver(ram, SIZE, FEATURES), memory(ram.memory()), journal(words.asBytes()) {
    journal.clear(SIZE, 1);
  }

  uint16_t add() { return driver.add({readable(0x8000, 16), writable(0x9000, 64)}); }
  kj::ArrayPtr<uint64_t> entry(uint16_t head) { return words.slice(8 + 2 * head, 10 + 2 * head); }

  FakeRam ram{0x10000};
  FakeDriver driver;
  GuestMemory memory;
  kj::Array<uint64_t> words = kj::heapArray<uint64_t>(QueueJournal::bytesFor(SIZE) / 8);
  QueueJournal journal;
};

// One process of a device, which ends without a word when this goes.
struct Process {
  explicit Process(Fixture& f)
      : journal(f.words.asBytes()), queue(f.memory, f.driver.layout(), FEATURES, journal) {}
  Process(Fixture& f, bool ownFault, Suspects suspects = Suspects::TOGETHER,
          kj::Maybe<Quarantine&> quarantine = nullptr)
      : Process(f) {
    resumed = queue.resume(ownFault, 0, suspects, quarantine, 3);
  }
  Chain pop() {
    auto chain = queue.pop();
    return kj::mv(KJ_REQUIRE_NONNULL(chain));
  }

  QueueJournal journal;
  Virtqueue queue;
  bool resumed = false;
};

TEST(QueueJournal, SuccessorGetsWhatWasInFlightInTheOrderItWasTaken) {
  Fixture f;
  uint16_t heads[4];
  for (auto& head : heads)
    head = f.add();
  {
    Process first(f);
    first.pop();
    Chain b = first.pop();
    first.pop();
    first.queue.push(kj::mv(b), 0);
    first.queue.publish();
  }
  Process second(f, false);
  ASSERT_TRUE(second.resumed);
  EXPECT_TRUE(second.queue.hasWork());
  EXPECT_EQ(second.pop().head(), heads[0]);
  EXPECT_EQ(second.pop().head(), heads[2]);
  EXPECT_EQ(second.pop().head(), heads[3]);  // which nobody had taken
  EXPECT_TRUE(second.queue.pop() == nullptr);
  EXPECT_EQ(KJ_ASSERT_NONNULL(f.driver.takeUsed()).head, heads[1]);
}

TEST(QueueJournal, WhatTheDriverWasNotToldOfIsInFlight) {
  Fixture f;
  uint16_t head = f.add();
  {
    Process first(f);
    first.queue.push(first.pop(), 0);
  }
  Process second(f, false);
  ASSERT_TRUE(second.resumed);
  Chain again = second.pop();
  EXPECT_EQ(again.head(), head);
  second.queue.push(kj::mv(again), 3);
  second.queue.publish();
  EXPECT_EQ(KJ_ASSERT_NONNULL(f.driver.takeUsed()).written, 3);
  EXPECT_TRUE(f.driver.takeUsed() == nullptr);
}

TEST(QueueJournal, ABatchTheDriverKnowsOfAndTheJournalDoesNotIsOver) {
  Fixture f;
  f.add();
  uint16_t later = f.add();
  uint64_t told;
  {
    Process first(f);
    first.queue.push(first.pop(), 0);
    first.pop();
    told = f.words[0];
    first.queue.publish();
  }
  f.words[0] = told;  // it died just before it could note that
  Process second(f, false);
  ASSERT_TRUE(second.resumed);
  EXPECT_EQ(second.pop().head(), later);
  EXPECT_TRUE(second.queue.pop() == nullptr);
}

TEST(QueueJournal, CountsDeathsInARowThatWereTheProcesssOwnFault) {
  Fixture f;
  f.add();
  {
    Process first(f);
    first.pop();
  }
  {
    Process second(f, true);
    EXPECT_EQ(second.pop().deaths(), 1);
  }
  {
    Process third(f, false);
    EXPECT_EQ(third.pop().deaths(), 1);
  }
  Process fourth(f, true);
  uint16_t fresh = f.add();
  EXPECT_EQ(fourth.pop().deaths(), 2);
  Chain next = fourth.pop();
  EXPECT_EQ(next.head(), fresh);
  EXPECT_EQ(next.deaths(), 0);
}

TEST(QueueJournal, OneThatWasDoneIsNotBlamedForADeathBeforeTheDriverWasTold) {
  Fixture f;
  f.add();
  f.add();
  {
    Process first(f);
    Chain done = first.pop();
    first.pop();
    first.queue.push(kj::mv(done), 0);
  }
  Process second(f, true);
  EXPECT_EQ(second.pop().deaths(), 0);
  EXPECT_EQ(second.pop().deaths(), 1);
}

TEST(QueueJournal, ADeathIsNotTheFaultOfWhatTheProcessHadNotComeTo) {
  Fixture f;
  f.add();
  f.add();
  {
    Process first(f);
    first.pop();
    first.pop();
  }
  {
    Process second(f, false);
    second.pop();
  }
  {
    Process third(f, true);
    EXPECT_EQ(third.pop().deaths(), 1);
  }
  Process fourth(f, true);
  EXPECT_TRUE(fourth.pop().isDeadly());
  EXPECT_EQ(fourth.pop().deaths(), 0);
}

TEST(QueueJournal, ASuspectIsTriedAlone) {
  Fixture f;
  for (int i = 0; i < 3; i++)
    f.add();
  {
    Process first(f);
    for (int i = 0; i < 3; i++)
      first.pop();
  }
  uint16_t fresh = f.add();
  Process second(f, true, Suspects::ALONE);
  for (int i = 0; i < 3; i++) {
    Chain suspect = second.pop();
    EXPECT_EQ(suspect.deaths(), 1);
    EXPECT_FALSE(second.queue.hasWork());
    EXPECT_TRUE(second.queue.pop() == nullptr);
    second.queue.push(kj::mv(suspect), 0);
    EXPECT_TRUE(second.queue.hasWork());
  }
  EXPECT_EQ(second.pop().head(), fresh);
  EXPECT_FALSE(second.queue.broken());
}

TEST(QueueJournal, TheNextDeathIsTheFaultOfWhoWasTriedAlone) {
  Fixture f;
  uint16_t heads[3];
  for (auto& head : heads)
    head = f.add();
  {
    Process first(f);
    for (int i = 0; i < 3; i++)
      first.pop();
  }
  {
    Process second(f, true, Suspects::ALONE);
    second.queue.push(second.pop(), 0);
    second.queue.publish();
    second.pop();  // and dies of it
  }
  auto memory = kj::heapArray<uint64_t>(2048);
  memset(memory.begin(), 0, memory.asBytes().size());
  Quarantine quarantine(memory.asBytes());
  Process third(f, true, Suspects::ALONE, quarantine);
  Chain deadly = third.pop();
  EXPECT_EQ(deadly.head(), heads[1]);
  EXPECT_TRUE(deadly.isDeadly());
  third.queue.push(kj::mv(deadly), 0);
  Chain innocent = third.pop();
  EXPECT_EQ(innocent.head(), heads[2]);
  EXPECT_FALSE(innocent.isDeadly());
  third.queue.push(kj::mv(innocent), 0);
  ASSERT_EQ(quarantine.count(), 1);
  auto kept = quarantine.read(0);
  auto& found = KJ_ASSERT_NONNULL(kept);
  EXPECT_EQ(found.request.queue, 3);
  EXPECT_EQ(found.request.head, heads[1]);
  EXPECT_EQ(found.request.sequence, 2);
  EXPECT_EQ(found.request.readableBytes, 16);
  EXPECT_EQ(found.request.writableBytes, 64);
  EXPECT_EQ(found.bytes.size(), 16);
}

TEST(QueueJournal, ADeathThatWasNotTheSuspectsFaultDoesNotCount) {
  Fixture f;
  f.add();
  {
    Process first(f);
    first.pop();
  }
  {
    Process second(f, true, Suspects::ALONE);
    EXPECT_EQ(second.pop().deaths(), 1);
  }
  {
    Process third(f, false, Suspects::ALONE);  // somebody killed the second
    EXPECT_EQ(third.pop().deaths(), 1);
  }
  Process fourth(f, true, Suspects::ALONE);
  EXPECT_TRUE(fourth.pop().isDeadly());
}

TEST(QueueJournal, KnowsTheActivationItBelongsTo) {
  Fixture f;
  EXPECT_TRUE(f.journal.isOf(1));
  EXPECT_FALSE(f.journal.isOf(2));
  f.journal.clear(SIZE, 2);
  EXPECT_TRUE(f.journal.isOf(2));
  EXPECT_FALSE(f.journal.isOf(1));
}

TEST(QueueJournal, UsedIndexTheJournalDoesNotBearOutBreaksTheRing) {
  for (uint16_t usedIndex : {1, 2, 17, 0xffff}) {
    Fixture f;
    f.add();
    {
      Process first(f);
      first.pop();
    }
    auto index = f.ram.bytes(f.driver.layout().usedRing + USED_INDEX_OFFSET, 2);
    storeIndex(index.begin(), usedIndex);
    Process second(f, false);
    EXPECT_FALSE(second.resumed) << usedIndex;
    EXPECT_TRUE(second.queue.broken());
    EXPECT_TRUE(second.queue.pop() == nullptr);
  }
}

TEST(QueueJournal, NonsenseIsRefused) {
  auto refused = [](auto&& spoil) {
    Fixture f;
    f.add();
    f.add();
    {
      Process first(f);
      first.pop(), first.pop();
    }
    spoil(f);
    Process second(f, false);
    return !second.resumed;
  };
  uint16_t a = SIZE - 1, b = SIZE - 1;  // heads of the two chains
  {
    Fixture f;
    a = f.add(), b = f.add();
  }
  EXPECT_FALSE(refused([&](Fixture&) {}));
  EXPECT_TRUE(refused([&](Fixture& f) { f.words[0] = ~0ull; }));
  EXPECT_TRUE(refused([&](Fixture& f) { f.words[0] = SIZE + 1; }));
  EXPECT_TRUE(refused([&](Fixture& f) { f.entry(a)[0] = f.entry(b)[0]; }));
  EXPECT_TRUE(refused([&](Fixture& f) { f.entry(a)[0] = (1ull << 56) - 1; }));
  EXPECT_TRUE(refused([&](Fixture& f) { f.entry(a)[1] = ~0ull; }));
  EXPECT_TRUE(refused([&](Fixture& f) { f.entry(SIZE - 1)[1] = 7; }));
}

// Any words at all: either refused, or at most as many chains as there are, none twice.
TEST(QueueJournal, SurvivesRandomWords) {
  std::mt19937_64 random(7);
  uint32_t resumed = 0;
  for (int round = 0; round < 10000; round++) {
    Fixture f;
    for (int i = 0; i < 6; i++)
      f.add();
    {
      Process first(f);
      for (int i = random() % 5; i > 0; i--) {
        Chain chain = first.pop();
        if (random() % 2) first.queue.push(kj::mv(chain), 0);
        if (random() % 2) first.queue.publish();
      }
    }
    for (int i = random() % 3; i > 0; i--) {
      uint64_t value = random() % 2 ? random() : random() % 64;
      f.words[random() % f.words.size()] = value;
    }
    Process second(f, random() % 2);
    uint32_t popped = 0;
    while (second.queue.pop() != nullptr)
      ++popped;
    EXPECT_LE(popped, SIZE);
    resumed += second.resumed;
  }
  EXPECT_GT(resumed, 500);
  EXPECT_LT(resumed, 9500);
}

// Real deaths: a child process takes and returns chains in memory it shares with us, and is killed
// wherever it is. Its successors finish; every chain comes back once.
TEST(QueueJournal, NothingIsLostOrReturnedTwiceWhereverAProcessIsKilled) {
  constexpr int DEATHS = 100;
  FakeRam ram(0x10000);
  FakeDriver driver(ram, SIZE, FEATURES);
  GuestMemory memory = ram.memory();
  size_t bytes = QueueJournal::bytesFor(SIZE);
  void* shared = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto words = kj::arrayPtr(static_cast<kj::byte*>(shared), bytes);
  QueueJournal(words).clear(SIZE, 1);

  std::mt19937 random(11);
  uint64_t added = 0, returned = 0;
  bool out[SIZE] = {};
  auto serveGuest = [&] {
    KJ_IF_MAYBE (used, driver.takeUsed()) {
      ASSERT_LT(used->head, SIZE);
      ASSERT_TRUE(out[used->head]) << "returned twice";
      out[used->head] = false;
      ++returned;
    }
    if (added - returned < 7) {
      uint16_t head = driver.add({readable(0x8000, 16), writable(0x9000, 64)});
      out[head] = true;
      ++added;
    }
  };
  for (int death = 0; death < DEATHS; death++) {
    pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      QueueJournal journal(words);
      Virtqueue queue(memory, driver.layout(), FEATURES, journal);
      if (!queue.resume(false)) _exit(3);
      std::minstd_rand choice(death + 1);
      kj::Vector<Chain> held;
      for (;;) {
        KJ_IF_MAYBE (chain, queue.pop()) {
          held.add(kj::mv(*chain));
        }
        if (queue.broken()) _exit(4);
        if (held.size() > choice() % 5) {
          size_t which = choice() % held.size();
          std::swap(held[which], held.back());
          queue.push(kj::mv(held.back()), 0);
          held.removeLast();
        }
        if (choice() % 3 == 0) queue.publish();
      }
    }
    uint64_t goal = returned + random() % 100;
    while (returned < goal && !HasFatalFailure()) {
      serveGuest();
      int status;
      ASSERT_EQ(waitpid(child, &status, WNOHANG), 0) << "the child ended by itself: " << status;
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (HasFatalFailure()) break;
  }
  QueueJournal journal(words);
  Virtqueue queue(memory, driver.layout(), FEATURES, journal);
  ASSERT_TRUE(queue.resume(false));
  for (auto chain = queue.pop(); chain != nullptr; chain = queue.pop()) {
    queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 0);
  }
  queue.publish();
  for (;;) {
    KJ_IF_MAYBE (used, driver.takeUsed()) {
      ASSERT_TRUE(out[used->head]);
      out[used->head] = false;
      ++returned;
    } else {
      break;
    }
  }
  EXPECT_EQ(returned, added);
  EXPECT_GT(returned, 1000);
  munmap(shared, bytes);
}

}  // namespace
}  // namespace troupe::virtio
