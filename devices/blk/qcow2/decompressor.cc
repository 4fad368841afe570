#include "devices/blk/qcow2/decompressor.h"

#include <kj/debug.h>
#include <zlib.h>
#include <zstd.h>

namespace troupe::blk::qcow2 {
namespace {

// Raw deflate with a window of 4 KiB, as the specification of the format has it.
class Inflate final: public Decompressor {
 public:
  Inflate() : stream{} { KJ_ASSERT(inflateInit2(&stream, -12) == Z_OK, "no memory for zlib"); }
  ~Inflate() noexcept(false) { inflateEnd(&stream); }
  KJ_DISALLOW_COPY(Inflate);

  bool unpack(kj::ArrayPtr<const kj::byte> from, kj::ArrayPtr<kj::byte> to) override {
    if (inflateReset(&stream) != Z_OK) return false;
    stream.next_in = const_cast<kj::byte*>(from.begin());
    stream.avail_in = from.size();
    stream.next_out = to.begin();
    stream.avail_out = to.size();
    int result = inflate(&stream, Z_FINISH);
    // BUF_ERROR: all bytes are there, and the end mark alone had no room to be looked at.
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
  }

 private:
  z_stream stream;
};

// In one step, so that the frame's own window, however large, takes no memory.
class Zstd final: public Decompressor {
 public:
  Zstd() : context(ZSTD_createDCtx()) { KJ_ASSERT(context != nullptr, "no memory for zstd"); }
  ~Zstd() noexcept(false) { ZSTD_freeDCtx(context); }
  KJ_DISALLOW_COPY(Zstd);

  bool unpack(kj::ArrayPtr<const kj::byte> from, kj::ArrayPtr<kj::byte> to) override {
    size_t frame = ZSTD_findFrameCompressedSize(from.begin(), from.size());
    if (ZSTD_isError(frame)) return false;
    size_t got = ZSTD_decompressDCtx(context, to.begin(), to.size(), from.begin(), frame);
    return !ZSTD_isError(got) && got == to.size();
  }

 private:
  ZSTD_DCtx* context;
};

}  // namespace

kj::Own<Decompressor> makeDecompressor(Compression compression) {
  if (compression == Compression::ZSTD) return kj::heap<Zstd>();
  return kj::heap<Inflate>();
}

}  // namespace troupe::blk::qcow2
