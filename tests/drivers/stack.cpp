// Prints how many bytes of stack a thread has touched that calls infer, less those that one has
// touched that calls nothing: both run on painted memory.
#include <pthread.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "Block.h"

namespace {
constexpr std::size_t kStack = 1 << 20;
float image[3 * 16 * 16];
float logits[10];

void* Nothing(void*) { return nullptr; }
void* Infer(void* network) {
  Block::Mat in(image, 16, 16, 3), out(logits, 1, 1, 10);
  static_cast<Block*>(network)->infer(in, out);
  return nullptr;
}

std::size_t Touched(void* (*body)(void*), void* argument) {
  std::vector<unsigned char> memory(kStack + 4096, 0xA5);
  unsigned char* start = memory.data() + (4096 - reinterpret_cast<std::size_t>(memory.data()) % 4096);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, start, kStack);
  pthread_t thread;
  pthread_create(&thread, &attributes, body, argument);
  pthread_join(thread, nullptr);
  std::size_t untouched = 0;
  while (untouched < kStack && start[untouched] == 0xA5) ++untouched;
  return kStack - untouched;
}
}  // namespace

int main(int, char** argv) {
  Block network;
  if (network.Init(argv[1]) != Block::kOk) return 1;
  Infer(&network);  // the dynamic linker resolves what it calls
  const std::size_t nothing = Touched(&Nothing, nullptr);
  std::printf("%zu %zu\n", Touched(&Infer, &network), nothing);
}
