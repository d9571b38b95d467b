// Two instances on two threads, many inferences each; exits 1 where the answers differ.
#include <thread>
#include <vector>

#include "Block.h"

namespace {

bool Work(const char* weights, std::vector<float>* answer) {
  Block network;
  std::vector<float> image(16 * 16 * 3, 0.75F);
  Block::Mat in(image.data(), 16, 16, 3), out(answer->data(), 1, 1, 10);
  if (network.Init(weights) != Block::kOk) return false;
  for (int i = 0; i < 50; ++i) {
    if (network.infer(in, out) != Block::kOk) return false;
  }
  return true;
}

}  // namespace

int main(int, char** argv) {
  std::vector<float> a(10), b(10);
  bool good = false;
  std::thread other([&] { good = Work(argv[1], &b); });
  const bool mine = Work(argv[1], &a);
  other.join();
  return mine && good && a == b ? 0 : 1;
}
