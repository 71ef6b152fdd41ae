// Every kernel beyond 2^31 elements: the cases of test_offsets_*.cpp, and that there is one for each kernel. The table
// in dev/notes/gpu.md says what was run; it must be what the cases say.
#include "tests/cuda_on_cpu/offsets.h"

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

namespace llmc {

std::vector<uint64_t> all_blocks(const cuda_on_cpu::Grid& grid) {
    std::vector<uint64_t> blocks;
    const uint64_t count = grid.x * grid.y * grid.z;
    CHECK(count < 20000, grid.kernel, count);
    for (uint64_t block = 0; block < count; ++block) blocks.push_back(block);
    return blocks;
}

Choice blocks_of_rows(int64_t N, const Places& places, int64_t rows_per_block) {
    return [=](const cuda_on_cpu::Grid& grid) {
        const int64_t shares = ceil_div(N, rows_per_block), x = static_cast<int64_t>(grid.x);
        std::set<int64_t> columns;
        for (const int64_t place : places) {
            const int64_t share = place / rows_per_block;
            const int64_t end = ceil_div((share + 1) * x, shares);
            for (int64_t column = share * x / shares; column < end; ++column) columns.insert(column);
        }
        std::vector<uint64_t> blocks;
        for (const int64_t column : columns)
            for (uint64_t line = 0; line < grid.y * grid.z; ++line)
                blocks.push_back(static_cast<uint64_t>(column) + grid.x * line);
        return blocks;
    };
}

namespace {

/// "llmc::cuda::gelu_kernel<float, 4>" -> "gelu_kernel".
std::string bare_name(const std::string& kernel) {
    const std::string name = kernel.substr(0, kernel.find('<'));
    const size_t colons = name.rfind(':');
    return colons == std::string::npos ? name : name.substr(colons + 1);
}

}  // namespace

void with_blocks(const std::map<std::string, Choice>& choices, const std::function<void()>& work, const Choice& rest) {
    cuda_on_cpu::set_block_chooser([&](const cuda_on_cpu::Grid& grid) {
        const std::string name = bare_name(grid.kernel);
        launched_kernels.insert(name);
        const auto found = choices.find(name);
        return found == choices.end() ? rest(grid) : found->second(grid);
    });
    work();
    cuda_backend().synchronize();
    cuda_on_cpu::set_block_chooser({});
}

TestBuffer whole_numbers(DType dtype, int64_t rows, int64_t columns, uint32_t item) {
    const auto values = random_integers(rows * columns, 7, item);
    Values shifted;
    for (const int32_t value : values) shifted.push_back(value - 3);
    return TestBuffer(dtype, rows, columns, shifted);
}

Places interesting_rows(int64_t N, const std::vector<int64_t>& columns) {
    std::set<int64_t> places = {0, 1, N - 2, N - 1};
    for (const int64_t C : columns)
        for (const int64_t element : {int64_t{1} << 31, int64_t{1} << 32}) {
            const int64_t row = element / C;
            if (row < N) places.insert({row - 1, row});
        }
    return {places.begin(), places.end()};
}

namespace {

void fill(const TestBuffer& buffer, const RowOperand& operand, uint32_t item) {
    const Tensor tensor = buffer.tensor();
    const int64_t n = tensor.shape[0];
    switch (operand.fill) {
        case RowOperand::Fill::Nothing: std::memset(tensor.data, 0, static_cast<size_t>(tensor.bytes())); return;
        case RowOperand::Fill::Normals:
            buffer.set(random_buffer(DType::F32, n, operand.columns, 1, item).values());
            return;
        case RowOperand::Fill::Whole: buffer.set(whole_numbers(DType::F32, n, operand.columns, item).values()); return;
        case RowOperand::Fill::Ones: buffer.set(Values(static_cast<size_t>(buffer.count()), 1.0)); return;
        case RowOperand::Fill::Integers: {
            const auto values = random_integers(buffer.count(), operand.limit, item);
            std::copy(values.begin(), values.end(), tensor.as<int32_t>());
            return;
        }
        case RowOperand::Fill::Bytes: {
            const auto values = random_integers(buffer.count(), 256, item);
            std::copy(values.begin(), values.end(), static_cast<uint8_t*>(tensor.data));
            return;
        }
        case RowOperand::Fill::Rows:
            for (int64_t i = 0; i < n; ++i) tensor.as<int32_t>()[i] = static_cast<int32_t>((3 * i + 1) % n);
            return;
    }
}

/// Numbers of rows become those in the huge tensor.
TestBuffer moved(const TestBuffer& rows, const Places& places) {
    std::vector<int32_t> values;
    for (int64_t i = 0; i < rows.count(); ++i)
        values.push_back(static_cast<int32_t>(places[static_cast<size_t>(rows.tensor().as<int32_t>()[i])]));
    return TestBuffer(values);
}

}  // namespace

void expect_rows(int64_t N, int64_t rows_per_block, const std::vector<RowOperand>& operands,
                 const RowOperation& operation, const std::map<std::string, Choice>& others) {
    std::vector<int64_t> columns;
    for (const RowOperand& operand : operands) columns.push_back(operand.columns);
    Places places = interesting_rows(N, columns);
    if (places.size() % 3 == 0) places.erase(places.begin() + 1);  // So that Fill::Rows is a permutation.
    std::vector<std::unique_ptr<HugeTensor>> huge;
    std::vector<std::unique_ptr<TestBuffer>> small;
    std::vector<Tensor> tensors;
    const auto n = static_cast<int64_t>(places.size());
    for (const RowOperand& operand : operands) {
        small.push_back(std::make_unique<TestBuffer>(operand.dtype, n, operand.columns));
        fill(*small.back(), operand, static_cast<uint32_t>(small.size()));
        huge.push_back(std::make_unique<HugeTensor>(operand.dtype, N, operand.columns));
        if (operand.fill == RowOperand::Fill::Rows)
            huge.back()->set(places, moved(*small.back(), places));
        else
            huge.back()->set(places, *small.back());
        tensors.push_back(huge.back()->tensor());
    }
    OnDevice device, other_device;
    with_blocks(
        others,
        [&] { operation(cuda_backend(), tensors, [&](const TestBuffer& buffer) { return device(buffer); }, {}); },
        blocks_of_rows(N, places, rows_per_block));

    tensors.clear();
    for (const auto& buffer : small) tensors.push_back(other_device(*buffer));
    operation(
        cuda_backend(), tensors, [&](const TestBuffer& buffer) { return other_device(buffer); }, places);
    other_device.fetch();
    for (size_t i = 0; i < operands.size(); ++i)
        if (operands[i].fill != RowOperand::Fill::Rows) huge[i]->expect(places, *small[i], operands[i].name);
}

// ---- the tests -----------------------------------------------------------------------------------------------------

namespace {

std::vector<OffsetCase> all_cases() {
    std::vector<OffsetCase> all;
    for (const auto& some :
         {offset_cases_of_elements(), offset_cases_of_rows(), offset_cases_of_sums(), offset_cases_of_attention()})
        all.insert(all.end(), some.begin(), some.end());
    return all;
}

/// Kernels that index no tensor by more than the entry of an enumeration.
const std::set<std::string> kOfScalars = {"begin_update_kernel"};

/// For each kernel the most elements that a case runs it at.
std::map<std::string, int64_t> table_of_cases() {
    std::map<std::string, int64_t> table;
    for (const OffsetCase& one : all_cases())
        for (const auto& [kernel, elements] : one.kernels) table[kernel] = std::max(table[kernel], elements);
    return table;
}

std::string text_of(const std::filesystem::path& path) {
    std::ifstream file(path);
    EXPECT_TRUE(file) << path;
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

/// What the sources of the kernels define.
std::set<std::string> kernels_of_sources() {
    static const std::regex definition(R"(__global__[^;{(]*?(?:__launch_bounds__\([^;{]*?\)\s*)?(\w+)\()");
    std::set<std::string> kernels;
    for (const auto& entry : std::filesystem::directory_iterator("llmc/backend/cuda")) {
        if (entry.path().extension() != ".cu" && entry.path().extension() != ".cuh") continue;
        const std::string text = text_of(entry.path());
        for (std::sregex_iterator at(text.begin(), text.end(), definition), end; at != end; ++at)
            kernels.insert((*at)[1]);
    }
    return kernels;
}

class Offsets : public testing::TestWithParam<OffsetCase> {};

}  // namespace

TEST_P(Offsets, GiveWhatASmallTensorGives) {
    launched_kernels.clear();
    huge_counts.clear();
    GetParam().run();
    std::set<std::string> declared;
    for (const auto& [kernel, elements] : GetParam().kernels) {
        declared.insert(kernel);
        EXPECT_TRUE(huge_counts.contains(elements)) << kernel << ": no tensor has " << elements << " elements";
    }
    EXPECT_EQ(launched_kernels, declared);
}

INSTANTIATE_TEST_SUITE_P(Cases, Offsets, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(OffsetsOf, EveryKernelWereRun) {
    std::set<std::string> run = kOfScalars;
    for (const auto& [kernel, elements] : table_of_cases()) run.insert(kernel);
    EXPECT_EQ(kernels_of_sources(), run);
}

TEST(OffsetsOf, TheNotesAreThoseOfTheCases) {
    std::map<std::string, int64_t> noted;
    static const std::regex row(R"(\| `(\w+_kernel)` \| ([0-9,]+) \|)");
    const std::string text = text_of("dev/notes/gpu.md");
    for (std::sregex_iterator at(text.begin(), text.end(), row), end; at != end; ++at) {
        std::string digits = (*at)[2];
        std::erase(digits, ',');
        noted[(*at)[1]] = std::stoll(digits);
    }
    const auto table = table_of_cases();
    EXPECT_TRUE(noted == table) << "the table should be:\n"
                                << [&] {
                                       std::string lines;
                                       for (const auto& [kernel, elements] : table)
                                           lines += fmt::format("| `{}` | {} |\n", kernel, format_count(elements));
                                       return lines;
                                   }();
}

}  // namespace llmc
