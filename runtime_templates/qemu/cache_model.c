// Models the data caches of cores while a program runs under qemu-user.
//
// Each argument NAME=L1BYTES:L1WAYS:L2BYTES:L2WAYS:KIND adds a core: set-associative caches of
// 64-byte lines, least recently used line out, allocated on reads and writes, written back. KIND
// is how the second cache relates to the first: "inclusive" (it holds all that the first holds) or
// "exclusive" (it holds what the first has thrown out). Addresses are the program's own; there is
// no prefetcher, and prefetch instructions do nothing.
//
// At every clock_gettime and at the end one line is printed: CACHES, bytes read, bytes written,
// then for each core: misses of L1 on reads, on writes, misses of L2, lines written back to memory.
// With the argument from=NUMBER nothing is watched before the program's first such system call.
// QEMU's plugin interface, version 1, declared here so that no QEMU headers are needed.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };
typedef void (*vcpu_tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb*);
typedef void (*vcpu_syscall_cb)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                uint64_t, uint64_t, uint64_t);
typedef void (*vcpu_mem_cb)(unsigned, qemu_plugin_meminfo_t, uint64_t, void*);
typedef void (*udata_cb)(qemu_plugin_id_t, void*);
typedef void (*simple_cb)(qemu_plugin_id_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, vcpu_tb_trans_cb);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn*, vcpu_mem_cb, enum qemu_plugin_cb_flags,
                                      enum qemu_plugin_mem_rw, void*);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, vcpu_syscall_cb);
void qemu_plugin_reset(qemu_plugin_id_t, simple_cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, udata_cb, void*);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
_Bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { kLineShift = 6, kMaxCores = 4 };
enum { kValid = 1, kDirty = 2, kFlags = 2 };  // an entry: line number, dirty, valid

typedef struct {
  uint64_t* entries;  // sets of `ways` entries, the most recently used first
  uint64_t set_mask;
  unsigned ways;
} Cache;

typedef struct {
  Cache l1, l2;
  int exclusive;
  uint64_t last;  // the entry used last: it is the first of its set
  uint64_t read_misses, write_misses, l2_misses, writebacks;
} Core;

static Core cores[kMaxCores];
static unsigned core_count;
static uint64_t bytes_read, bytes_written;
static int64_t from = -1;

static uint64_t* SetOf(const Cache* cache, uint64_t line) {
  return cache->entries + (line & cache->set_mask) * cache->ways;
}

// The position of a line in its set, or `ways`.
static unsigned Find(const Cache* cache, const uint64_t* set, uint64_t line) {
  unsigned i = 0;
  while (i < cache->ways && (set[i] | kDirty) != (line << kFlags | kDirty | kValid)) ++i;
  return i;
}

// Entries before `position` move back by one; the entry goes in front.
static void PutFirst(uint64_t* set, unsigned position, uint64_t entry) {
  for (unsigned i = position; i > 0; --i) set[i] = set[i - 1];
  set[0] = entry;
}

// Puts an entry in front of its set and returns the entry that had to leave (0: none).
static uint64_t Insert(const Cache* cache, uint64_t entry) {
  uint64_t* set = SetOf(cache, entry >> kFlags);
  const uint64_t gone = set[cache->ways - 1];
  PutFirst(set, cache->ways - 1, entry);
  return gone & kValid ? gone : 0;
}

// Takes a line out and returns its entry (0: it is not there).
static uint64_t Remove(const Cache* cache, uint64_t line) {
  uint64_t* set = SetOf(cache, line);
  unsigned i = Find(cache, set, line);
  if (i == cache->ways) return 0;
  const uint64_t entry = set[i];
  for (; i + 1 < cache->ways; ++i) set[i] = set[i + 1];
  set[i] = 0;
  return entry;
}

static void FillExclusive(Core* core, uint64_t line, uint64_t dirty) {
  const uint64_t found = Remove(&core->l2, line);
  core->l2_misses += !found;
  const uint64_t gone = Insert(&core->l1, line << kFlags | kValid | dirty | (found & kDirty));
  if (gone) {
    const uint64_t out = Insert(&core->l2, gone);
    core->writebacks += (out & kDirty) != 0;
  }
}

static void FillInclusive(Core* core, uint64_t line, uint64_t dirty) {
  uint64_t* set = SetOf(&core->l2, line);
  const unsigned i = Find(&core->l2, set, line);
  if (i < core->l2.ways) {
    PutFirst(set, i, set[i]);
  } else {
    ++core->l2_misses;
    const uint64_t out = Insert(&core->l2, line << kFlags | kValid);
    if (out) core->writebacks += ((out | Remove(&core->l1, out >> kFlags)) & kDirty) != 0;
  }
  const uint64_t gone = Insert(&core->l1, line << kFlags | kValid | dirty);
  if (gone & kDirty) {
    uint64_t* home = SetOf(&core->l2, gone >> kFlags);
    home[Find(&core->l2, home, gone >> kFlags)] |= kDirty;
  }
}

static void Access(Core* core, uint64_t line, int store) {
  const uint64_t dirty = store ? kDirty : 0;
  uint64_t* set = SetOf(&core->l1, line);
  if ((core->last | kDirty) == (line << kFlags | kDirty | kValid)) {
    set[0] |= dirty;
    return;
  }
  const unsigned i = Find(&core->l1, set, line);
  if (i < core->l1.ways) {
    PutFirst(set, i, set[i] | dirty);
  } else {
    if (store) {
      ++core->write_misses;
    } else {
      ++core->read_misses;
    }
    (core->exclusive ? FillExclusive : FillInclusive)(core, line, dirty);
  }
  core->last = set[0];
}

static void OnMemory(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void* data) {
  (void)cpu, (void)data;
  const uint64_t size = (uint64_t)1 << qemu_plugin_mem_size_shift(info);
  const int store = qemu_plugin_mem_is_store(info);
  const uint64_t first = address >> kLineShift, last = (address + size - 1) >> kLineShift;
  *(store ? &bytes_written : &bytes_read) += size;
  for (unsigned i = 0; i < core_count; ++i) {
    Access(&cores[i], first, store);
    if (last != first) Access(&cores[i], last, store);
  }
}

static void Translate(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  const size_t length = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < length; ++i) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
    qemu_plugin_register_vcpu_mem_cb(instruction, OnMemory, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
  }
}

static void Print(void) {
  fprintf(stderr, "CACHES %llu %llu", (unsigned long long)bytes_read, (unsigned long long)bytes_written);
  for (unsigned i = 0; i < core_count; ++i) {
    const Core* core = &cores[i];
    fprintf(stderr, " %llu %llu %llu %llu", (unsigned long long)core->read_misses,
            (unsigned long long)core->write_misses, (unsigned long long)core->l2_misses,
            (unsigned long long)core->writebacks);
  }
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

static void Start(qemu_plugin_id_t id) {
  qemu_plugin_register_vcpu_tb_trans_cb(id, Translate);
  qemu_plugin_register_vcpu_syscall_cb(id, OnSyscall);
  qemu_plugin_register_atexit_cb(id, OnExit, NULL);
}

// All that was translated until then goes, to be translated anew under Start's watch.
static void Wait(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                 uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == from) qemu_plugin_reset(id, Start);
}

static int Make(Cache* cache, uint64_t bytes, unsigned ways) {
  const uint64_t sets = ways ? (bytes >> kLineShift) / ways : 0;
  if (sets == 0 || (sets & (sets - 1)) != 0) return 0;
  cache->ways = ways;
  cache->set_mask = sets - 1;
  cache->entries = calloc(sets * ways, sizeof *cache->entries);
  return cache->entries != NULL;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    unsigned long long l1, l2;
    unsigned l1_ways, l2_ways;
    char kind[16];
    const char* value = strchr(argv[i], '=');
    Core* core = &cores[core_count];
    if (strncmp(argv[i], "from=", 5) == 0) {
      from = atoll(value + 1);
      continue;
    }
    if (core_count == kMaxCores || value == NULL ||
        sscanf(value + 1, "%llu:%u:%llu:%u:%15s", &l1, &l1_ways, &l2, &l2_ways, kind) != 5 ||
        !Make(&core->l1, l1, l1_ways) || !Make(&core->l2, l2, l2_ways)) {
      fprintf(stderr, "cache_model: NAME=L1BYTES:L1WAYS:L2BYTES:L2WAYS:KIND, not %s\n", argv[i]);
      return 1;
    }
    core->exclusive = strcmp(kind, "exclusive") == 0;
    ++core_count;
  }
  if (from < 0) {
    Start(id);
  } else {
    qemu_plugin_register_vcpu_syscall_cb(id, Wait);
  }
  return 0;
}
