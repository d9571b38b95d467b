// An example of Block: reads raw inputs, runs once, prints the largest output.
//   Block_example Block.weights image.raw
#include <cstdio>
#include <vector>

#include "Block.h"

namespace {

// The first `count` bytes of a file; false if there are fewer.
bool Read(const char* path, void* to, std::size_t count) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  const std::size_t got = std::fread(to, 1, count, file);
  std::fclose(file);
  return got == count;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s WEIGHTS IMAGE\n", argv[0]);
    return 2;
  }
  Block network;
  int error = network.Init(argv[1]);
  if (error != Block::kOk) {
    std::fprintf(stderr, "%s\n", Block::ErrorText(error));
    return 1;
  }
  std::vector<float> image_data(768);
  Block::Mat image_mat(image_data.data(), 16, 16, 3, Block::Mat::kFloat32);
  std::vector<float> logits_data(10);
  Block::Mat logits_mat(logits_data.data(), 1, 1, 10, Block::Mat::kFloat32);
  if (!Read(argv[2], image_data.data(), 3072)) {
    std::fprintf(stderr, "%s: expected 3072 bytes\n", argv[2]);
    return 1;
  }
  error = network.infer(image_mat, logits_mat);
  if (error != Block::kOk) {
    std::fprintf(stderr, "%s\n", Block::ErrorText(error));
    return 1;
  }
  std::size_t best = 0;
  for (std::size_t i = 1; i < logits_data.size(); ++i) {
    if (logits_data[i] > logits_data[best]) best = i;
  }
  std::printf("largest of logits: %zu, value %g\n", best, static_cast<double>(logits_data[best]));
  return 0;
}
