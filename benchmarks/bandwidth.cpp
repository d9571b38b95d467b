// Prints the gigabytes per second at which one core reads BYTES over and over: bandwidth BYTES.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  constexpr std::size_t kStep = 64;  // words in a trip, so that sums are independent
  const std::size_t words = (static_cast<std::size_t>(std::atoll(argv[1])) / 8 / kStep + 1) * kStep;
  std::vector<std::uint64_t> data(words, 1);
  std::uint64_t sums[kStep] = {0};
  double best = 0;
  const std::size_t walks = (std::size_t{64} << 20) / words / 8 + 2;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t walk = 0; walk < walks; ++walk) {
      for (std::size_t i = 0; i < words; i += kStep) {
        for (std::size_t k = 0; k < kStep; ++k) sums[k] += data[i + k];
      }
      asm volatile("" : : "r"(data.data()) : "memory");
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const double rate = static_cast<double>(words * walks * 8) / took.count() / 1e9;
    if (rate > best) best = rate;
  }
  std::uint64_t sum = 0;
  for (std::size_t k = 0; k < kStep; ++k) sum += sums[k];
  std::printf("%.3f\n", sum == 0 ? 0.0 : best);
  return 0;
}
