// libFuzzer: calls of the C interface in any order, with tensors, camera frames and options of any
// kind. What is said to lie at a pointer does, and not a byte more.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "Net_c.h"

namespace {
constexpr unsigned char kRight[] = {
#include "right.inc"
};
constexpr std::size_t kMost = 1 << 16;

// Memory of exactly some bytes, of which only the last may not be written beyond.
struct Exact {
  explicit Exact(std::size_t bytes) : data(static_cast<std::uint8_t*>(std::calloc(bytes == 0 ? 1 : bytes, 1))) {
    if (bytes == 0) data = static_cast<std::uint8_t*>(std::realloc(data, 1));
  }
  ~Exact() { std::free(data); }
  Exact(const Exact&) = delete;
  Exact& operator=(const Exact&) = delete;
  std::uint8_t* data;
};

std::size_t Bytes(int type) {
  const std::size_t sizes[] = {4, 2, 1, 1, 4, 8, 1, 8, 2, 2, 4, 8};
  return type >= 0 && type < 12 ? sizes[type] : 1;
}

int Length(FuzzedDataProvider& data, int usual) {
  return data.ConsumeBool() ? usual : data.ConsumeIntegral<std::int16_t>();
}

NetMat MatOf(FuzzedDataProvider& data, const NetTensor* like) {
  NetMat mat = {};
  mat.height = Length(data, like->height);
  mat.width = Length(data, like->width);
  mat.channels = Length(data, like->channels);
  mat.type = data.ConsumeBool() ? like->type : data.ConsumeIntegralInRange<int>(-3, 14);
  if (data.ConsumeBool()) mat.stride = data.ConsumeIntegral<std::uint16_t>();
  return mat;
}

// Bytes that a Mat of these lengths takes; 0 where nobody has as many.
std::size_t Needed(const NetMat& mat) {
  if (mat.height <= 0 || mat.width <= 0 || mat.channels <= 0) return 0;
  const std::size_t row = static_cast<std::size_t>(mat.width) * static_cast<std::size_t>(mat.channels) * Bytes(mat.type);
  const std::size_t stride = mat.stride == 0 ? row : mat.stride;
  const std::size_t all = static_cast<std::size_t>(mat.height - 1) * stride + row;
  return all > kMost * 16 ? 0 : all;
}

void Check(int error) {
  if (error > NetOk || error < -40) std::abort();
  if (Net_error_text(error) == nullptr) std::abort();
}

struct Planes {
  Exact* memory[3] = {};
  ~Planes() {
    for (Exact* each : memory) delete each;
  }
};

// Columns, rows and bytes of an element of a plane, 0 where a format has none.
void PlaneOf(int format, int plane, int width, int height, std::size_t* columns, std::size_t* rows, std::size_t* bytes) {
  const std::size_t w = static_cast<std::size_t>(width), h = static_cast<std::size_t>(height);
  const bool chroma = plane > 0;
  *columns = chroma ? (w + 1) / 2 : w;
  *rows = chroma ? (h + 1) / 2 : h;
  switch (format) {
    case NetNV12: case NetNV21: *bytes = chroma ? (plane == 1 ? 2 : 0) : 1; break;
    case NetI420: case NetYUV_420_888: *bytes = 1; break;
    case NetP010: *bytes = chroma ? (plane == 1 ? 4 : 0) : 2; break;
    case NetBGRA: case NetRGBA: *bytes = chroma ? 0 : 4; break;
    case NetRGB: case NetBGR: *bytes = chroma ? 0 : 3; break;
    default: *bytes = chroma ? 0 : 1;
  }
}

void Frame(FuzzedDataProvider& data, NetHandle* network) {
  NetFrame frame = {};
  frame.format = data.ConsumeIntegralInRange<int>(-1, 10);
  frame.width = data.ConsumeBool() ? data.ConsumeIntegralInRange<int>(0, 60) : data.ConsumeIntegral<int>();
  frame.height = data.ConsumeBool() ? data.ConsumeIntegralInRange<int>(0, 60) : data.ConsumeIntegral<int>();
  frame.rotation = data.ConsumeBool() ? data.ConsumeIntegralInRange<int>(0, 3) * 90 : data.ConsumeIntegral<int>();
  frame.mirror = data.ConsumeBool();
  if (data.ConsumeBool()) {
    for (int* each : {&frame.crop_x, &frame.crop_y, &frame.crop_width, &frame.crop_height})
      *each = data.ConsumeBool() ? data.ConsumeIntegralInRange<int>(0, 60) : data.ConsumeIntegral<int>();
  }
  frame.use_region = data.ConsumeBool();
  if (frame.use_region != 0) {
    for (float* each : {&frame.region.xx, &frame.region.xy, &frame.region.x0, &frame.region.yx, &frame.region.yy, &frame.region.y0})
      *each = data.ConsumeBool() ? data.ConsumeFloatingPointInRange<float>(-4, 4) : data.ConsumeFloatingPoint<float>();
  }
  Planes planes;
  for (int i = 0; i < 3; ++i) {
    std::size_t columns = 0, rows = 0, bytes = 0;
    PlaneOf(frame.format, i, frame.width, frame.height, &columns, &rows, &bytes);
    const int usual = static_cast<int>(bytes);
    frame.steps[i] = data.ConsumeBool() ? usual : data.ConsumeIntegralInRange<int>(-1, 5);
    const std::size_t step = frame.steps[i] > 0 ? static_cast<std::size_t>(frame.steps[i]) : bytes;
    const std::size_t touching = columns * step;
    frame.strides[i] = data.ConsumeBool() ? touching + data.ConsumeIntegralInRange<std::size_t>(0, 9)
                                          : data.ConsumeIntegral<std::uint16_t>();
    if (bytes == 0 || frame.width <= 0 || frame.height <= 0 || frame.width > 400 || frame.height > 400) continue;
    if (data.ConsumeIntegralInRange<int>(0, 30) == 0) continue;  // no plane where one belongs
    planes.memory[i] = new Exact((rows - 1) * frame.strides[i] + (columns - 1) * step + bytes);
    frame.planes[i] = planes.memory[i]->data;
  }
  NetMat output = MatOf(data, Net_output(0));
  Exact memory(Needed(output));
  output.data = Needed(output) == 0 ? nullptr : memory.data;
  Check(Net_infer_frame(network, &frame, &output));
  NetTransform transform;
  Check(Net_transform_to(&frame, &transform));
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider data(bytes, size);
  NetHandle* network = Net_create();
  if (network == nullptr) return 0;
  while (data.remaining_bytes() > 0) {
    switch (data.ConsumeIntegralInRange<int>(0, 7)) {
      case 0:
        Check(Net_init_memory(network, kRight, sizeof(kRight), nullptr));
        break;
      case 1: {
        NetInitOptions options = {};
        options.checksum = data.ConsumeIntegral<std::int8_t>();
        options.threads = data.ConsumeIntegral<std::int8_t>();
        const std::string given = data.ConsumeRandomLengthString(100);
        Check(Net_init_memory(network, given.data(), given.size(), &options));
        Check(Net_init_file(network, data.ConsumeIntegralInRange<int>(-2, 2), data.ConsumeIntegral<std::uint64_t>(),
                            data.ConsumeIntegral<std::uint64_t>(), &options));
        break;
      }
      case 2: {
        NetMat input = MatOf(data, Net_input(0)), output = MatOf(data, Net_output(0));
        Exact in(Needed(input)), out(Needed(output));
        input.data = Needed(input) == 0 ? nullptr : in.data;
        output.data = Needed(output) == 0 ? nullptr : out.data;
        Check(Net_infer(network, data.ConsumeBool() ? &input : nullptr, data.ConsumeBool() ? &output : nullptr));
        break;
      }
      case 3: {
        const int number = data.ConsumeIntegral<std::int8_t>();
        if ((Net_input(number) != nullptr) != (number == 0)) std::abort();
        if (Net_target(network) == nullptr || std::strlen(Net_target(network)) == 0) std::abort();
        Check(Net_init(nullptr, nullptr, nullptr));
        break;
      }
      default:
        Frame(data, network);
    }
  }
  Net_destroy(network);
  return 0;
}
