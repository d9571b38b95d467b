// Fails the Nth call of Init to memory, files or threads, for every N: failures WEIGHTS. Linked
// with --wrap for the calls below. For each way to call Init, prints its name, how many calls could
// fail, and the errors that were returned; exits with 1 to 9 where an instance did not hold.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "Block.h"

namespace {
int failing = 0;  // the call that fails, from 1; 0: none
int calls = 0;
bool active = false;
int open_files = 0;

bool Fails() {
  return active && ++calls == failing;
}
}  // namespace

extern "C" {
int __real_open(const char*, int, ...);
int __real_close(int);
int __real_fstat(int, struct stat*);
void* __real_mmap(void*, size_t, int, int, int, off_t);
ssize_t __real_read(int, void*, size_t);
off_t __real_lseek(int, off_t, int);
FILE* __real_fopen(const char*, const char*);
int __real_fclose(FILE*);
size_t __real_fread(void*, size_t, size_t, FILE*);
size_t __real_fwrite(const void*, size_t, size_t, FILE*);
int __real_pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

int __wrap_open(const char* path, int flags, ...) {
  if (Fails()) return errno = EMFILE, -1;
  const int file = __real_open(path, flags);
  open_files += file >= 0;
  return file;
}
int __wrap_close(int file) {
  --open_files;
  return __real_close(file);
}
int __wrap_fstat(int file, struct stat* status) {
  if (Fails()) return errno = EIO, -1;
  return __real_fstat(file, status);
}
void* __wrap_mmap(void* at, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (Fails()) return errno = ENOMEM, MAP_FAILED;
  return __real_mmap(at, bytes, protection, flags, file, offset);
}
ssize_t __wrap_read(int file, void* to, size_t bytes) {
  if (Fails()) return errno = EIO, -1;
  return __real_read(file, to, bytes > 100 ? bytes / 2 : bytes);  // as short as the system likes
}
off_t __wrap_lseek(int file, off_t offset, int from) {
  if (Fails()) return errno = EIO, -1;
  return __real_lseek(file, offset, from);
}
FILE* __wrap_fopen(const char* path, const char* mode) {
  if (Fails()) return errno = EMFILE, nullptr;
  FILE* file = __real_fopen(path, mode);
  open_files += file != nullptr;
  return file;
}
int __wrap_fclose(FILE* file) {
  --open_files;
  return __real_fclose(file);
}
size_t __wrap_fread(void* to, size_t size, size_t count, FILE* file) {
  return Fails() ? 0 : __real_fread(to, size, count, file);
}
size_t __wrap_fwrite(const void* from, size_t size, size_t count, FILE* file) {
  return Fails() ? 0 : __real_fwrite(from, size, count, file);
}
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*),
                          void* argument) {
  if (Fails()) return EAGAIN;
  return __real_pthread_create(thread, attributes, body, argument);
}
}

// Of the standard library's, those that Init asks; the others are left to the library, which calls
// malloc as these do.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return Fails() ? nullptr : std::malloc(bytes);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  const std::size_t unit = static_cast<std::size_t>(alignment);
  return Fails() ? nullptr : std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
}
void* operator new(std::size_t bytes) {
  void* found = std::malloc(bytes);
  if (found == nullptr) std::abort();
  return found;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {
std::string path;
std::string package;      // the weights behind 100 other bytes
std::vector<char> bytes;  // the weights behind one other byte
int package_file = -1;

int ByPath(Block& network) { return network.Init(path.c_str()); }
int Once(Block& network) {
  std::remove((path + ".checked").c_str());
  Block::InitOptions options;
  options.checksum = Block::InitOptions::kOnce;
  const int first = network.Init(path.c_str(), options);
  return first == Block::kOk ? network.Init(path.c_str(), options) : first;
}
int ByFile(Block& network) { return network.Init(package_file, 100, bytes.size() - 1); }
int InMemory(Block& network) { return network.Init(bytes.data() + 1, bytes.size() - 1); }

float Answer(Block& network, int* error) {
  static float image[16 * 16 * 3] = {1.0F, 2.0F};
  static float logits[10];
  logits[3] = 0.0F;
  Block::Mat in(image, 16, 16, 3), out(logits, 1, 1, 10);
  *error = network.infer(in, out);
  return logits[3];
}

int Try(const char* name, int (*init)(Block&)) {
  std::set<int> errors;
  int error = Block::kOk;
  Block right;
  Answer(right, &error);
  if (error != Block::kNotInitialised) return 1;
  if (init(right) != Block::kOk) return 2;
  const float expected = Answer(right, &error);
  const int before = open_files;
  Block kept;
  int failed = 1;
  for (;; ++failed) {
    failing = failed;
    calls = 0;
    Block fresh;
    active = true;
    const int found = init(fresh);
    active = false;
    const bool reached = calls >= failing;
    if (!reached && found != Block::kOk) return 3;
    if (open_files != before) return 4;
    Answer(fresh, &error);
    if (found == Block::kOk ? error != Block::kOk : error != Block::kNotInitialised) return 5;
    if (!reached) break;
    errors.insert(found);
    calls = 0;
    active = true;
    const int again = init(kept);  // which was initialised before, but in the first round
    active = false;
    if (again != found) return 6;
    failing = 0;
    if (init(kept) != Block::kOk || Answer(kept, &error) != expected || error != Block::kOk) return 7;
  }
  std::printf("%s %d:", name, failed - 1);
  for (const int each : errors) std::printf(" %d", each);
  std::printf("\n");
  return 0;
}
}  // namespace

int main(int, char** argv) {
  path = argv[1];
  std::ifstream file(path, std::ios::binary);
  bytes.assign(1, 'x');
  bytes.insert(bytes.end(), std::istreambuf_iterator<char>(file), {});
  package = path + ".package";
  std::ofstream(package, std::ios::binary) << std::string(100, 'x') << std::string(bytes.data() + 1, bytes.size() - 1);
  package_file = open(package.c_str(), O_RDONLY);
  int (*const ways[])(Block&) = {ByPath, Once, ByFile, InMemory};
  const char* const names[] = {"path", "once", "file", "memory"};
  for (int i = 0; i < 4; ++i) {
    const int broken = Try(names[i], ways[i]);
    if (broken != 0) return std::printf("%s\n", names[i]), broken;
  }
}
