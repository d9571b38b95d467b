// Calls Init on every file named on stdin, on fresh instances and on one that is kept, and prints
// "fresh kept infer": Init's results, and that of infer on the kept instance after it.
#include <iostream>
#include <string>
#include <vector>

#include "Block.h"

int main() {
  Block kept;
  std::vector<float> image(3 * 16 * 16, 0.5F), logits(10);
  Block::Mat in(image.data(), 16, 16, 3), out(logits.data(), 1, 1, 10);
  std::string path;
  while (std::getline(std::cin, path)) {
    Block fresh;
    const int first = fresh.Init(path.c_str());
    const int second = kept.Init(path.c_str());
    std::cout << first << ' ' << second << ' ' << kept.infer(in, out) << '\n';
  }
}
