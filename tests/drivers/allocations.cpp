// Counts what the program asks of the C library's heap (C++'s new asks there too) in Init and in
// infer, and prints both counts.
#include <cerrno>
#include <cstddef>
#include <cstdio>

#include "Block.h"

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {
int counted = 0;
}

extern "C" {
void* malloc(std::size_t bytes) {
  ++counted;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  ++counted;
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  ++counted;
  return __libc_realloc(old, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  ++counted;
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  ++counted;
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) {
  ++counted;
  *result = __libc_memalign(alignment, bytes);
  return *result == nullptr ? ENOMEM : 0;
}
}

int main(int, char** argv) {
  static float image[16 * 16 * 3];
  static float logits[10];
  Block network;
  Block::Mat in(image, 16, 16, 3), out(logits, 1, 1, 10);
  int before = counted;
  if (network.Init(argv[1]) != Block::kOk) return 1;
  const int init = counted - before;
  before = counted;
  for (int i = 0; i < 3; ++i) {
    if (network.infer(in, out) != Block::kOk) return 2;
  }
  const int infer = counted - before;
  std::printf("%d %d\n", init, infer);
  return 0;
}
