#include "llmc/io/hellaswag.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <cstring>
#include <span>

namespace llmc {
namespace {

constexpr int32_t kMagic = 20240522;
constexpr int32_t kVersion = 1;
constexpr int64_t kHeaderBytes = 1024;
constexpr uint16_t kStartOfExample = 65535;
constexpr int64_t kItemBytes = sizeof(uint16_t);

/// Takes numbers off the front of the file.
class Reader {
  public:
    Reader(const MappedFile& file, const std::string& option) : file_(file), option_(option) {}

    int64_t position() const { return position_; }
    void begin_example(int64_t number) { number_ = number; }

    int64_t next() {
        if (position_ + kItemBytes > file_.size()) wrong("the file ends in it");
        uint16_t item = 0;
        std::memcpy(&item, file_.data() + position_, sizeof item);
        position_ += kItemBytes;
        return item;
    }

    /// A length and so many tokens.
    std::vector<int32_t> tokens() {
        std::vector<int32_t> result(static_cast<size_t>(next()));
        if (result.empty()) wrong("it has an empty part");
        for (int32_t& token : result) token = static_cast<int32_t>(next());
        return result;
    }

    [[noreturn]] void wrong(const std::string& what) const {
        fail("{}: '{}' is damaged: example {}, at byte {}: {}; make it again with llm.c's hellaswag.py", option_,
             file_.path(), number_, position_, what);
    }

  private:
    const MappedFile& file_;
    const std::string& option_;
    int64_t position_ = kHeaderBytes;
    int64_t number_ = 0;
};

HellaswagExample read_example(Reader& reader, int64_t number) {
    reader.begin_example(number);
    const int64_t begin = reader.position();
    if (reader.next() != kStartOfExample) reader.wrong("it does not begin with 65535");
    const int64_t bytes = reader.next();
    reader.next();  // Its number once more.
    HellaswagExample example;
    example.label = reader.next();
    const int64_t endings = reader.next();
    if (endings < 2) reader.wrong(fmt::format("{} endings", endings));
    if (example.label >= endings) reader.wrong(fmt::format("label {} of {} endings", example.label, endings));
    example.context = reader.tokens();
    for (int64_t i = 0; i < endings; ++i) example.endings.push_back(reader.tokens());
    const int64_t read = reader.position() - begin;
    if (read != bytes) reader.wrong(fmt::format("it has {} bytes, by its header {}", read, bytes));
    return example;
}

MappedFile open_examples(const std::string& path, const std::string& option) {
    try {
        return MappedFile(path);
    } catch (const Error& cause) {
        fail("{}: {}; name a HellaSwag file, which llm.c's hellaswag.py makes", option, cause.what());
    }
}

}  // namespace

std::vector<HellaswagExample> read_hellaswag(const std::string& path, const std::string& option) {
    const MappedFile file = open_examples(path, option);
    int32_t header[3] = {};
    if (file.size() >= kHeaderBytes) std::memcpy(header, file.data(), sizeof header);
    if (header[0] != kMagic || header[1] != kVersion) {
        fail("{}: '{}' is not a HellaSwag file of llm.c (magic {}, version {}); make one with llm.c's hellaswag.py",
             option, path, kMagic, kVersion);
    }
    Reader reader(file, option);
    std::vector<HellaswagExample> examples;
    for (int64_t number = 0; number < header[2]; ++number) examples.push_back(read_example(reader, number));
    if (reader.position() != file.size() || examples.empty()) {
        fail(
            "{}: '{}' holds {} examples by its header, and then {} more bytes; make it again with llm.c's hellaswag.py",
            option, path, header[2], file.size() - reader.position());
    }
    return examples;
}

}  // namespace llmc
