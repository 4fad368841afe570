#include "devices/blk/qcow2/testing/tagged_disk.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

namespace troupe::blk::qcow2::testing {
namespace {

uint64_t tagOf(const kj::byte* sector) {
  uint64_t tag;
  memcpy(&tag, sector, sizeof(tag));
  return tag;
}

}  // namespace

TaggedDisk::TaggedDisk(uint64_t bytes, uint64_t seed)
    : random(seed), possible(bytes / SECTOR, std::vector<uint64_t>{0}), uncertain(bytes / SECTOR) {}

void TaggedDisk::adopt(kj::ArrayPtr<const kj::byte> contents) {
  for (uint64_t i = 0; i < possible.size(); i++)
    possible[i] = {tagOf(contents.begin() + i * SECTOR)};
}

TaggedDisk::Place TaggedDisk::choose() {
  uint64_t longest = random() % 8 == 0 ? 1024 : 64;
  uint64_t count = 1 + random() % std::min(longest, uint64_t(possible.size()));
  return {random() % (possible.size() - count + 1), count};
}

int TaggedDisk::step(Image& image, ImageFile& file) {
  switch (random() % 16) {
    case 0:
      return flush(image);
    case 1:
      return clear(image, file, choose(), true);
    case 2:
    case 3:
      return clear(image, file, choose(), false);
    default:
      return write(image, file, choose());
  }
}

int TaggedDisk::flush(Image& image) {
  int error = image.flush();
  if (error != 0) return error;
  for (uint64_t i = 0; i < possible.size(); i++) {
    if (!uncertain[i]) possible[i] = {possible[i].back()};
  }
  return 0;
}

void TaggedDisk::note(Place place, int error) {
  for (uint64_t i = place.first; i < place.first + place.count; i++)
    uncertain[i] = error != 0;
}

template <typename Request>
int TaggedDisk::attempt(Place place, Request&& request) {
  int error = 0;
  try {
    error = request();
  } catch (...) {
    note(place, -EINTR);
    throw;
  }
  note(place, error);
  return error;
}

int TaggedDisk::write(Image& image, ImageFile& file, Place place) {
  auto bytes = kj::heapArray<kj::byte>(place.count * SECTOR);
  for (uint64_t i = 0; i < place.count; i++) {
    uint64_t tag = nextTag++;
    for (size_t at = 0; at < SECTOR; at += sizeof(tag))
      memcpy(bytes.begin() + i * SECTOR + at, &tag, sizeof(tag));
    possible[place.first + i].push_back(tag);
  }
  return attempt(place, [&] { return WholeDisk(image, file).write(place.first * SECTOR, bytes); });
}

int TaggedDisk::clear(Image& image, ImageFile& file, Place place, bool discarding) {
  auto before = std::vector<uint64_t>();
  for (uint64_t i = 0; i < place.count; i++) {
    before.push_back(possible[place.first + i].back());
    possible[place.first + i].push_back(0);
  }
  uint64_t offset = place.first * SECTOR;
  uint64_t bytes = place.count * SECTOR;
  auto space = random() % 2 == 0 ? Image::Space::KEEP : Image::Space::GIVE_BACK;
  int error = attempt(place, [&] {
    return discarding ? image.discard(offset, bytes) : image.writeZeroes(offset, bytes, space);
  });
  if (!discarding) return error;
  // Which clusters were meant is the image's business: ask it.
  for (uint64_t i = 0; i < place.count; i++) {
    kj::byte sector[SECTOR];
    int unread = WholeDisk(image, file).read(offset + i * SECTOR, sector);
    if (unread != 0 || tagOf(sector) != 0) possible[place.first + i].push_back(before[i]);
  }
  return error;
}

uint64_t TaggedDisk::wrong(kj::ArrayPtr<const kj::byte> contents) const {
  return count(contents, false);
}

uint64_t TaggedDisk::wrongForOneThatWentOn(kj::ArrayPtr<const kj::byte> contents) const {
  return count(contents, true);
}

void TaggedDisk::learn(kj::ArrayPtr<const kj::byte> contents) {
  for (uint64_t i = 0; i < possible.size(); i++) {
    if (uncertain[i]) possible[i].push_back(tagOf(contents.begin() + i * SECTOR));
    uncertain[i] = false;
  }
}

uint64_t TaggedDisk::count(kj::ArrayPtr<const kj::byte> contents, bool onlyLast) const {
  uint64_t wrongSectors = 0;
  for (uint64_t i = 0; i < possible.size(); i++) {
    const kj::byte* sector = contents.begin() + i * SECTOR;
    uint64_t tag = tagOf(sector);
    bool whole = true;
    for (size_t at = 0; at < SECTOR; at += sizeof(tag))
      whole = whole && tagOf(sector + at) == tag;
    const auto& tags = possible[i];
    bool isLast = tag == tags.back();
    bool isAny = std::find(tags.begin(), tags.end(), tag) != tags.end();
    if (!whole || !(onlyLast && !uncertain[i] ? isLast : isAny)) wrongSectors++;
  }
  return wrongSectors;
}

}  // namespace troupe::blk::qcow2::testing
