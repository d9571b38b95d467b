/* Preloaded by benchmarks/no_avx512.py: answers the cpuid instructions that were replaced by
   `int3; nop`, as the processor would if it had neither AVX-512 nor AMX nor AVX10. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

/* Bits of leaf 7 (Intel, Software Developer's Manual, volume 2, CPUID). */
static const unsigned kEbx7 =
    1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const unsigned kEcx7 = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const unsigned kEdx7 =
    1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;
static const unsigned kEax71 = 1u << 5 | 1u << 21; /* subleaf 1 */
static const unsigned kEdx71 = 1u << 19;

static void answer(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX];
  unsigned a, b, c, d;
  __cpuid_count(leaf, subleaf, a, b, c, d);
  if (leaf == 7 && subleaf == 0) {
    b &= ~kEbx7;
    c &= ~kEcx7;
    d &= ~kEdx7;
  } else if (leaf == 7 && subleaf == 1) {
    a &= ~kEax71;
    d &= ~kEdx71;
  } else if (leaf == 0x24) {
    a = b = c = d = 0;
  }
  /* The instruction pointer is past int3, and nop is next. */
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
}

__attribute__((constructor)) static void install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGTRAP, &action, 0);
}
