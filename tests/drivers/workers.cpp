// A class of 3 threads: infer without allocations, workers that sleep, numbers of threads refused.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#include "Block.h"

static long allocations = 0;

void* operator new(std::size_t size) {
  ++allocations;
  return std::malloc(size);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

int main(int, char** argv) {
  Block network;
  for (int wrong : {0, -1, 4}) {
    Block::InitOptions options;
    options.threads = wrong;
    if (network.Init(argv[1], options) != Block::kBadThreads) return 1;
  }
  std::vector<float> image(16 * 16 * 3, 0.5F), logits(10), first(10);
  Block::Mat in(image.data(), 16, 16, 3), out(logits.data(), 1, 1, 10);
  for (int threads : {1, 2, 3}) {
    Block::InitOptions options;
    options.threads = threads;
    if (network.Init(argv[1], options) != Block::kOk) return 2;
    const long before = allocations;
    for (int i = 0; i < 200; ++i) {
      if (network.infer(in, out) != Block::kOk) return 3;
    }
    if (allocations != before) return 4;
    if (threads == 1) first = logits;
    if (logits != first) return 5;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const std::clock_t start = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const double busy = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  if (busy > 0.1) return 6;
  // From a thread of the app's own.
  int error = Block::kOk;
  std::thread app([&] { error = network.infer(in, out); });
  app.join();
  return error == Block::kOk && logits == first ? 0 : 7;
}
