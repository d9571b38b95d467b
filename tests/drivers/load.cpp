// Many threads with an instance each, instances made and destroyed, and instances that go from
// thread to thread: load WEIGHTS THREADS SECONDS ROUNDS. Prints inferences, instances, and the
// kilobytes of memory in use after the first tenth and at the end; exits with 1 where an answer
// differs or a call fails.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "Block.h"

namespace {
const char* weights;
double seconds;
int rounds;
float expected[10];
std::atomic<long> inferences{0}, instances{0};
std::atomic<bool> failed{false};

// Instances that wait for the next thread.
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
std::vector<std::unique_ptr<Block>> waiting;

std::unique_ptr<Block> Made(bool once) {
  std::unique_ptr<Block> network(new Block);
  Block::InitOptions options;
  if (once) options.checksum = Block::InitOptions::kOnce;
  if (network->Init(weights, options) != Block::kOk) failed = true;
  ++instances;
  return network;
}

void Answer(Block& network, float* logits) {
  std::vector<float> image(16 * 16 * 3);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i % 7) - 3.0F;
  Block::Mat in(image.data(), 16, 16, 3), out(logits, 1, 1, 10);
  if (network.infer(in, out) != Block::kOk) failed = true;
  ++inferences;
}

void Check(Block& network) {
  float logits[10];
  Answer(network, logits);
  if (std::memcmp(logits, expected, sizeof(expected)) != 0) failed = true;
}

void* Work(void* number) {
  const bool once = number != nullptr;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::unique_ptr<Block> own = Made(once);
  for (int round = 0; round < rounds || std::chrono::steady_clock::now() < end; ++round) {
    Check(*own);
    if (round % 4 == 0) Check(*Made(once));
    if (round % 3 == 0) {  // gives its own to whoever comes, and takes what was there
      pthread_mutex_lock(&lock);
      waiting.push_back(std::move(own));
      own = std::move(waiting.front());
      waiting.erase(waiting.begin());
      pthread_mutex_unlock(&lock);
    }
    if (round % 50 == 49 && own->Init(weights) != Block::kOk) failed = true;
  }
  return nullptr;
}

long Kilobytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  long all = 0, held = 0;
  if (file == nullptr || std::fscanf(file, "%ld %ld", &all, &held) != 2) held = 0;
  if (file != nullptr) std::fclose(file);
  return held * (sysconf(_SC_PAGESIZE) / 1024);
}

void Run(int count) {
  std::vector<pthread_t> threads(static_cast<std::size_t>(count));
  bool odd = false;
  for (pthread_t& thread : threads) {
    if (pthread_create(&thread, nullptr, &Work, odd ? &failed : nullptr) != 0) std::abort();
    odd = !odd;
  }
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  waiting.clear();
}
}  // namespace

int main(int count, char** arguments) {
  if (count != 5) return 2;
  weights = arguments[1];
  const int threads = std::atoi(arguments[2]);
  rounds = std::atoi(arguments[4]);
  const double all = std::atof(arguments[3]);
  Answer(*Made(false), expected);
  seconds = all / 10;
  Run(threads);
  const long before = Kilobytes();
  seconds = all - seconds;
  Run(threads);
  std::printf("%ld %ld %ld %ld\n", inferences.load(), instances.load(), before, Kilobytes());
  return failed ? 1 : 0;
}
