// Names what a camera frame shows: nv21_classifier FRAME WIDTH HEIGHT ROTATION, after
//   mdlc examples/digits_mobilenet.onnx --name Digits --recipe examples/digits.toml
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Digits.h"

int main(int, char** argv) {
  const int width = std::atoi(argv[2]), height = std::atoi(argv[3]);
  std::vector<unsigned char> nv21(static_cast<std::size_t>(width * height * 3 / 2));
  std::FILE* file = std::fopen(argv[1], "rb");
  if (file == nullptr || std::fread(nv21.data(), 1, nv21.size(), file) != nv21.size()) return 2;
  const std::size_t stride = static_cast<std::size_t>(width);
  Digits::Frame frame = Digits::Frame::NV21(nv21.data(), stride, nv21.data() + width * height, stride, width, height);
  frame.rotation = std::atoi(argv[4]);
  Digits digits;
  Digits::Classes classes;
  int error = digits.Init("Digits.weights");
  if (error == Digits::kOk) error = digits.infer(frame, classes);
  if (error != Digits::kOk) return std::puts(Digits::ErrorText(error)), 1;
  std::printf("%s: %.2f\n", Digits::Label(classes.item[0].label), static_cast<double>(classes.item[0].score));
}
