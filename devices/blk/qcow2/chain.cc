#include "devices/blk/qcow2/chain.h"

#include <kj/debug.h>
#include <kj/vector.h>

namespace troupe::blk::qcow2 {
namespace {

constexpr size_t MOST_HEADER_BYTES = 64 << 10;  // of a first cluster; extensions lie in front of it

AlignedBytes readStart(ImageFile& file) {
  AlignedBytes start(MOST_HEADER_BYTES);
  int error = readFully(file, start.all(), 0);
  KJ_REQUIRE(error == 0, "TRP-blk-026: the qcow2 image cannot be read", "header", strerror(-error));
  return start;
}

kj::StringPtr nameOf(ImageFormat format) {
  return format == ImageFormat::RAW ? "raw"_kj : "qcow2"_kj;
}

// A name out of a file, for a message.
kj::String shown(kj::StringPtr name) {
  auto text = kj::heapString(name);
  for (char& letter : text) {
    if (letter < ' ' || letter == 0x7f) letter = '?';
  }
  return text;
}

[[noreturn]] void refuse(kj::String problem) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str("TRP-blk-024: the ", problem)));
}

void checkBacking(const Header& header, const ChainFile& image, kj::Maybe<const ChainFile&> below) {
  auto self = kj::str("qcow2 image ", image.path);
  KJ_IF_MAYBE (name, header.backingName) {
    auto meant = resolveName(image.path, *name);
    KJ_IF_MAYBE (next, below) {
      if (meant != next->path) {
        refuse(kj::str(self, " has the backing file ", shown(meant), ", but backing= names ",
                       next->path));
      }
      KJ_IF_MAYBE (format, header.backingFormat) {
        if (*format != nameOf(next->format)) {
          refuse(kj::str(self, " says that its backing file is ", shown(*format),
                         ", but backing= says ", nameOf(next->format)));
        }
      }
      return;
    }
    refuse(kj::str(self, " has the backing file ", shown(meant), ", which no backing= names"));
  }
  KJ_IF_MAYBE (next, below) {
    refuse(kj::str(self, " has no backing file, but backing= names ", next->path));
  }
}

kj::Own<Layer> openLayer(kj::ArrayPtr<const ChainFile> files, uint8_t index);

kj::Own<Image> openImage(kj::ArrayPtr<const ChainFile> files, uint8_t index, Access access,
                         kj::Maybe<MappingJournal&> kept = nullptr) {
  const ChainFile& self = files[index];
  AlignedBytes start = readStart(self.file);
  Header header = parseHeader(start.all(), self.file.size(), access);
  kj::Maybe<const ChainFile&> below;
  kj::Maybe<kj::Own<Layer>> backing;
  if (index + 1u < files.size()) below = files[index + 1];
  checkBacking(header, self, below);
  if (below != nullptr) backing = openLayer(files, index + 1);
  return kj::heap<Image>(self.file, index, kj::mv(header), start.all(), access, kj::mv(backing),
                         kept);
}

kj::Own<Layer> openLayer(kj::ArrayPtr<const ChainFile> files, uint8_t index) {
  const ChainFile& self = files[index];
  if (self.format == ImageFormat::QCOW2) return openImage(files, index, Access::READ_ONLY);
  if (index + 1u < files.size()) {
    refuse(kj::str("raw image ", self.path, " can have no backing file, but backing= names ",
                   files[index + 1].path));
  }
  return kj::heap<RawLayer>(self.file, index, self.file.size());
}

}  // namespace

kj::String resolveName(kj::StringPtr path, kj::StringPtr name) {
  if (name.startsWith("/")) return kj::heapString(name);
  KJ_IF_MAYBE (slash, path.findLast('/')) {
    return kj::str(path.slice(0, *slash + 1), name);
  }
  return kj::heapString(name);
}

kj::Own<Image> openChain(kj::ArrayPtr<const ChainFile> files, Access access,
                         kj::Maybe<MappingJournal&> kept) {
  KJ_REQUIRE(files.size() >= 1 && files.size() <= MOST_CHAIN_FILES &&
                 files[0].format == ImageFormat::QCOW2,
             "a chain is a qcow2 image and at most eight files below it", files.size());
  return openImage(files, 0, access, kept);
}

}  // namespace troupe::blk::qcow2
