// Decodes mutations of a weights file's payload: fuzz_weights FILE COUNT SEED. Every array has
// exactly its size, so that a sanitizer sees an access beyond it. The checksum is left out of it:
// the decoder itself must hold. Prints how many mutations were found out, and how many decoded.
#include "Block.cpp"

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <vector>

int main(int count, char** arguments) {
  using namespace Block_internal;
  if (count != 4) return 2;
  std::ifstream file(arguments[1], std::ios::binary);
  const std::vector<char> whole{std::istreambuf_iterator<char>(file), {}};
  const std::size_t size = whole.size() - kHeaderBytes;
  const std::size_t most = Block::kWeightBytes;
  // operator new aligns as Init's memory is.
  unsigned char* payload = static_cast<unsigned char*>(::operator new(size));
  unsigned char* decoded = static_cast<unsigned char*>(::operator new(most));
  std::mt19937 random(static_cast<unsigned>(std::atol(arguments[3])));
  long results[2] = {};
  const long rounds = std::atol(arguments[2]);
  for (long round = 0; round < rounds; ++round) {
    std::memcpy(payload, whole.data() + kHeaderBytes, size);
    const int changes = round == 0 ? 0 : 1 + static_cast<int>(random() % 4);
    for (int change = 0; change < changes; ++change) {
      // Mostly where sections begin, for there are tables and sizes; also anywhere.
      const Section& section = kSections[random() % (sizeof(kSections) / sizeof(kSections[0]))];
      std::size_t at = random() % size;
      if (random() % 2 == 0) at = section.from + section.table * 4 + random() % 200;
      if (at >= size) continue;
      switch (random() % 4) {
        case 0:
          payload[at] = static_cast<unsigned char>(payload[at] ^ (1U << (random() % 8)));
          break;
        case 1:
          payload[at] = static_cast<unsigned char>(random());
          break;
        case 2:
          payload[at] = random() % 2 == 0 ? 0x00 : 0xFF;
          break;
        default:  // a run copied from elsewhere
          for (std::size_t i = 0; i < 16 && at + i < size; ++i) payload[at + i] = payload[(at * 7 + i) % size];
      }
    }
    const int error = DecodeWeights(payload, decoded);
    if (error != Block::kOk && error != Block::kFileCorrupt) return 3;
    if (round == 0 && error != Block::kOk) return 4;
    ++results[error == Block::kOk ? 1 : 0];
  }
  std::cout << results[0] << ' ' << results[1] << '\n';
  ::operator delete(payload);
  ::operator delete(decoded);
}
