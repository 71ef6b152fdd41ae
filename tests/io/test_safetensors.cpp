#include "llmc/io/safetensors.h"
#include "tests/io/file_limit.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

namespace llmc {
namespace {

/// The bytes of a file with this header and data.
std::string file_bytes(const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    std::string bytes(sizeof length, '\0');
    std::memcpy(bytes.data(), &length, sizeof length);
    return bytes + header + data;
}

std::string open_error(const TempDir& dir, const std::string& bytes) {
    const std::string path = dir.write("bad.safetensors", bytes);
    const std::string message = error_of([&] { SafetensorsFile file(path); });
    EXPECT_TRUE(has(message, {path}));
    return message;
}

std::string header_error(const TempDir& dir, const std::string& header, const std::string& data = "") {
    return open_error(dir, file_bytes(header, data));
}

/// A small valid file: scalar F64, (2, 3) F32, empty, (3) U8.
std::string write_small(const TempDir& dir) {
    const std::string path = dir / "small.safetensors";
    SafetensorsWriter writer(
        path,
        {{"scalar", DType::F64, {}}, {"w", DType::F32, {2, 3}}, {"empty", DType::BF16, {0, 5}}, {"b", DType::U8, {3}}},
        {{"made by", "a \"test\""}});
    const double scalar = 2.5;
    const std::vector<float> w = {1, 2, 3, 4, 5, 6};
    writer.write("scalar", &scalar);
    writer.append(w.data(), 7);
    writer.append(reinterpret_cast<const char*>(w.data()) + 7, 17);
    writer.write("empty", nullptr);
    writer.write("b", "abc");
    writer.close();
    EXPECT_EQ(writer.bytes_written(), static_cast<int64_t>(std::filesystem::file_size(path)));
    return path;
}

TEST(Safetensors, RoundTrip) {
    const TempDir dir;
    const SafetensorsFile file(write_small(dir));
    ASSERT_EQ(file.tensors().size(), 4u);
    EXPECT_EQ(file.metadata().at("made by"), "a \"test\"");
    const SafetensorsView& w = file.expect("w", DType::F32, std::vector<int64_t>{2, 3});
    std::vector<float> values(6);
    ASSERT_EQ(w.bytes.size(), 24u);
    std::memcpy(values.data(), w.bytes.data(), 24);
    EXPECT_EQ(values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(file.find("scalar")->shape, std::vector<int64_t>{});
    EXPECT_EQ(file.find("scalar")->bytes.size(), 8u);
    EXPECT_EQ(file.find("empty")->bytes.size(), 0u);
    EXPECT_EQ(file.tensors().back().name, "b");
    EXPECT_EQ(file.find("nothing"), nullptr);
}

TEST(Safetensors, HeaderIsPaddedAndExactlyAsSpecified) {
    const TempDir dir;
    const std::string path = dir / "x.safetensors";
    SafetensorsWriter writer(path, {{"a", DType::BF16, {1, 2}}});
    writer.write("a", "wxyz");
    writer.close();
    EXPECT_EQ(slurp(path), file_bytes(R"({"a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}       )", "wxyz"));
}

TEST(Safetensors, EveryElementTypeHasItsName) {
    const TempDir dir;
    for (const DType dtype :
         {DType::F32, DType::BF16, DType::F16, DType::F64, DType::I32, DType::I64, DType::U16, DType::U8}) {
        const std::string path = dir / "x.safetensors";
        SafetensorsWriter writer(path, {{"a", dtype, {1}}});
        writer.write("a", "12345678");
        writer.close();
        const SafetensorsFile file(path);
        EXPECT_EQ(file.tensors()[0].dtype, dtype);
        EXPECT_EQ(file.tensors()[0].dtype_name, safetensors_name(dtype));
    }
}

TEST(Safetensors, AnyOrderInTheHeaderAndForeignTypes) {
    const TempDir dir;
    const std::string path =
        dir.write("x.safetensors", file_bytes(R"({"z":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                              R"("a":{"dtype":"BOOL","shape":[1,1,2,2],"data_offsets":[1,5]}})",
                                              "zaaaa"));
    const SafetensorsFile file(path);
    ASSERT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.tensors()[0].name, "z");
    EXPECT_EQ(file.tensors()[1].dtype_name, "BOOL");
    EXPECT_FALSE(file.tensors()[1].dtype.has_value());
    EXPECT_TRUE(has(error_of([&] {
                        file.expect("a", DType::U8, std::vector<int64_t>{1, 1, 2, 2});
                    }),
                    {path, "'a'", "BOOL", "U8"}));
}

TEST(Safetensors, NoTensorsAtAll) {
    const TempDir dir;
    const std::string path = dir / "none.safetensors";
    SafetensorsWriter(path, {}).close();
    EXPECT_TRUE(SafetensorsFile(path).tensors().empty());
}

TEST(Safetensors, ExpectSaysWhatTheFileHas) {
    const TempDir dir;
    const SafetensorsFile file(write_small(dir));
    const std::vector<int64_t> shape = {2, 3}, other = {3, 2}, longer = {2, 3, 1};
    EXPECT_TRUE(has(error_of([&] { file.expect("v", DType::F32, shape); }), {"small.safetensors", "no tensor 'v'"}));
    EXPECT_TRUE(has(error_of([&] { file.expect("w", DType::F32, other); }), {"'w'", "F32 (2, 3)", "F32 (3, 2)"}));
    EXPECT_TRUE(has(error_of([&] { file.expect("w", DType::F32, longer); }), {"(2, 3, 1)"}));
    EXPECT_TRUE(has(error_of([&] { file.expect("w", DType::BF16, shape); }), {"expected BF16 (2, 3)"}));
}

TEST(Safetensors, RejectsBadLengths) {
    const TempDir dir;
    EXPECT_TRUE(has(open_error(dir, ""), {"only 0 bytes"}));
    EXPECT_TRUE(has(open_error(dir, "1234567"), {"only 7 bytes"}));
    EXPECT_TRUE(has(open_error(dir, std::string(8, '\0')), {"not a JSON object"}));
    EXPECT_TRUE(has(open_error(dir, std::string(8, '\xff') + "{}"), {"header of 18446744073709551615 bytes"}));
    EXPECT_TRUE(has(open_error(dir, std::string("\x03\0\0\0\0\0\0\0{}", 10)), {"header of 3 bytes"}));
    const std::string path = dir.write("huge.safetensors", std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10));
    if (truncate(path.c_str(), 200'000'000) != 0) return;
    EXPECT_TRUE(has(error_of([&] { SafetensorsFile file(path); }), {"header of 100000001 bytes", "100000000 allowed"}));
}

TEST(Safetensors, RejectsBadHeaders) {
    const TempDir dir;
    const std::string a = R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
    EXPECT_TRUE(has(header_error(dir, "[]"), {"not a JSON object"}));
    EXPECT_TRUE(has(header_error(dir, " {}"), {"not a JSON object"}));
    EXPECT_TRUE(has(header_error(dir, "{" + a, "ab"), {"not valid JSON"}));
    EXPECT_TRUE(has(header_error(dir, "{" + a + "}x", "ab"), {"not valid JSON"}));
    EXPECT_TRUE(has(header_error(dir, "{\"\xff\":1}"), {"not valid JSON"}));
    EXPECT_TRUE(has(header_error(dir, "{\"\n\":1}"), {"not valid JSON"}));
    EXPECT_TRUE(has(header_error(dir, "{" + a + "," + a + "}", "ab"), {"'a' occurs twice"}));
    EXPECT_TRUE(has(header_error(dir, R"({"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "ab"),
                    {"'dtype' occurs twice"}));
    EXPECT_TRUE(has(header_error(dir, R"({"a":)" + std::string(100'000, '[')), {"nested too deeply"}));
    EXPECT_TRUE(has(header_error(dir, R"({"a":7})"), {"'a'", "JSON object"}));
    EXPECT_TRUE(has(header_error(dir, R"({"__metadata__":7})"), {"__metadata__"}));
    EXPECT_TRUE(has(header_error(dir, R"({"__metadata__":{"k":7}})"), {"__metadata__", "'k'"}));
    const std::string nonsense = std::string(1000, 'x');
    EXPECT_LT(header_error(dir, R"({"a":{"dtype":")" + nonsense + R"("}})").size(), 500u);
}

TEST(Safetensors, RejectsBadEntries) {
    const TempDir dir;
    const auto entry_error = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
        const std::string message = header_error(
            dir, R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", "abcd");
        EXPECT_TRUE(has(message, {"tensor 'a'"}));
        return message;
    };
    EXPECT_TRUE(has(entry_error("\"F31\"", "[1]", "[0,4]"), {"element type", "F31"}));
    EXPECT_TRUE(has(entry_error("3", "[1]", "[0,4]"), {"element type"}));
    for (const char* shape :
         {"null", "4", "[-1]", "[1.0]", "[\"4\"]", "[[4]]", "[9223372036854775808]", "[1e0]", "[1,1,1,1,1,1,1,1,4]"}) {
        EXPECT_TRUE(has(entry_error("\"U8\"", shape, "[0,4]"), {"invalid shape"})) << shape;
    }
    for (const char* offsets : {"null", "[0]", "[0,4,4]", "[-4,0]", "[4,0]", "[0,4.0]", "{}"}) {
        EXPECT_TRUE(has(entry_error("\"U8\"", "[4]", offsets), {"invalid data_offsets"})) << offsets;
    }
    EXPECT_TRUE(has(entry_error("\"U8\"", "[5]", "[0,5]"), {"ends at byte 5", "only 4"}));
    EXPECT_TRUE(has(entry_error("\"U8\"", "[5]", "[0,9223372036854775807]"), {"ends at byte 9223372036854775807"}));
    EXPECT_TRUE(has(entry_error("\"U8\"", "[3]", "[0,4]"), {"4 bytes", "(3) of U8"}));
    EXPECT_TRUE(has(entry_error("\"F32\"", "[4]", "[0,4]"), {"(4) of F32"}));
    // 2^62 * 4 bytes, and 2^32 * 2^32, are 0 modulo 2^64.
    EXPECT_TRUE(has(entry_error("\"F32\"", "[4611686018427387904]", "[0,0]"), {"needs another number"}));
    EXPECT_TRUE(has(entry_error("\"U8\"", "[4294967296,4294967296]", "[0,0]"), {"needs another number"}));
    EXPECT_TRUE(has(header_error(dir, R"({"a":{}})"), {"'a'", "element type null"}));
}

TEST(Safetensors, RejectsHolesAndOverlaps) {
    const TempDir dir;
    const auto two = [](int b0, int b1) {
        return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[)" +
               std::to_string(b1 - b0) + R"(],"data_offsets":[)" + std::to_string(b0) + "," + std::to_string(b1) +
               "]}}";
    };
    SafetensorsFile(dir.write("good.safetensors", file_bytes(two(2, 4), "abcd")));
    EXPECT_TRUE(has(header_error(dir, two(1, 4), "abcd"), {"'b'", "overlaps"}));
    EXPECT_TRUE(has(header_error(dir, two(0, 2), "ab"), {"overlaps"}));
    EXPECT_TRUE(has(header_error(dir, two(3, 4), "abcd"), {"'b'", "hole"}));
    EXPECT_TRUE(has(header_error(dir, two(2, 4), "abcde"), {"1 bytes at its end"}));
    EXPECT_TRUE(has(header_error(dir, "{}", "abcde"), {"5 bytes at its end"}));
}

TEST(Safetensors, EveryTruncationIsAnError) {
    const TempDir dir;
    const std::string good = slurp(write_small(dir));
    for (size_t size = 0; size < good.size(); ++size) open_error(dir, good.substr(0, size));
}

TEST(Safetensors, NoChangedByteCrashesTheReader) {
    const TempDir dir;
    const std::string good = slurp(write_small(dir));
    for (size_t i = 0; i < good.size(); ++i) {
        for (const int mask : {0x01, 0x10, 0x80, 0xff}) {
            std::string bytes = good;
            bytes[i] = static_cast<char>(bytes[i] ^ mask);
            const std::string path = dir.write("bad.safetensors", bytes);
            try {
                const SafetensorsFile file(path);
                for (const auto& tensor : file.tensors()) {
                    EXPECT_EQ(
                        std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()).size(),
                        tensor.bytes.size());
                }
            } catch (const Error& error) {
                EXPECT_TRUE(has(error.what(), {path}));
            }
        }
    }
}

TEST(Safetensors, BeyondTwoGibibytes) {
    const TempDir dir;
    constexpr int64_t kBytes = (int64_t{1} << 31) + 4096;
    const std::string start =
        file_bytes(R"({"a":{"dtype":"U8","shape":[2147487744],"data_offsets":[0,2147487744]}})", "");
    const std::string path = dir.write("big.safetensors", start);
    if (truncate(path.c_str(), static_cast<int64_t>(start.size()) + kBytes) != 0) GTEST_SKIP() << "no sparse files";
    const SafetensorsFile file(path);
    EXPECT_EQ(file.tensors()[0].bytes[kBytes - 1], std::byte{0});
}

TEST(Safetensors, AFullDiskLeavesNoFile) {
    const TempDir dir;
    const std::vector<char> data(100'000);
    const auto write_all = [&](const std::string& path) {
        SafetensorsWriter writer(path, {{"a", DType::U8, {100'000}}});
        writer.write("a", data.data());
        writer.close();
    };
    EXPECT_TRUE(has(error_with_file_limit(50'000, [&] { write_all(dir / "x"); }), {dir / "x", "cannot write"}));
    EXPECT_FALSE(std::filesystem::exists(dir / "x"));
    EXPECT_EQ(error_with_file_limit(200'000, [&] { write_all(dir / "x"); }), "no error");
    EXPECT_TRUE(std::filesystem::exists(dir / "x"));
}

TEST(Safetensors, AnUnfinishedWriterLeavesNoFile) {
    const TempDir dir;
    { SafetensorsWriter writer(dir / "x", {{"a", DType::U8, {1}}}); }
    EXPECT_FALSE(std::filesystem::exists(dir / "x"));
    EXPECT_TRUE(has(error_of([&] { SafetensorsWriter(dir / "none/x", {}); }), {"none/x", "No such file"}));
    EXPECT_TRUE(has(error_of([&] { SafetensorsFile file(dir / "none"); }), {"none", "No such file"}));
}

}  // namespace
}  // namespace llmc
