// Hugging Face folders, from those that dev/oracle/make_hf_models.py wrote. That the models compute what PyTorch does
// is tested in tests/train/test_initial_weights.cpp.
#include "llmc/io/hf_model.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstring>
#include <functional>
#include <map>

namespace llmc {
namespace {

const std::string kGolden = "tests/golden/hf/";

/// A tensor of a folder that a test takes apart.
struct StoredTensor {
    DType dtype = DType::F32;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;
};
using Tensors = std::map<std::string, StoredTensor>;

Tensors tensors_of(const std::string& folder) {
    Tensors tensors;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".safetensors") continue;
        const SafetensorsFile file(entry.path().string());
        for (const SafetensorsView& view : file.tensors()) {
            tensors[view.name] = {*view.dtype, view.shape, {view.bytes.begin(), view.bytes.end()}};
        }
    }
    return tensors;
}

void write_tensors(const std::string& path, const Tensors& tensors) {
    std::vector<SafetensorsEntry> entries;
    for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype, tensor.shape});
    SafetensorsWriter writer(path, entries);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor.bytes.data());
    writer.close();
}

/// The error of a golden model whose tensors were changed.
std::string error_after(const std::string& name, const std::function<void(Tensors&)>& change) {
    const TempDir dir;
    Tensors tensors = tensors_of(kGolden + name);
    change(tensors);
    dir.write("config.json", slurp(kGolden + name + "/config.json"));
    write_tensors(dir / "model.safetensors", tensors);
    const std::string message = error_of([&] { HfModel model(dir.path()); });
    EXPECT_TRUE(has(message, {dir.path()}));
    return message;
}

TEST(HfModel, ReadsRowsAndColumnsInOurLayout) {
    const Tensors tensors = tensors_of(kGolden + "gpt2");
    const HfModel gpt2(kGolden + "gpt2");
    const int index = gpt2.model().find_parameter("layers.1.qkv_weight");
    const std::vector<float> ours = gpt2.values(index);
    std::vector<float> theirs(24 * 72);
    std::memcpy(theirs.data(), tensors.at("h.1.attn.c_attn.weight").bytes.data(), theirs.size() * sizeof(float));
    for (size_t out = 0; out < 72; ++out) {
        for (size_t in = 0; in < 24; ++in) ASSERT_EQ(ours[out * 24 + in], theirs[in * 72 + out]) << out << " " << in;
    }
    const Tensors llama_tensors = tensors_of(kGolden + "llama");
    const HfModel llama(kGolden + "llama");
    const std::vector<float> qkv = llama.values(llama.model().find_parameter("layers.2.qkv_weight"));
    size_t row = 0;
    for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
        const StoredTensor& tensor = llama_tensors.at(std::string("model.layers.2.self_attn.") + part + ".weight");
        EXPECT_EQ(std::memcmp(qkv.data() + row * 48, tensor.bytes.data(), tensor.bytes.size()), 0) << part;
        row += static_cast<size_t>(tensor.shape[0]);
    }
    EXPECT_EQ(row, 80u);
    EXPECT_EQ(llama.model().config.name, "llama");
    EXPECT_EQ(HfModel(kGolden + "llama/").model().config.name, "llama");
}

class HfRoundTrip : public testing::TestWithParam<std::tuple<const char*, DType>> {};

/// Every parameter tensor of the file, by its full name, is bitwise in what is written from it.
TEST_P(HfRoundTrip, EveryTensorComesBack) {
    const auto [name, dtype] = GetParam();
    const TempDir dir;
    write_hf_model(dir.path(), HfModel(kGolden + name), dtype, "{}");
    const Tensors before = tensors_of(kGolden + name), after = tensors_of(dir.path());
    size_t compared = 0;
    for (const auto& [key, tensor] : before) {
        if (is_hf_buffer(key)) continue;
        const auto found = after.find(after.count(key) > 0 ? key : "transformer." + key);
        ASSERT_NE(found, after.end()) << key;
        EXPECT_EQ(found->second.shape, tensor.shape) << key;
        EXPECT_EQ(found->second.dtype, dtype) << key;
        EXPECT_EQ(found->second.bytes, tensor.bytes) << key;
        ++compared;
    }
    EXPECT_EQ(compared, after.size());
    const SafetensorsFile file(dir / "model.safetensors");
    EXPECT_EQ(file.metadata().at("format"), "pt");
    ModelConfig config = read_hf_config(dir.path());
    config.name = name;
    EXPECT_EQ(config, read_hf_config(kGolden + name));
}

INSTANTIATE_TEST_SUITE_P(Models, HfRoundTrip,
                         testing::Values(std::tuple("gpt2", DType::F32), std::tuple("llama", DType::F32),
                                         std::tuple("llama_tied_bf16", DType::BF16)),
                         [](const auto& info) { return std::string(std::get<0>(info.param)); });

TEST(HfModel, HalfPrecisionIsWidenedExactly) {
    const HfModel model(kGolden + "gpt2_fp16");
    const StoredTensor stored = tensors_of(kGolden + "gpt2_fp16").at("transformer.wte.weight");
    const std::vector<float> values = model.values(model.model().wte);
    ASSERT_EQ(values.size() * 2, stored.bytes.size());
    for (size_t i = 0; i < values.size(); ++i) {
        uint16_t bits = 0;
        std::memcpy(&bits, stored.bytes.data() + 2 * i, 2);
        EXPECT_EQ(values[i], fp16_to_float(bits));
    }
}

TEST(HfModel, ATiedHeadMayBeThereAsACopy) {
    const TempDir dir;
    Tensors tensors = tensors_of(kGolden + "gpt2");
    tensors["lm_head.weight"] = tensors.at("wte.weight");
    dir.write("config.json", slurp(kGolden + "gpt2/config.json"));
    write_tensors(dir / "model.safetensors", tensors);
    EXPECT_EQ(HfModel(dir.path()).model().config.V, 61);
    tensors["lm_head.weight"].bytes[5] ^= std::byte{1};
    write_tensors(dir / "model.safetensors", tensors);
    EXPECT_TRUE(has(error_of([&] { HfModel model(dir.path()); }), {"lm_head.weight", "tie_word_embeddings"}));
}

/// Every tensor under another name.
Tensors renamed(const Tensors& tensors, const std::function<std::string(const std::string&)>& name) {
    Tensors result;
    for (const auto& [old, tensor] : tensors) result[name(old)] = tensor;
    return result;
}

TEST(HfModel, NamesOfWrappersArePassedOver) {
    const HfModel plain(kGolden + "gpt2");
    const std::function<std::string(const std::string&)> wrappers[] = {
        [](const std::string& name) { return "module." + name; },
        [](const std::string& name) { return "_orig_mod." + name; },
        [](const std::string& name) { return "module._orig_mod.transformer." + name; },
        [](const std::string& name) { return "_fsdp_wrapped_module.transformer." + name; },
        [](const std::string& name) {
            return name.starts_with("h.") ? name.substr(0, 4) + "_checkpoint_wrapped_module." + name.substr(4) : name;
        }};
    for (const auto& wrapper : wrappers) {
        const TempDir dir;
        dir.write("config.json", slurp(kGolden + "gpt2/config.json"));
        const Tensors tensors = renamed(tensors_of(kGolden + "gpt2"), wrapper);
        write_tensors(dir / "model.safetensors", tensors);
        const HfModel wrapped(dir.path());
        for (size_t i = 0; i < plain.model().parameters.size(); ++i) {
            ASSERT_EQ(wrapped.values(static_cast<int>(i)), plain.values(static_cast<int>(i))) << tensors.begin()->first;
        }
    }
    EXPECT_EQ(unwrapped_hf_name("a.module"), "a.module") << "a name of its own, not a wrapper";
    EXPECT_EQ(unwrapped_hf_name("modules.weight"), "modules.weight");
    EXPECT_EQ(unwrapped_hf_name(""), "");
}

TEST(HfModel, ASharedMatrixMayHaveTheHeadsNameOnly) {
    const TempDir dir;
    Tensors tensors = tensors_of(kGolden + "llama_tied_bf16");
    auto node = tensors.extract("model.embed_tokens.weight");
    node.key() = "lm_head.weight";
    tensors.insert(std::move(node));
    dir.write("config.json", slurp(kGolden + "llama_tied_bf16/config.json"));
    write_tensors(dir / "model.safetensors", tensors);
    const HfModel model(dir.path()), whole(kGolden + "llama_tied_bf16");
    EXPECT_EQ(model.values(model.model().wte), whole.values(whole.model().wte));
    tensors.at("lm_head.weight").shape[0] += 1;
    tensors.at("lm_head.weight").bytes.resize(tensors.at("lm_head.weight").bytes.size() + 72);
    write_tensors(dir / "model.safetensors", tensors);
    EXPECT_TRUE(has(error_of([&] { HfModel wrong(dir.path()); }), {"lm_head.weight", "(54, 36)", "(53, 36)"}));
}

TEST(HfModel, ListsMissingAndUnusedTensors) {
    const std::string missing = error_after("gpt2", [](Tensors& tensors) {
        tensors.erase("h.1.ln_1.bias");
        tensors.erase("wpe.weight");
    });
    EXPECT_TRUE(has(missing, {"lacks", "transformer.h.1.ln_1.bias", "transformer.wpe.weight"}));
    const std::string extra = error_after("llama", [](Tensors& tensors) {
        tensors["model.layers.0.self_attn.q_proj.bias"] = tensors.at("model.norm.weight");
        tensors["model.layers.3.mlp.up_proj.weight"] = tensors.at("model.layers.2.mlp.up_proj.weight");
    });
    EXPECT_TRUE(
        has(extra, {"nothing uses", "model.layers.0.self_attn.q_proj.bias", "model.layers.3.mlp.up_proj.weight"}));
    const std::string both = error_after("llama", [](Tensors& tensors) {
        auto node = tensors.extract("lm_head.weight");
        node.key() = "head.weight";
        tensors.insert(std::move(node));
    });
    EXPECT_TRUE(has(both, {"lacks lm_head.weight", "nothing uses head.weight"}));
    const std::string many = error_after("llama", [](Tensors& tensors) {
        std::erase_if(tensors, [](const auto& item) { return item.first.find("proj") != std::string::npos; });
    });
    EXPECT_TRUE(has(many, {"and 13 more"}));
}

TEST(HfModel, NamesTensorsOfAnotherShapeOrType) {
    const std::string transposed = error_after("gpt2", [](Tensors& tensors) {
        std::swap(tensors.at("h.0.mlp.c_fc.weight").shape[0], tensors.at("h.0.mlp.c_fc.weight").shape[1]);
    });
    EXPECT_TRUE(has(transposed, {"h.0.mlp.c_fc.weight", "(96, 24)", "(24, 96)"}));
    const std::string typed = error_after("gpt2", [](Tensors& tensors) { tensors.at("ln_f.bias").dtype = DType::I32; });
    EXPECT_TRUE(has(typed, {"ln_f.bias", "I32", "F16"}));
    const std::string twice =
        error_after("gpt2", [](Tensors& tensors) { tensors["transformer.ln_f.bias"] = tensors.at("ln_f.bias"); });
    EXPECT_TRUE(has(twice, {"ln_f.bias", "twice"}));
}

TEST(HfModel, DamagedFilesAreErrorsThatNameThem) {
    const TempDir dir;
    dir.write("config.json", slurp(kGolden + "gpt2/config.json"));
    const std::string good = slurp(kGolden + "gpt2/model.safetensors");
    for (size_t size = 0; size < good.size(); size += 997) {
        dir.write("model.safetensors", good.substr(0, size));
        EXPECT_TRUE(has(error_of([&] { HfModel model(dir.path()); }), {dir / "model.safetensors"}));
    }
    std::string long_header = good;
    long_header[5] = 1;
    dir.write("model.safetensors", long_header);
    EXPECT_TRUE(has(error_of([&] { HfModel model(dir.path()); }), {dir / "model.safetensors", "header"}));
    std::filesystem::remove(dir / "model.safetensors");
    EXPECT_TRUE(has(error_of([&] { HfModel model(dir.path()); }), {dir.path(), "neither model.safetensors"}));
    dir.write("pytorch_model.bin", "x");
    EXPECT_TRUE(has(error_of([&] { HfModel model(dir.path()); }), {"pytorch_model.bin", "safetensors"}));
}

/// The sharded golden model with its index changed.
class ShardedFolder {
  public:
    ShardedFolder() {
        std::filesystem::copy(kGolden + "llama", dir_.path(), std::filesystem::copy_options::recursive);
        index_ = nlohmann::json::parse(slurp(dir_ / kIndex));
    }
    nlohmann::json& shard_of(const std::string& tensor) { return index_["weight_map"][tensor]; }
    std::string operator/(const std::string& name) const { return dir_ / name; }
    std::string error() const { return error_with(index_.dump()); }
    std::string error_with(const std::string& index) const {
        dir_.write(kIndex, index);
        return error_of([&] { HfModel model(dir_.path()); });
    }

  private:
    static constexpr const char* kIndex = "model.safetensors.index.json";
    TempDir dir_;
    nlohmann::json index_;
};

TEST(HfModel, ShardsOutsideTheFolderAreRefused) {
    for (const char* place :
         {"../model-00001-of-00003.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\b"}) {
        ShardedFolder folder;
        folder.shard_of("model.norm.weight") = place;
        EXPECT_TRUE(has(folder.error(), {"model.safetensors.index.json", "model.norm.weight", "refused"})) << place;
    }
    ShardedFolder folder;
    folder.shard_of("model.norm.weight") = 3;
    EXPECT_TRUE(has(folder.error(), {"refused"}));
}

TEST(HfModel, AnIndexThatDoesNotFitIsAnError) {
    ShardedFolder folder;
    EXPECT_TRUE(has(folder.error_with("{"), {"index.json", "JSON"}));
    EXPECT_TRUE(has(folder.error_with("{}"), {"index.json", "weight_map"}));
    const std::string shard = folder.shard_of("model.norm.weight");
    folder.shard_of("model.norm.weight") = shard == "model-00001-of-00003.safetensors"
                                               ? "model-00002-of-00003.safetensors"
                                               : "model-00001-of-00003.safetensors";
    EXPECT_TRUE(has(folder.error(), {"model.norm.weight", "the index places"}));
    folder.shard_of("model.norm.weight") = shard;
    std::filesystem::remove(folder / "model-00002-of-00003.safetensors");
    EXPECT_TRUE(has(folder.error(), {"model-00002-of-00003.safetensors", "not there"}));
}

}  // namespace
}  // namespace llmc
