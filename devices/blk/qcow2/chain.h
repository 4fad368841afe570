#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>
#include <kj/string.h>

#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {

enum class ImageFormat : uint8_t { RAW, QCOW2 };

// One file of a chain, as the configuration says it.
struct ChainFile {
  ImageFile& file;
  ImageFormat format;
  kj::StringPtr path;
};

constexpr size_t MOST_CHAIN_FILES = 9;  // a disk and eight below it

// Opens an image with all that lies below it. files[0] is the disk itself, a qcow2 image; the rest
// are its backing files from top to bottom, which are only read.
//
// A header leads nowhere by itself: the backing name in it must be the path of the next file, and a
// format it names that file's. A relative name is meant from the folder of the image it stands in,
// so "base.qcow2" in /images/vm.qcow2 is /images/base.qcow2; names are compared as text.
// `kept`: of the disk itself, see Image. Throws TRP-blk-020 to 030.
kj::Own<Image> openChain(kj::ArrayPtr<const ChainFile> files, Access access,
                         kj::Maybe<MappingJournal&> kept = nullptr);

// What the backing name `name`, in the image at `path`, means.
kj::String resolveName(kj::StringPtr path, kj::StringPtr name);

}  // namespace troupe::blk::qcow2
