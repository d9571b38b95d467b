// Says where a camera frame shows faces: nv21_detector FRAME WIDTH HEIGHT ROTATION, after
//   mdlc ultraface_rfb320.onnx --name Faces --recipe examples/recipes/ultraface_rfb320.toml
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Faces.h"

int main(int, char** argv) {
  const int width = std::atoi(argv[2]), height = std::atoi(argv[3]);
  std::vector<unsigned char> nv21(static_cast<std::size_t>(width * height * 3 / 2));
  std::FILE* file = std::fopen(argv[1], "rb");
  if (file == nullptr || std::fread(nv21.data(), 1, nv21.size(), file) != nv21.size()) return 2;
  const std::size_t stride = static_cast<std::size_t>(width);
  Faces::Frame frame = Faces::Frame::NV21(nv21.data(), stride, nv21.data() + width * height, stride, width, height);
  frame.rotation = std::atoi(argv[4]);
  Faces faces;
  Faces::Boxes boxes;
  int error = faces.Init("Faces.weights");
  if (error == Faces::kOk) error = faces.infer(frame, boxes);
  if (error != Faces::kOk) return std::puts(Faces::ErrorText(error)), 1;
  for (const Faces::Box& box : boxes) std::printf("%.0f %.0f %.0f %.0f\n", box.left, box.top, box.right, box.bottom);
}
