// What infer says of arguments that do not fit; exits with the number of the first check that fails.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "Block.h"

int main(int, char** argv) {
  std::vector<float> image(16 * 16 * 3, 0.25F), wide(16 * 64, 0.0F), logits(10, -1.0F);
  Block::Mat in(image.data(), 16, 16, 3), out(logits.data(), 1, 1, 10);
  int check = 0;
  const auto expect = [&check](bool holds) {
    ++check;
    if (!holds) std::exit(check);
  };
  Block network;
  expect(network.infer(in, out) == Block::kNotInitialised);
  expect(network.Init(nullptr) == Block::kFileMissing);
  expect(network.infer(in, out) == Block::kNotInitialised);
  expect(network.Init(argv[1]) == Block::kOk);
  expect(network.Init(argv[1]) == Block::kOk);  // again: starts over

  // Inputs.
  Block::Mat bad = in;
  bad.data = nullptr;
  expect(network.infer(bad, out) == Block::kBadInput);
  for (int wrong : {0, -1, 15, 17, 1 << 30}) {
    bad = in;
    bad.height = wrong;
    expect(network.infer(bad, out) == Block::kBadInput);
    bad = in;
    bad.width = wrong;
    expect(network.infer(bad, out) == Block::kBadInput);
    bad = in;
    bad.channels = wrong;
    expect(network.infer(bad, out) == Block::kBadInput);
  }
  for (Block::Mat::Type type : {Block::Mat::kFloat16, Block::Mat::kUint8, Block::Mat::kInt32}) {
    bad = in;
    bad.type = type;
    expect(network.infer(bad, out) == Block::kBadInput);
  }
  bad = in;
  bad.stride = 16 * 3 * 4 - 1;
  expect(network.infer(bad, out) == Block::kBadInput);

  // Outputs.
  bad = out;
  bad.data = nullptr;
  expect(network.infer(in, bad) == Block::kBadOutput);
  bad = out;
  bad.channels = 11;
  expect(network.infer(in, bad) == Block::kBadOutput);
  bad = out;
  bad.type = Block::Mat::kUint8;
  expect(network.infer(in, bad) == Block::kBadOutput);
  bad = out;
  bad.stride = 39;
  expect(network.infer(in, bad) == Block::kBadOutput);
  for (float value : logits) expect(value == -1.0F);  // no error has touched it

  // The same picture in a wider one gives the same answer.
  expect(network.infer(in, out) == Block::kOk);
  const std::vector<float> answer = logits;
  expect(answer[0] != -1.0F);
  for (int y = 0; y < 16; ++y) {
    std::memcpy(&wide[64 * static_cast<std::size_t>(y)], &image[48 * static_cast<std::size_t>(y)],
                48 * sizeof(float));
  }
  Block::Mat roi(wide.data(), 16, 16, 3, Block::Mat::kFloat32, 64 * sizeof(float));
  expect(network.infer(roi, out) == Block::kOk);
  expect(logits == answer);

  // From something like a cv::Mat.
  struct Picture {
    float* data;
    int rows, cols;
    std::size_t step;
    int channels() const { return 3; }
  } picture{wide.data(), 16, 16, 64 * sizeof(float)};
  Block::Mat from = Block::Mat::From(picture, Block::Mat::kFloat32);
  expect(network.infer(from, out) == Block::kOk);
  expect(logits == answer);

  for (int code = 1; code > -14; --code) {
    expect(Block::ErrorText(code) != nullptr);
    expect((std::strcmp(Block::ErrorText(code), "unknown error") == 0) == (code > 0 || code < -12));
  }
  return 0;
}
