// What Init says of the processor: its code, and the instruction set that is computed with.
// Arguments: the weights file, then, for a processor that is pretended, AT_HWCAP and AT_HWCAP2,
// and the target that is asked for.
#include <cstdio>
#include <cstdlib>

#include "Block.h"

#if defined(PRETEND)
static unsigned long pretended[2];

// In front of the C library's.
extern "C" unsigned long getauxval(unsigned long type) {
  return type == 16 ? pretended[0] : type == 26 ? pretended[1] : 0;
}
#endif

int main(int count, char** arguments) {
#if defined(PRETEND)
  for (int i = 0; i < 2; ++i) pretended[i] = std::strtoul(arguments[2 + i], nullptr, 0);
#endif
  Block block;
#if defined(CHOOSES)
  Block::InitOptions options;
  if (count > 4) options.target = arguments[4];
  const int error = block.Init(arguments[1], options);
#else
  const int error = block.Init(arguments[count > 1 ? 1 : 0]);
#endif
  std::printf("%d %s\n", error, block.target());
  return 0;
}
