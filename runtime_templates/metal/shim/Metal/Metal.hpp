// A stand-in for the part of metal-cpp that mdlc's host classes use: the class's own text runs on
// any machine, its kernels in simulator.h. Names and signatures are metal-cpp's.
#pragma once

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../Foundation/Foundation.hpp"
#include "../simulator.h"

namespace MTL {

enum PixelFormat { PixelFormatInvalid = 0, PixelFormatBGRA8Unorm = 80, PixelFormatRGBA16Float = 115, PixelFormatRGBA32Sint = 124, PixelFormatRGBA32Float = 125 };
enum TextureType { TextureType2D = 2, TextureType2DArray = 3 };
enum StorageMode { StorageModeShared = 0, StorageModePrivate = 2 };
enum HeapType { HeapTypeAutomatic = 0, HeapTypePlacement = 1 };
enum CommandBufferStatus { CommandBufferStatusNotEnqueued = 0, CommandBufferStatusCompleted = 4, CommandBufferStatusError = 5 };
enum BarrierScope : NS::UInteger { BarrierScopeBuffers = 1, BarrierScopeTextures = 2 };
enum GPUFamily { GPUFamilyApple7 = 1007 };
using TextureUsage = NS::UInteger;
constexpr TextureUsage TextureUsageShaderRead = 1, TextureUsageShaderWrite = 2;
using ResourceOptions = NS::UInteger;
constexpr ResourceOptions ResourceStorageModeShared = 0;

struct Size {
  NS::UInteger width, height, depth;
};
struct SizeAndAlign {
  NS::UInteger size, align;
};
struct Origin {
  NS::UInteger x, y, z;
};
struct Region {
  Region(NS::UInteger x, NS::UInteger y, NS::UInteger width, NS::UInteger height) : origin{x, y, 0}, size{width, height, 1} {}
  Origin origin;
  Size size;
};

class TextureDescriptor : public NS::Counted<TextureDescriptor> {
 public:
  void setTextureType(TextureType type) { type_ = type; }
  void setPixelFormat(PixelFormat format) { format_ = format; }
  void setWidth(NS::UInteger width) { image_.width = static_cast<unsigned>(width); }
  void setHeight(NS::UInteger height) { image_.height = static_cast<unsigned>(height); }
  void setArrayLength(NS::UInteger count) { image_.layers = static_cast<unsigned>(count); }
  void setStorageMode(StorageMode) {}
  void setUsage(TextureUsage) {}

  simulator::Image image() const {
    simulator::Image image = image_;
    if (image.layers == 0) image.layers = 1;
    if (type_ == TextureType2D && image.layers != 1) simulator::Fail("a 2D texture of %u slices", image.layers);
    if (image.width == 0 || image.height == 0 || image.width > 16384 || image.height > 16384 || image.layers > 2048) {
      simulator::Fail("Metal has no texture of %u x %u x %u slices", image.width, image.height, image.layers);
    }
    switch (format_) {
      case PixelFormatRGBA16Float: image.format = simulator::Image::kHalf; break;
      case PixelFormatRGBA32Float: image.format = simulator::Image::kFloat; break;
      case PixelFormatRGBA32Sint: image.format = simulator::Image::kInt; break;
      case PixelFormatBGRA8Unorm: image.format = simulator::Image::kBytes; break;
      default: simulator::Fail("a pixel format that the simulator does not have");
    }
    return image;
  }
  PixelFormat pixelFormat() const { return format_; }

 private:
  simulator::Image image_;
  TextureType type_ = TextureType2D;
  PixelFormat format_ = PixelFormatInvalid;
};

class Texture : public NS::Counted<Texture> {
 public:
  NS::UInteger width() const { return image.width; }
  NS::UInteger height() const { return image.height; }
  NS::UInteger arrayLength() const { return image.layers; }
  PixelFormat pixelFormat() const { return format; }
  // Whole slices only.
  void getBytes(void* to, NS::UInteger row, NS::UInteger, Region region, NS::UInteger, NS::UInteger slice) {
    const std::size_t own = Row();
    for (std::size_t y = 0; y < region.size.height; ++y) {
      std::memcpy(static_cast<unsigned char*>(to) + y * row, image.data + (slice * image.height + y) * own, own);
    }
  }
  void replaceRegion(Region region, NS::UInteger, const void* from, NS::UInteger row) {
    for (std::size_t y = 0; y < region.size.height; ++y) {
      std::memcpy(image.data + y * Row(), static_cast<const unsigned char*>(from) + y * row, Row());
    }
  }
  simulator::Image image;
  PixelFormat format = PixelFormatInvalid;

 private:
  std::size_t Row() const { return simulator::Image::TexelBytes(image.format) * image.width; }
};

class Buffer : public NS::Counted<Buffer> {
 public:
  void* contents() { return data; }
  NS::UInteger length() const { return count; }
  unsigned char* data = nullptr;
  NS::UInteger count = 0;
};

class HeapDescriptor : public NS::Counted<HeapDescriptor> {
 public:
  void setType(HeapType type) { type_ = type; }
  void setSize(NS::UInteger size) { size_ = size; }
  void setStorageMode(StorageMode) {}
  HeapType type_ = HeapTypeAutomatic;
  NS::UInteger size_ = 0;
};

class Heap : public NS::Counted<Heap> {
 public:
  static constexpr NS::UInteger kAlign = 256;
  Texture* newTexture(const TextureDescriptor* descriptor, NS::UInteger offset) {
    static std::uint32_t last_id = 0;
    Texture* texture = new Texture;
    texture->image = descriptor->image();
    texture->format = descriptor->pixelFormat();
    simulator::Image& image = texture->image;
    if (offset % kAlign != 0 || offset + image.bytes() > size) simulator::Fail("a texture does not fit its heap at %zu", offset);
    image.data = data + offset;
    image.shadow = &shadow;
    image.first = offset / 8;
    image.id = ++last_id;
    return texture;
  }
  unsigned char* data = nullptr;
  NS::UInteger size = 0;
  simulator::Shadow shadow;
  std::vector<std::uint32_t> owners, dispatches;
};

class Function : public NS::Counted<Function> {
 public:
  const simulator::Kernel* kernel = nullptr;
};

class ComputePipelineState : public NS::Counted<ComputePipelineState> {
 public:
  NS::UInteger maxTotalThreadsPerThreadgroup() const { return 1024; }
  const simulator::Kernel* kernel = nullptr;
};

class Library : public NS::Counted<Library> {
 public:
  Function* newFunction(const NS::String* name) {
    const simulator::Kernel* found = simulator::FindKernel(name->utf8String());
    if (found == nullptr) return nullptr;
    Function* function = new Function;
    function->kernel = found;
    return function;
  }
};

class ComputeCommandEncoder : public NS::Counted<ComputeCommandEncoder> {
 public:
  void setComputePipelineState(const ComputePipelineState* state) { kernel_ = state->kernel; }
  void setTexture(const Texture* texture, NS::UInteger index) {
    Check(index);
    arguments_.textures[index] = texture == nullptr ? nullptr : const_cast<simulator::Image*>(&texture->image);
  }
  void setBuffer(const Buffer* buffer, NS::UInteger offset, NS::UInteger index) {
    Check(index);
    if (offset > buffer->count) simulator::Fail("a buffer is bound behind its end");
    arguments_.buffers[index] = buffer->data + offset;
    bound_[index] = Piece(buffer, offset);
  }
  void setThreadgroupMemoryLength(NS::UInteger length, NS::UInteger index) {
    Check(index);
    threadgroup_[index] = length;
  }
  void dispatchThreadgroups(Size groups, Size group) {
    if (kernel_ == nullptr) simulator::Fail("a dispatch without a pipeline");
    simulator::Bounds().clear();
    for (unsigned i = 0; i < kernel_->buffers; ++i) simulator::Bounds().push_back(bound_[i]);
    simulator::Run(*kernel_, arguments_, Narrow(groups), Narrow(group), threadgroup_);
  }
  void memoryBarrier(BarrierScope) {}  // dispatches run one after the other
  void endEncoding() {}

  // Parts of a buffer that are told apart: a kernel bound to one may not touch the next.
  static std::vector<std::pair<const unsigned char*, std::size_t>>& Pieces() {
    static std::vector<std::pair<const unsigned char*, std::size_t>> pieces;
    return pieces;
  }

 private:
  static void Check(NS::UInteger index) {
    if (index >= simulator::Arguments::kMost) simulator::Fail("argument index %zu", index);
  }
  static simulator::Size Narrow(Size s) {
    return {static_cast<unsigned>(s.width), static_cast<unsigned>(s.height), static_cast<unsigned>(s.depth)};
  }
  static simulator::Bound Piece(const Buffer* buffer, NS::UInteger offset) {
    const unsigned char* at = buffer->data + offset;
    for (const auto& piece : Pieces()) {
      if (piece.first == at) return {at, piece.second, true};
    }
    return {at, buffer->count - offset, true};
  }
  const simulator::Kernel* kernel_ = nullptr;
  simulator::Arguments arguments_;
  simulator::Bound bound_[simulator::Arguments::kMost] = {};
  std::size_t threadgroup_[simulator::Arguments::kMost] = {};
};

class CommandBuffer : public NS::Counted<CommandBuffer> {
 public:
  ComputeCommandEncoder* computeCommandEncoder() {
    encoder_ = ComputeCommandEncoder();
    return &encoder_;
  }
  void commit() {}
  void waitUntilCompleted() {}
  CommandBufferStatus status() const { return CommandBufferStatusCompleted; }

 private:
  ComputeCommandEncoder encoder_;
};

class CommandQueue : public NS::Counted<CommandQueue> {
 public:
  CommandBuffer* commandBuffer() { return &buffer_; }

 private:
  CommandBuffer buffer_;
};

class Device : public NS::Counted<Device> {
 public:
  // Apple6 (the A13), or the family whose number MDLC_METAL_FAMILY says: 7 for the A14 and the M1.
  bool supportsFamily(GPUFamily family) const {
    const char* wanted = std::getenv("MDLC_METAL_FAMILY");
    return family <= 1000 + (wanted != nullptr ? std::atoi(wanted) : 6);
  }
  Library* newDefaultLibrary() { return new Library; }
  Library* newLibrary(const NS::String*, NS::Error**) { return new Library; }
  ComputePipelineState* newComputePipelineState(const Function* function, NS::Error**) {
    ComputePipelineState* state = new ComputePipelineState;
    state->kernel = function->kernel;
    return state;
  }
  CommandQueue* newCommandQueue() { return new CommandQueue; }
  Buffer* newBuffer(NS::UInteger length, ResourceOptions) {
    Buffer* buffer = new Buffer;
    buffer->count = length;
    buffer->data = simulator::Memory::Get().Allocate(length);
    if (OnBuffer()) OnBuffer()(buffer);
    return buffer;
  }
  Texture* newTexture(const TextureDescriptor* descriptor) {
    Texture* texture = new Texture;
    texture->image = descriptor->image();
    texture->format = descriptor->pixelFormat();
    texture->image.data = simulator::Memory::Get().Allocate(texture->image.bytes());
    return texture;
  }
  // Told of every buffer, for those who know its parts.
  static std::function<void(const Buffer*)>& OnBuffer() {
    static std::function<void(const Buffer*)> told;
    return told;
  }
  SizeAndAlign heapTextureSizeAndAlign(const TextureDescriptor* descriptor) {
    const NS::UInteger bytes = descriptor->image().bytes();
    return {(bytes + Heap::kAlign - 1) / Heap::kAlign * Heap::kAlign, Heap::kAlign};
  }
  Heap* newHeap(const HeapDescriptor* descriptor) {
    if (descriptor->type_ != HeapTypePlacement) simulator::Fail("only placement heaps are simulated");
    Heap* heap = new Heap;
    heap->size = descriptor->size_;
    heap->data = simulator::Memory::Get().Allocate(heap->size);
    heap->owners.assign(heap->size / 8 + 1, 0);
    heap->dispatches.assign(heap->size / 8 + 1, 0);
    heap->shadow = {heap->owners.data(), heap->dispatches.data()};
    return heap;
  }
};

inline Device* CreateSystemDefaultDevice() { return new Device; }

}  // namespace MTL
