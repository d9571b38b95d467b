// libFuzzer: weights that Init is given, and edits of the right ones that get past the checksums,
// so that the decoder sees them. The right file is built in as kRight (right.inc).
#include "Block.cpp"

#include <cstdlib>
#include <vector>

namespace {
constexpr unsigned char kRight[] = {
#include "right.inc"
};

void Store32(unsigned char* to, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<unsigned char>(value >> (8 * i));
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace Block_internal;
  if (size == 0) return 0;
  static Block kept;
  const unsigned mode = data[0];
  Block::InitOptions options;
  if (mode & 1U) options.checksum = Block::InitOptions::kNever;
  // A buffer of exactly its size, at any place, so that a sanitizer sees what is read beside it.
  const std::size_t shift = mode >> 5U;
  std::vector<unsigned char> file;
  if (mode & 2U) {
    // Edits: a place of two bytes, and what stands there.
    file.assign(kRight, kRight + sizeof(kRight));
    for (std::size_t i = 1; i + 2 < size; i += 3) {
      const std::size_t at = (static_cast<std::size_t>(data[i]) << 8U | data[i + 1]) % file.size();
      file[at] = data[i + 2];
    }
    if (mode & 4U) {
      Store32(file.data() + 56, Crc32(file.data() + kHeaderBytes, file.size() - kHeaderBytes));
      Store32(file.data() + 60, Crc32(file.data(), 60));
    }
    if (mode & 8U) file.resize(size * 97 % (file.size() + 1));
  } else {
    file.assign(data + 1, data + size);
  }
  unsigned char* memory = static_cast<unsigned char*>(std::malloc(file.size() + shift + 1));
  if (!file.empty()) std::memcpy(memory + shift, file.data(), file.size());
  unsigned char* exact = static_cast<unsigned char*>(std::realloc(memory, file.size() + shift));
  static float image[16 * 16 * 3], logits[10];
  Block::Mat in(image, 16, 16, 3), out(logits, 1, 1, 10);
  for (Block* network : {&kept, new Block}) {
    const int error = network->Init(exact + shift, file.size(), options);
    if (error > Block::kOk || error < -20) std::abort();
    const int found = network->infer(in, out);
    if (found != (error == Block::kOk ? Block::kOk : Block::kNotInitialised)) std::abort();
    if (network != &kept) delete network;
  }
  std::free(exact);
  return 0;
}
