// Runs an emitted class named Net for benchmarks/peers.py: NET WEIGHTS INPUT THREADS.
// Commands on the standard input, an answer to each: `time N` gives the median nanoseconds of N
// inferences, `memory` the peak resident kilobytes, `output FILE` writes the last output.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "Net.h"

namespace {

int Fail(int error) {
  std::fprintf(stderr, "%s\n", Net::ErrorText(error));
  return 1;
}

long PeakKilobytes() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  long found = -1;
  char line[256];
  while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
    std::sscanf(line, "VmHWM: %ld", &found);
  }
  if (file != nullptr) std::fclose(file);
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  Net network;
#ifdef NET_THREADS
  Net::InitOptions options;
  options.threads = std::atoi(argv[3]);
  int error = network.Init(argv[1], options);
#else
  int error = network.Init(argv[1]);
#endif
  if (error != Net::kOk) return Fail(error);
  std::vector<float> input(224 * 224 * 3), output(1000);
  std::FILE* file = std::fopen(argv[2], "rb");
  if (file == nullptr || std::fread(input.data(), sizeof(float), input.size(), file) != input.size()) return 2;
  std::fclose(file);
  Net::Mat in(input.data(), 224, 224, 3, Net::Mat::kFloat32), out(output.data(), 1, 1, 1000, Net::Mat::kFloat32);
  error = network.infer(in, out);
  if (error != Net::kOk) return Fail(error);
  std::printf("ready\n");
  std::fflush(stdout);
  char line[4096];
  std::vector<double> times;
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    line[std::strcspn(line, "\n")] = 0;
    if (std::strncmp(line, "time ", 5) == 0) {
      times.clear();
      for (int i = std::atoi(line + 5); i >= 0; --i) {
        const auto start = std::chrono::steady_clock::now();
        error = network.infer(in, out);
        if (error != Net::kOk) return Fail(error);
        times.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
      }
      // The first wakes the caches up.
      std::sort(times.begin() + 1, times.end());
      std::printf("%.0f\n", times[1 + (times.size() - 1) / 2]);
    } else if (std::strcmp(line, "memory") == 0) {
      std::printf("%ld\n", PeakKilobytes());
    } else if (std::strncmp(line, "output ", 7) == 0) {
      file = std::fopen(line + 7, "wb");
      if (file == nullptr || std::fwrite(output.data(), sizeof(float), output.size(), file) != output.size()) return 2;
      std::fclose(file);
      std::printf("written\n");
    } else {
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}
