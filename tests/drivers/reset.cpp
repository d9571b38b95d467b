// Sequences begin anew after Reset and Init, and two instances do not share their states.
#include <cstdio>
#include <vector>

#include "Block.h"

namespace {

struct Outputs {
  std::vector<float> y, z;
  bool operator==(const Outputs& other) const { return y == other.y && z == other.z; }
};

Outputs Step(Block& network, float value) {
  std::vector<float> x(24, value), step(4, value);
  Outputs found{std::vector<float>(40), std::vector<float>(4)};
  Block::Mat x_mat(x.data(), network.x.shape.height, network.x.shape.width, network.x.shape.channels);
  Block::Mat step_mat(step.data(), 1, 1, 4);
  Block::Mat z_mat(found.z.data(), 1, 1, 4);
  Block::Mat y_mat(found.y.data(), 1, 8, 5);
  if (network.infer(x_mat, step_mat, y_mat, z_mat) != Block::kOk) std::puts("infer failed");
  return found;
}

}  // namespace

int main(int, char** argv) {
  Block one, two;
  one.Reset();  // nothing to forget
  if (one.Init(argv[1]) != Block::kOk || two.Init(argv[1]) != Block::kOk) return 1;
  const Outputs first = Step(one, 1.0F);
  const Outputs second = Step(one, 1.0F);
  if (first == second) return 2;
  if (!(Step(two, 1.0F) == first)) return 3;
  one.Reset();
  if (!(Step(one, 1.0F) == first) || !(Step(one, 1.0F) == second)) return 4;
  if (!(Step(two, 1.0F) == second)) return 5;
  if (one.Init(argv[1]) != Block::kOk || !(Step(one, 1.0F) == first)) return 6;
  // What is refused leaves the states as they are.
  float none = 0;
  Block::Mat bad(&none, 1, 1, 1);
  if (one.infer(bad, bad, bad, bad) != Block::kBadInput) return 7;
  return Step(one, 1.0F) == second ? 0 : 8;
}
