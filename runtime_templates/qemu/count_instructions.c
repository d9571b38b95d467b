// Counts the AArch64 instructions that a program executes under qemu-user, by class.
//
// At every clock_gettime the counts so far are printed (the network's runner reads the clock
// between two layers), and at the end. One line each: all fmla dot mmla load store branch simd prefetch.
// QEMU's plugin interface, version 1, declared here so that no QEMU headers are needed.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*vcpu_tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb*);
typedef void (*vcpu_syscall_cb)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                uint64_t, uint64_t, uint64_t);
typedef void (*udata_cb)(qemu_plugin_id_t, void*);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, vcpu_tb_trans_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, enum qemu_plugin_op, void*, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, vcpu_syscall_cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, udata_cb, void*);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { kAll, kFmla, kDot, kMmla, kLoad, kStore, kBranch, kSimd, kPrefetch, kClasses };
static uint64_t counts[kClasses];

// Arm Architecture Reference Manual, C4.1.88, loads and stores: bit 22 is a load's, but for those of
// one register, where general registers also have sign-extending loads and prefetches.
static int MemoryClassOf(uint32_t word) {
  const uint32_t size = word >> 30, kind = (word >> 28) & 3, opc = (word >> 22) & 3;
  const int vector = (word >> 26) & 1;
  if (kind == 1 && !((word >> 24) & 1)) return size == 3 && !vector ? kPrefetch : kLoad;  // a literal
  if (kind == 3 && !vector && opc >= 2) return size == 3 && opc == 2 ? kPrefetch : kLoad;
  return opc & 1 ? kLoad : kStore;
}

// Arm Architecture Reference Manual, C4.1: the top-level encoding groups and the forms named.
static int ClassOf(uint32_t word) {
  if ((word & 0xBFA0FC00u) == 0x0E20CC00u) return kFmla;  // FMLA vector
  if ((word & 0xBF80F400u) == 0x0F801000u) return kFmla;  // FMLA by element
  if ((word & 0xBFE0FC00u) == 0x0E400C00u) return kFmla;  // FMLA vector, half precision
  if ((word & 0xBFC0F400u) == 0x0F001000u) return kFmla;  // FMLA by element, half precision
  if ((word & 0x9FE0FC00u) == 0x0E809400u) return kDot;   // SDOT, UDOT vector
  if ((word & 0x9FC0F400u) == 0x0F80E000u) return kDot;   // SDOT, UDOT by element
  if ((word & 0xDFE0F400u) == 0x4E80A400u) return kMmla;  // SMMLA, UMMLA, USMMLA
  const uint32_t group = (word >> 25) & 0xF;
  if ((group & 0x5) == 0x4) return MemoryClassOf(word);
  if ((group & 0xE) == 0xA) return kBranch;
  if ((group & 0x7) == 0x7) return kSimd;
  return kAll;
}

static void Translate(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  uint64_t found[kClasses] = {0};
  const size_t length = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < length; ++i) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
    ++found[ClassOf(word)];
  }
  found[kAll] = length;
  for (int i = 0; i < kClasses; ++i) {
    if (found[i]) {
      qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counts[i], found[i]);
    }
  }
}

static void Print(void) {
  fprintf(stderr, "COUNTS");
  for (int i = 0; i < kClasses; ++i) fprintf(stderr, " %llu", (unsigned long long)counts[i]);
  fprintf(stderr, "\n");
}

static void OnSyscall(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                      uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == 113) Print();  // clock_gettime
}

static void OnExit(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  Print();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, Translate);
  qemu_plugin_register_vcpu_syscall_cb(id, OnSyscall);
  qemu_plugin_register_atexit_cb(id, OnExit, NULL);
  return 0;
}
