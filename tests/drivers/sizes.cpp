// A class of several sizes takes each of them, in any order, and refuses all others.
#include <vector>

#include "Block.h"

namespace {

int Infer(Block& network, int height, int width, int output_height, int output_width) {
  std::vector<float> x(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3, 0.5F);
  std::vector<float> y(static_cast<std::size_t>(output_height) * static_cast<std::size_t>(output_width) * 4);
  Block::Mat x_mat(x.data(), height, width, 3), y_mat(y.data(), output_height, output_width, 4);
  return network.infer(x_mat, y_mat);
}

}  // namespace

int main(int, char** argv) {
  Block network;
  if (Infer(network, 16, 24, 16, 24) != Block::kNotInitialised) return 1;
  if (network.Init(argv[1]) != Block::kOk) return 2;
  for (int time = 0; time < 2; ++time) {
    if (Infer(network, 16, 24, 16, 24) != Block::kOk || Infer(network, 40, 40, 40, 40) != Block::kOk) return 3;
    if (Infer(network, 8, 8, 8, 8) != Block::kOk) return 4;
    if (Infer(network, 16, 40, 16, 40) != Block::kBadInput) return 5;  // of no size
    if (Infer(network, 8, 8, 16, 24) != Block::kBadOutput) return 6;   // of another size
  }
  return 0;
}
