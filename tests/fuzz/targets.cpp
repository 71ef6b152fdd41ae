#include "tests/fuzz/targets.h"

#include "llmc/comm/gate.h"
#include "llmc/comm/link.h"
#include "llmc/comm/rendezvous.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/llmc_model.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/config_file.h"
#include "llmc/train/hellaswag_tokens.h"
#include "llmc/train/options.h"
#include "llmc/train/text_ends.h"
#include "tests/fuzz/data_targets.h"
#include "tests/fuzz/tokenizer_targets.h"
#include "tests/io/hellaswag_file.h"
#include "tests/io/temp_dir.h"

#include <nlohmann/json.hpp>

#include <cstring>
#include <filesystem>
#include <sys/socket.h>
#include <unistd.h>

namespace llmc {
namespace {

void write_file(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
}

/// A model of a few hundred parameters.
class SmallModel final : public WeightSource {
  public:
    explicit SmallModel(const char* name) : WeightSource(make_model(config_of(name))) {}
    void read(int parameter, std::span<float> out) const override {
        for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(parameter) + 0.25f * static_cast<float>(i);
    }
    std::string describe() const override { return "a small model"; }

  private:
    static ModelConfig config_of(const char* name) {
        ModelConfig config = preset(name);
        config.L = 1, config.C = 8, config.NH = config.NKV = 2, config.HD = 4, config.F = 32;
        config.V = 11, config.maxT = 16;
        return config;
    }
};

void read_all(const WeightSource& weights) {
    for (size_t i = 0; i < weights.model().parameters.size(); ++i) weights.values(static_cast<int>(i));
}

std::string header_of(const std::string& safetensors) {
    uint64_t size = 0;
    std::memcpy(&size, safetensors.data(), sizeof size);
    return safetensors.substr(sizeof size, size);
}

// ---- models ----------------------------------------------------------------------------------------------------

std::vector<FuzzTarget> model_targets(const std::string& folder) {
    std::vector<std::string> configs, tensors;
    for (const char* name : {"gpt2-nano", "llama-nano"}) {
        const std::string place = folder + "/" + name;
        std::filesystem::create_directory(place);
        write_hf_model(place, SmallModel(name), DType::F32, R"({"bos_token_id":1,"eos_token_id":[2,3]})");
        configs.push_back(slurp(place + "/config.json"));
        tensors.push_back(slurp(place + "/model.safetensors"));
    }
    write_llmc_model(folder + "/model.bin", SmallModel("gpt2-nano"), DType::F32);
    const std::string index = R"({"metadata": {"total_size": 9}, "weight_map": {"wte.weight": "model.safetensors"}})";
    // The other files of a folder are those of the GPT-2.
    const auto in_folder = [configs, tensors](const std::string& config, const std::string& safetensors,
                                              const std::string& place) {
        write_file(place + "/config.json", config);
        write_file(place + "/model.safetensors", safetensors);
        read_all(HfModel(place));
    };
    return {
        {"config.json", configs,
         [in_folder, tensors](const std::string& content, const std::string& place) {
             write_file(place + "/config.json", content);
             end_tokens(ByteTokenizer(), place, 300);
             in_folder(content, tensors[0], place);
         }},
        {"safetensors", tensors,
         [in_folder, configs](const std::string& content, const std::string& place) {
             in_folder(configs[content.find("self_attn") == std::string::npos ? 0 : 1], content, place);
         }},
        {"a safetensors header",
         {header_of(tensors[0]), header_of(tensors[1])},
         [in_folder, configs, tensors](const std::string& content, const std::string& place) {
             const size_t which = content.find("self_attn") == std::string::npos ? 0 : 1;
             const uint64_t size = content.size();
             const std::string data = tensors[which].substr(8 + header_of(tensors[which]).size());
             in_folder(configs[which], std::string(reinterpret_cast<const char*>(&size), 8) + content + data, place);
         }},
        {"model.safetensors.index.json",
         {index},
         [configs](const std::string& content, const std::string& place) {
             write_file(place + "/config.json", configs[0]);
             std::filesystem::remove(place + "/model.safetensors");
             write_file(place + "/model.safetensors.index.json", content);
             HfModel{place};
         }},
        {"llm.c's model file",
         {slurp(folder + "/model.bin")},
         [](const std::string& content, const std::string& place) {
             write_file(place + "/model.bin", content);
             read_all(LlmcModel(place + "/model.bin"));
         }},
    };
}

// ---- checkpoints -----------------------------------------------------------------------------------------------

/// A checkpoint of these two files, correctly signed.
void put_checkpoint(const std::string& place, const std::string& tensors, const std::string& state) {
    const std::string step = place + "/checkpoints/step-00000000";
    std::filesystem::create_directories(step);
    write_file(step + "/model.safetensors", tensors);
    const auto bytes = std::as_bytes(std::span(tensors));
    const ManifestFile file = {"model.safetensors", static_cast<int64_t>(tensors.size()), checksum_of(bytes)};
    write_file(step + "/manifest.json", manifest_text({0, {file}, state}));
    write_file(place + "/checkpoints/latest", "step-00000000\n");
}

void use_checkpoint(const std::string& place) {
    const CheckpointWeights weights(open_checkpoint(place, "--run"));
    read_all(weights);
    weights.tokenizer();
}

std::vector<FuzzTarget> checkpoint_targets(const std::string& folder) {
    save_imported(folder + "/run", SmallModel("llama-nano"), "bytes");
    const std::string step = folder + "/run/checkpoints/step-00000000";
    const std::string tensors = slurp(step + "/model.safetensors"), manifest = slurp(step + "/manifest.json");
    const std::string state = open_checkpoint(folder + "/run", "--run").state;
    return {
        {"manifest.json",
         {manifest},
         [tensors, state, step](const std::string& content, const std::string& place) {
             put_checkpoint(place, tensors, state);
             write_file(place + "/checkpoints/step-00000000/manifest.json", content);
             use_checkpoint(place);
         }},
        {"a checkpoint's state",
         {state},
         [tensors](const std::string& content, const std::string& place) {
             const auto changed = nlohmann::json::parse(content, nullptr, /*allow_exceptions=*/false);
             if (!changed.is_object()) return;
             put_checkpoint(place, tensors, changed.dump());
             use_checkpoint(place);
         }},
        {"a checkpoint's tensors",
         {tensors},
         [state](const std::string& content, const std::string& place) {
             put_checkpoint(place, content, state);
             use_checkpoint(place);
         }},
        {"latest",
         {"step-00000000\n"},
         [tensors, state](const std::string& content, const std::string& place) {
             put_checkpoint(place, tensors, state);
             write_file(place + "/checkpoints/latest", content);
             use_checkpoint(place);
         }},
    };
}

// ---- options, messages -------------------------------------------------------------------------------------------

std::vector<FuzzTarget> option_targets() {
    return {
        {"config.toml",
         {config_of_run(Options(), "runs/x"), "steps = 2_0\nlearning-rate=3e-4 # peak\r\ndata = \"a \\\"b\\\" c\"\n",
          "[model]\n'layers' = 0x2\nmodel.a.b = [1979-05-27, {}]\n[[run]]\nx = \"\"\"\na\"\"\"\n"},
         [](const std::string& content, const std::string& place) {
             write_file(place + "/config.toml", content);
             for (const ConfigEntry& entry : read_config(place + "/config.toml", "--config")) {
                 quoted(entry.value.text);
             }
             const std::string config = "--config=" + place + "/config.toml";
             const char* const words[] = {"train_gpt", config.c_str()};
             parse_options(2, words);
         }}};
}

/// "NAME=VALUE" lines as variables.
Environment environment_of(const std::string& text) {
    Environment environment;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const size_t equals = line.find('=');
        if (equals != std::string::npos) environment[line.substr(0, equals)] = line.substr(equals + 1);
    }
    return environment;
}

/// What another rank could send.
void hear(const std::string& content) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return;
    Link link{Socket(ends[0])};
    link.expect({{MessageType::Hello, kLongestHello}, {MessageType::Start, 4096}, {MessageType::Heartbeat, 64}});
    (void)!::write(ends[1], content.data(), content.size());
    close(ends[1]);
    for (int round = 0; round < 100; ++round) {
        const bool is_open = link.exchange();
        while (const std::optional<Message> message = link.take()) unpack(message->payload);
        if (!is_open) break;
    }
}

/// What a stranger could send to a gate.
void knock_with(const std::string& content) {
    int error = 0;
    std::vector<Socket> listeners = listen_at({"127.0.0.1"}, 0, &error);
    if (listeners.empty()) return;
    std::string why;
    const Socket stranger = connect_to("127.0.0.1", port_of(listeners[0]), 5, &why);
    Gate gate(std::move(listeners), Secret("a secret", "job"), "meet");
    (void)!::send(stranger.descriptor(), content.data(), content.size(), MSG_NOSIGNAL);
    for (int round = 0; round < 5; ++round) {
        if (!gate.admit().empty()) throw std::logic_error("a stranger was let in");
    }
}

/// Messages as a link sends them.
std::string messages() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return "";
    Link link{Socket(ends[0])};
    link.send(MessageType::Knock, std::string(kNonceBytes, 'n'));
    link.send(MessageType::Hello, pack({std::string(kProofBytes, 'p'), pack({"1", "2", "host"})}));
    link.send(MessageType::Start, pack({"host", "10.0.0.1", "other", "10.0.0.2"}));
    link.send(MessageType::Heartbeat, "");
    link.exchange();
    std::string text(4096, '\0');
    text.resize(static_cast<size_t>(std::max<ssize_t>(0, ::read(ends[1], text.data(), text.size()))));
    close(ends[1]);
    return text;
}

std::vector<FuzzTarget> rank_targets() {
    const std::string by_hand = "RANK=1\nWORLD_SIZE=2\nMASTER_ADDR=10.0.0.1\nMASTER_PORT=1234\n";
    const std::string slurm =
        "SLURM_PROCID=1\nSLURM_NTASKS=4\nSLURM_JOB_ID=77\nSLURM_STEP_ID=0\nSLURM_STEP_NODELIST=node[03-07,9],login1\n";
    const std::string mpirun = "OMPI_COMM_WORLD_RANK=1\nOMPI_COMM_WORLD_SIZE=2\nPMIX_NAMESPACE=prte-1@1\n";
    return {
        {"the variables of ranks",
         {by_hand, slurm, mpirun},
         [](const std::string& content, const std::string&) {
             const Environment environment = environment_of(content);
             first_slurm_host(content);
             const World world = read_world("auto", environment, false);
             warning_of_others("auto", world, environment);
             require_company(world, environment);
             launcher_that_binds(environment);
             read_world("tcp", environment, false);
         }},
        {"the place of rank 0",
         {"train_gpt: where rank 0 listens\njob 7\nsecret abc\nport 4000\nhost 10.0.0.1\nhost a\n"},
         [](const std::string& content, const std::string& place) {
             write_file(place + "/place", content);
             std::filesystem::permissions(place + "/place", std::filesystem::perms(0600));
             World world;
             world.way = World::Way::File, world.rank = 1, world.size = 2, world.path = place + "/place";
             std::string why;
             prepare_meeting(world, "host").find_root(&why);
         }},
        {"messages of ranks",
         {messages()},
         [](const std::string& content, const std::string&) {
             hear(content);
             knock_with(content);
             unpack(content);
             to_integer(content);
         }},
    };
}

FuzzTarget hellaswag_target() {
    const std::vector<HellaswagExample> examples = {{{1, 2, 3}, {{4}, {5, 6}}, 1},
                                                    {{65, 66}, {{7}, {8}, {9}, {10}}, 3}};
    return {"HellaSwag", {hellaswag_bytes(examples)}, [](const std::string& content, const std::string& place) {
                write_file(place + "/swag.bin", content);
                const auto read = read_hellaswag(place + "/swag.bin", "--hellaswag");
                require_tokens_of(ByteTokenizer(), 257, read, "swag.bin");
            }};
}

}  // namespace

std::vector<FuzzTarget> fuzz_targets(const std::string& folder) {
    std::vector<FuzzTarget> targets = {hellaswag_target()};
    for (const auto& group : {tokenizer_targets(folder), data_targets(), model_targets(folder),
                              checkpoint_targets(folder), option_targets(), rank_targets()}) {
        targets.insert(targets.end(), group.begin(), group.end());
    }
    return targets;
}

}  // namespace llmc
