// What compiled kernels need of the simulator: textures, arguments, and how threads wait for each
// other. Everything else is simulator.h, which kernels do not include.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simulator {

struct Size {
  unsigned x = 1, y = 1, z = 1;
};

struct Position {
  Size grid, group, local, group_size, groups;
  unsigned index = 0;  // of the thread in its group
};

// Ends the program with a message, printf's way.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// What a heap knows of each 8 bytes: which texture wrote them, and in which dispatch.
struct Shadow {
  std::uint32_t* owner = nullptr;
  std::uint32_t* dispatch = nullptr;
};

// The number of the running dispatch.
extern std::uint32_t dispatch_number;

struct Image {
  enum Format { kHalf, kFloat, kInt, kBytes };
  unsigned width = 0, height = 0, layers = 0;
  Format format = kHalf;
  unsigned char* data = nullptr;
  Shadow* shadow = nullptr;      // of the heap; none for textures outside a heap
  std::size_t first = 0;         // index of data in the shadow, in units of 8 bytes
  std::uint32_t id = 0;

  static std::size_t TexelBytes(Format format) { return format == kHalf ? 8 : format == kBytes ? 4 : 16; }
  std::size_t bytes() const { return TexelBytes(format) * width * height * layers; }

  std::size_t Index(unsigned x, unsigned y, unsigned layer, Format as) const {
    if (x >= width || y >= height || layer >= layers) {
      Fail("texel (%u, %u) of slice %u is outside a texture of %u x %u x %u slices", x, y, layer, width, height, layers);
    }
    if (as != format) Fail("a texture is read or written as another type than it has");
    return (static_cast<std::size_t>(layer) * height + y) * width + x;
  }
  const void* At(unsigned x, unsigned y, unsigned layer, Format as) const {
    const std::size_t index = Index(x, y, layer, as), texel = TexelBytes(format);
    if (shadow != nullptr && shadow->owner[first + index * (texel / 8)] != id) {
      Fail("texel (%u, %u) of slice %u is read, but nothing wrote it", x, y, layer);
    }
    return data + index * texel;
  }
  void* Written(unsigned x, unsigned y, unsigned layer, Format as) {
    const std::size_t index = Index(x, y, layer, as), texel = TexelBytes(format);
    if (shadow != nullptr) {
      for (std::size_t i = 0; i < texel / 8; ++i) {
        const std::size_t at = first + index * (texel / 8) + i;
        if (shadow->owner[at] == id && shadow->dispatch[at] == dispatch_number) {
          Fail("texel (%u, %u) of slice %u is written twice", x, y, layer);
        }
        shadow->owner[at] = id;
        shadow->dispatch[at] = dispatch_number;
      }
    }
    return data + index * texel;
  }
};

// Waiting for the other threads of the group, or of the simdgroup.
void GroupBarrier();
void SimdBarrier();

// Counts a function of the whole simdgroup, which all its threads must have called as often when
// they next wait; whether this is the first of them, which does the work.
bool AllReach();

// Leaves a value for the other threads of the simdgroup; all their values, once all are there.
struct Lanes {
  const float* values;
  unsigned self, count;
};
Lanes Exchange(float x);

template <class F>
inline float SimdFrom(float x, F from) {
  const Lanes lanes = Exchange(x);
  const unsigned lane = from(lanes.self);
  const float found = lane < lanes.count ? lanes.values[lane] : x;
  SimdBarrier();
  return found;
}

template <class F>
inline float SimdReduce(float x, F combine) {
  const Lanes lanes = Exchange(x);
  float total = lanes.values[0];
  for (unsigned i = 1; i < lanes.count; ++i) total = combine(total, lanes.values[i]);
  SimdBarrier();
  return total;
}

// An atomic is no race with another atomic.
inline unsigned FetchAdd(unsigned* at, unsigned by) { return __atomic_fetch_add(at, by, __ATOMIC_RELAXED); }

// The arguments of one dispatch, by index.
struct Arguments {
  static constexpr int kMost = 16;
  Image* textures[kMost] = {};
  unsigned char* buffers[kMost] = {};
  unsigned char* threadgroup_memory[kMost] = {};
};

// A kernel by name; each enters itself in a list when the program starts.
struct Kernel {
  const char* name;
  bool waits;  // uses barriers, threadgroup memory or simdgroup functions
  unsigned textures, buffers;
  void (*call)(const Arguments&, const Position&);
  const Kernel* next = nullptr;
};
extern const Kernel* first_kernel;

struct Registration {
  explicit Registration(Kernel k) : kernel(k) {
    kernel.next = first_kernel;
    first_kernel = &kernel;
  }
  Kernel kernel;
};

}  // namespace simulator
