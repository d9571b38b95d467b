// The callbacks that clang puts in front of every load and store of the kernels' translation unit
// (-fsanitize-coverage=bb,trace-loads,trace-stores). Included once, by a unit compiled without.
#pragma once

#include "simulator.h"

#define MDLC_CALLBACKS(bytes)                                                     \
  extern "C" void __sanitizer_cov_load##bytes(const void* p) { simulator::Touch(p, bytes, false); } \
  extern "C" void __sanitizer_cov_store##bytes(const void* p) { simulator::Touch(p, bytes, true); }
MDLC_CALLBACKS(1)
MDLC_CALLBACKS(2)
MDLC_CALLBACKS(4)
MDLC_CALLBACKS(8)
MDLC_CALLBACKS(16)
#undef MDLC_CALLBACKS
