// Init from memory, from a part of a file and with every way to treat the checksum; WEIGHTS FOLDER.
// Exits with the number of the first check that fails.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "Block.h"

namespace {

int check = 0;

void Expect(bool holds) {
  ++check;
  if (!holds) std::exit(check);
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::vector<float> Answer(Block& network) {
  std::vector<float> image(16 * 16 * 3, 0.25F), logits(10, -1.0F);
  Block::Mat in(image.data(), 16, 16, 3), out(logits.data(), 1, 1, 10);
  return network.infer(in, out) == Block::kOk ? logits : std::vector<float>();
}

}  // namespace

int main(int, char** argv) {
  const std::string weights = argv[1], folder = argv[2];
  const std::string good = Read(weights);
  std::string bad = good;
  bad.back() = static_cast<char>(~bad.back());
  bad[bad.size() / 2] = static_cast<char>(~bad[bad.size() / 2]);
  Block network;
  Expect(network.Init(weights.c_str()) == Block::kOk);
  const std::vector<float> answer = Answer(network);
  Expect(!answer.empty());
  Block::InitOptions once, never;
  once.checksum = Block::InitOptions::kOnce;
  never.checksum = Block::InitOptions::kNever;

  // In memory, at every place of a cache line; what is copied or decoded may go away.
  for (std::size_t shift = 0; shift < 65; ++shift) {
    std::vector<char> memory(good.size() + 64 + shift);
    char* at = memory.data() + 64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64 + shift;
    good.copy(at, good.size());
    Expect(network.Init(at, good.size()) == Block::kOk);
    if (IN_PLACE == 0 || shift % IN_PLACE != 0) std::vector<char>().swap(memory);
    Expect(Answer(network) == answer);
  }
  for (std::size_t size : {std::size_t{0}, std::size_t{63}, good.size() - 1, good.size() + 1}) {
    const std::string cut = (good + "x").substr(0, size);
    Expect(network.Init(cut.data(), cut.size()) == Block::kFileTruncated);
    Expect(Answer(network).empty());
  }
  Expect(network.Init(nullptr, good.size()) == Block::kFileMissing);
  Expect(network.Init(bad.data(), bad.size()) == Block::kFileCorrupt);
  Expect(network.Init(bad.data(), bad.size(), once) == Block::kFileCorrupt);
  Expect(network.Init(good.data(), good.size(), never) == Block::kOk);

  // Inside a package, whose file is closed before infer.
  const std::string package = folder + "/package";
  for (std::size_t offset : {0U, 1U, 4U, 4095U, 4096U, 4100U, 70000U}) {
    Write(package, std::string(offset, 'x') + good + "yyy");
    const int file = open(package.c_str(), O_RDONLY);
    Expect(network.Init(file, offset, good.size()) == Block::kOk);
    close(file);
    Expect(Answer(network) == answer);
  }
  const int file = open(package.c_str(), O_RDONLY);
  Expect(network.Init(file, 70000, good.size() - 1) == Block::kFileTruncated);
  Expect(network.Init(file, 70000, good.size() + 1) == Block::kFileTruncated);
  Expect(network.Init(file, 70000, 0) == Block::kFileTruncated);
  Expect(network.Init(file, 70000, good.size() + 4) == Block::kFileTruncated);
  Expect(network.Init(file, ~std::uint64_t{0}, 2) == Block::kFileTruncated);
  Expect(network.Init(file, 2, ~std::uint64_t{0}) == Block::kFileTruncated);
  Expect(network.Init(file, 69999, good.size()) == Block::kFileForeign);
  close(file);
  Expect(network.Init(file, 70000, good.size()) == Block::kFileMissing);
  Expect(network.Init(-1, 0, good.size()) == Block::kFileMissing);
  const int directory = open(folder.c_str(), O_RDONLY);
  Expect(network.Init(directory, 0, good.size()) == Block::kFileMissing);
  close(directory);
  Expect(Answer(network).empty());

  // The checksum is compared once, and again when the file was written since.
  const std::string copy = folder + "/copy", stamp = copy + ".checked";
  Write(copy, good);
  Expect(network.Init(copy.c_str(), never) == Block::kOk);
  Expect(access(stamp.c_str(), F_OK) != 0);
  Expect(network.Init(copy.c_str(), once) == Block::kOk);
  Expect(access(stamp.c_str(), F_OK) == 0);
  Expect(network.Init(copy.c_str(), once) == Block::kOk);
  Expect(Answer(network) == answer);
  const std::string said = Read(stamp);
  usleep(1100000);  // a second is what file systems tell apart
  Write(copy, bad);
  Expect(network.Init(copy.c_str(), once) == Block::kFileCorrupt);
  Expect(Read(stamp) == said);
  Expect(network.Init(copy.c_str(), never) == (IN_PLACE == 0 ? network.Init(bad.data(), bad.size(), never) : Block::kOk));
  Write(stamp, "something else");
  Write(copy, good);
  Expect(network.Init(copy.c_str(), once) == Block::kOk);
  Expect(Read(stamp) != said);
  // Where the stamp cannot be written, Init works all the same.
  unlink(stamp.c_str());
  Expect(mkdir(stamp.c_str(), 0700) == 0);
  Expect(network.Init(copy.c_str(), once) == Block::kOk);
  rmdir(stamp.c_str());
  return 0;
}
