// Folders that bitsandbytes quantised (dev/oracle/make_nf4.py): read, written to the byte, and refused where damaged.
// That the models compute what they should is tested in tests/train/test_nf4_models.cpp.
#include "llmc/io/hf_model.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace llmc {
namespace {

using nlohmann::json;

const std::string kGolden = "tests/golden/nf4/";

/// The largest difference of two models' parameters, by the largest value of each.
double largest_difference(const WeightSource& a, const WeightSource& b) {
    double largest = 0;
    for (int index = 0; index < static_cast<int>(a.model().parameters.size()); ++index) {
        const std::vector<float> ours = a.values(index), theirs = b.values(index);
        float top = 0;
        for (const float value : theirs) top = std::max(top, std::fabs(value));
        for (size_t i = 0; i < ours.size(); ++i)
            largest = std::max(largest, double{std::fabs(ours[i] - theirs[i]) / top});
    }
    return largest;
}

TEST(Bitsandbytes, FoldersAreReadNearTheirModels) {
    // Half the widest gap of the table is 0.152; of 255 steps of a row, a half is 0.004.
    const HfModel llama(kGolden + "llama"), gpt2(kGolden + "gpt2");
    const double doubled = largest_difference(HfModel(kGolden + "llama_nf4_double"), llama);
    EXPECT_GT(doubled, 0.05);
    EXPECT_LT(doubled, 0.17);
    const double single = largest_difference(HfModel(kGolden + "gpt2_nf4"), gpt2);
    EXPECT_GT(single, 0.05);
    EXPECT_LT(single, 0.16);
    const double int8 = largest_difference(HfModel(kGolden + "llama_int8"), llama);
    EXPECT_GT(int8, 0.001);
    EXPECT_LT(int8, 0.006);
}

struct WrittenCase {
    const char *plain, *quantised;
    MatrixFormat format;
};

TEST(Bitsandbytes, EveryTensorIsWrittenAsTheLibraryWritesIt) {
    for (const auto& [plain, quantised, format] : {WrittenCase{"llama", "llama_nf4_double", MatrixFormat::Nf4Double},
                                                   WrittenCase{"gpt2", "gpt2_nf4", MatrixFormat::Nf4}}) {
        SCOPED_TRACE(quantised);
        const TempDir dir;
        write_hf_model(dir.path(), HfModel(kGolden + plain), DType::BF16, "{}", format);
        const SafetensorsFile ours(dir / "model.safetensors"), theirs(kGolden + quantised + "/model.safetensors");
        EXPECT_EQ(ours.tensors().size(), theirs.tensors().size());
        for (const SafetensorsView& tensor : theirs.tensors()) {
            const SafetensorsView* same = ours.find(tensor.name);
            ASSERT_NE(same, nullptr) << tensor.name;
            EXPECT_EQ(same->dtype_name, tensor.dtype_name) << tensor.name;
            EXPECT_EQ(same->shape, tensor.shape) << tensor.name;
            EXPECT_TRUE(std::ranges::equal(same->bytes, tensor.bytes)) << tensor.name;
        }
        EXPECT_EQ(ours.metadata(), theirs.metadata());
        json config = json::parse(slurp(dir / "config.json"))["quantization_config"];
        json expected = json::parse(slurp(kGolden + quantised + "/config.json"))["quantization_config"];
        config.erase("bnb_4bit_compute_dtype"), expected.erase("bnb_4bit_compute_dtype");  // Theirs was made for fp32.
        EXPECT_EQ(config, expected);
        EXPECT_EQ(largest_difference(HfModel(dir.path()), HfModel(kGolden + quantised)), 0);
    }
}

TEST(Bitsandbytes, Fp32FoldersComeBack) {
    for (const MatrixFormat format : {MatrixFormat::Nf4, MatrixFormat::Nf4Double}) {
        for (const char* name : {"gpt2", "llama", "llama_tied_bf16"}) {
            const TempDir dir;
            const HfModel source(std::string("tests/golden/hf/") + name);
            write_hf_model(dir.path(), source, DType::F32, "{}", format);
            const HfModel again(dir.path());
            ModelConfig config = again.model().config;
            config.name = source.model().config.name;
            EXPECT_EQ(config, source.model().config);
            EXPECT_LT(largest_difference(again, source), 0.18) << name;
        }
    }
}

/// The error of a golden folder, a file of which has `from` replaced by `to`, of the same length.
std::string error_after(const std::string& name, const std::string& file, const std::string& from,
                        const std::string& to) {
    const TempDir dir;
    for (const char* each : {"config.json", "model.safetensors"}) {
        std::string text = slurp(kGolden + name + "/" + each);
        if (file == each) {
            const size_t place = text.find(from);
            EXPECT_NE(place, std::string::npos) << from;
            if (file != "config.json") {
                EXPECT_EQ(from.size(), to.size());
            }
            text.replace(place, from.size(), to);
        }
        dir.write(each, text);
    }
    return error_of([&] { HfModel model(dir.path()); });
}
std::string tensors_error(const std::string& from, const std::string& to,
                          const std::string& name = "llama_nf4_double") {
    return error_after(name, "model.safetensors", from, to);
}
std::string config_error(const std::string& from, const std::string& to, const std::string& name = "llama_nf4_double") {
    return error_after(name, "config.json", from, to);
}

TEST(Bitsandbytes, OtherFormatsAreRefusedByTheConfiguration) {
    const std::string method = R"("quant_method": "bitsandbytes")";
    for (const char* other : {"gptq", "awq", "fp8", "compressed-tensors", "mxfp4"}) {
        EXPECT_TRUE(has(config_error(method, fmt::format(R"("quant_method": "{}")", other)),
                        {"config.json", "quantization_config", other, "bitsandbytes", "BF16"}));
    }
    EXPECT_TRUE(has(config_error(R"("bnb_4bit_quant_type": "nf4")", R"("bnb_4bit_quant_type": "fp4")"),
                    {"bnb_4bit_quant_type", "fp4"}));
    EXPECT_TRUE(has(config_error(R"("bnb_4bit_quant_type": "nf4",)", ""), {"bnb_4bit_quant_type", "fp4"}));
    EXPECT_TRUE(has(config_error(R"("bnb_4bit_quant_storage": "uint8")", R"("bnb_4bit_quant_storage": "bfloat16")"),
                    {"bnb_4bit_quant_storage", "bfloat16", "uint8"}));
    EXPECT_TRUE(has(config_error(R"("load_in_4bit": true)", R"("load_in_4bit": "yes")"), {"load_in_4bit", "yes"}));
    EXPECT_TRUE(
        has(config_error(R"("load_in_8bit": false)", R"("load_in_8bit": true)"), {"load_in_4bit", "load_in_8bit"}));
}

TEST(Bitsandbytes, DamagedTensorsAreRefused) {
    EXPECT_TRUE(
        has(tensors_error(R"("quant_type": "nf4")", R"("quant_type": "af4")"), {"quant_state", "quant_type", "af4"}));
    EXPECT_TRUE(
        has(tensors_error(R"("blocksize": 64)", R"("blocksize": 32)"), {"quant_state", "blocksize", "32", "64"}));
    EXPECT_TRUE(
        has(tensors_error(R"("nested_blocksize": 256)", R"("nested_blocksize": 128)"), {"nested_blocksize", "128"}));
    EXPECT_TRUE(has(tensors_error(R"("nested_dtype": "float32")", R"("nested_dtype": "float16")"), {"nested_dtype"}));
    EXPECT_TRUE(has(tensors_error(R"("dtype": "bfloat16", "shape")", R"("dtype": "bfloat61", "shape")"),
                    {"dtype", "bfloat61"}));
    EXPECT_TRUE(has(tensors_error(R"("quant_type": "nf4", )", R"("quant_type": "nf4"; )"), {"quant_state", "JSON"}));
    EXPECT_TRUE(
        has(tensors_error(R"("shape": [32, 36])", R"("shape": [36, 32])"), {"down_proj", "(36, 32)", "(32, 36)"}));
    EXPECT_TRUE(has(tensors_error("_proj.weight.quant_map", "_proj.weight.quant_mop"), {"quant_map", "belongs to it"}));
    EXPECT_TRUE(has(tensors_error("_proj.weight.absmax", "_proj.weight.obsmax"), {".absmax", "copy all files"}));
    EXPECT_TRUE(has(tensors_error("nested_absmax", "nested_obsmax"), {"nested_absmax"}));
    EXPECT_TRUE(has(tensors_error("bitsandbytes__nf4", "bitsandbytes__nf5"), {"quant_state.bitsandbytes__nf4"}));
    EXPECT_TRUE(has(tensors_error("bitsandbytes__nf4", "bitsandbytes__fp4"), {"fp4", "bnb_4bit_quant_type=nf4"}));
    EXPECT_TRUE(
        has(tensors_error(R"("shape":[576,1])", R"("shape":[1,576])"), {"down_proj.weight", "(1, 576)", "(576, 1)"}));
    std::string table(16 * sizeof(float), '\0');
    std::memcpy(table.data(), kNf4Values.data(), table.size());
    std::string other = table;
    const float value = 0.5f;
    std::memcpy(other.data() + 12 * sizeof value, &value, sizeof value);
    EXPECT_TRUE(has(tensors_error(table, other), {"quant_map", "0.5", "nf4"}));
}

TEST(Bitsandbytes, Int8NeedsItsRows) {
    EXPECT_TRUE(
        has(tensors_error("q_proj.SCB", "q_proj.XCB", "llama_int8"), {"q_proj.weight", "q_proj.SCB", "belongs"}));
    EXPECT_TRUE(has(tensors_error(R"("dtype":"I8")", R"("dtype":"U8")", "llama_int8"), {"U8", "I8"}));
}

TEST(Bitsandbytes, QuantisedTensorsNeedTheConfiguration) {
    EXPECT_TRUE(
        has(config_error("quantization_config", "quantization_gone"), {"U8", "quantization_config", "config.json"}));
}

}  // namespace
}  // namespace llmc
