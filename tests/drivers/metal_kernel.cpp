// Runs one kernel of the simulator on small arguments. Usage: driver KERNEL
#include <Metal/Metal.hpp>

#include "checks.h"

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  MTL::Device* device = MTL::CreateSystemDefaultDevice();
  MTL::Library* library = device->newDefaultLibrary();
  MTL::Function* function = library->newFunction(NS::String::string(argv[1], NS::UTF8StringEncoding));
  if (function == nullptr) return 2;
  NS::Error* error = nullptr;
  MTL::ComputePipelineState* pipeline = device->newComputePipelineState(function, &error);
  MTL::TextureDescriptor* shape = MTL::TextureDescriptor::alloc()->init();
  shape->setTextureType(MTL::TextureType2DArray);
  shape->setPixelFormat(MTL::PixelFormatRGBA16Float);
  shape->setWidth(4);
  shape->setHeight(3);
  shape->setArrayLength(2);
  MTL::HeapDescriptor* size = MTL::HeapDescriptor::alloc()->init();
  size->setType(MTL::HeapTypePlacement);
  size->setSize(1024);
  MTL::Heap* heap = device->newHeap(size);
  MTL::Texture* x = heap->newTexture(shape, 0);
  MTL::Texture* y = heap->newTexture(shape, 256);
  MTL::Buffer* in = device->newBuffer(64 * sizeof(float), MTL::ResourceStorageModeShared);
  MTL::Buffer* out = device->newBuffer(64 * sizeof(float), MTL::ResourceStorageModeShared);
  for (int i = 0; i < 64; ++i) static_cast<float*>(in->contents())[i] = static_cast<float>(i);

  MTL::CommandQueue* queue = device->newCommandQueue();
  MTL::CommandBuffer* commands = queue->commandBuffer();
  MTL::ComputeCommandEncoder* encoder = commands->computeCommandEncoder();
  // Every texel of x is written first, by a kernel of its own.
  MTL::Function* fill = library->newFunction(NS::String::string("fill", NS::UTF8StringEncoding));
  encoder->setComputePipelineState(device->newComputePipelineState(fill, &error));
  encoder->setTexture(x, 0);
  encoder->dispatchThreadgroups(MTL::Size{1, 1, 2}, MTL::Size{4, 3, 1});
  encoder->setComputePipelineState(pipeline);
  encoder->setTexture(x, 0);
  encoder->setTexture(y, 1);
  encoder->setBuffer(in, 0, 0);
  encoder->setBuffer(out, 0, 1);
  encoder->setThreadgroupMemoryLength(64 * sizeof(float), 0);
  encoder->dispatchThreadgroups(MTL::Size{1, 1, 1}, MTL::Size{64, 1, 1});
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  for (int i = 0; i < 64; ++i) std::printf("%g ", static_cast<double>(static_cast<float*>(out->contents())[i]));
  return 0;
}
