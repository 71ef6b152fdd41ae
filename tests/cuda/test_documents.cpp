// Documents that share a sequence on the CUDA backend: the bits of each alone where they begin at tiles, and what the
// CPU gives wherever they begin.
#include "tests/backend/documents_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

constexpr auto kOnCuda = [](const auto& operation) { run_on_cuda(operation); };
constexpr auto kOnCpu = [](const auto& operation) { run_on_cpu(operation); };

/// Both backends have streams of their own.
constexpr auto kOnHopper = [](const auto& operation) {
    OnDevice device;
    operation(hopper_backend(), [&](const TestBuffer& buffer) {
        const Tensor tensor = device(buffer);
        cuda_backend().synchronize();
        return tensor;
    });
    hopper_backend().synchronize();
    device.fetch();
};

/// Documents begin at multiples of kDocumentTile.
const DocumentsCase kTiled[] = {
    {{{128, 50}}, 1, 1, 16},       {{{256, 20}, {128, 148}}, 2, 1, 64}, {{{128, 128, 9}}, 2, 2, 40},
    {{{128, 256, 30}}, 1, 1, 128}, {{{256, 77}}, 2, 1, 32, 70},
};

/// They begin anywhere.
const DocumentsCase kRagged[] = {
    {{{5, 3, 1, 7}}, 2, 2, 8}, {{{61, 70, 2}, {133}}, 4, 2, 33}, {{{100, 93, 7}}, 2, 1, 64},
    {{{30, 150}}, 1, 1, 128},  {{{97, 40, 3}}, 2, 1, 16, 12},
};

TEST(Documents, AttentionGivesTheBitsOfEachAlone) {
    for (const DType dtype : kActivationTypes) {
        for (const DocumentsCase& c : kTiled) expect_attention_as_alone(kOnCuda, dtype, c);
    }
}

// Those that Hopper's kernels take, and of which their tiles of 192 queries begin within.
const DocumentsCase kHopperTiled[] = {
    {{{256, 20}, {128, 148}}, 2, 1, 64},
    {{{128, 256, 30}}, 1, 1, 128},
    {{{128, 128, 77}}, 2, 1, 64, 70},
};

TEST(HopperDocuments, AttentionGivesTheBitsOfEachAlone) {
    for (const DocumentsCase& c : kHopperTiled) expect_attention_as_alone(kOnHopper, DType::BF16, c);
}

TEST(Documents, TilesOfOthersAreNotLookedAt) {
    for (const DType dtype : kActivationTypes) {
        expect_others_unread(kOnCuda, dtype, kTiled[2], 1);
        expect_others_unread(kOnCuda, dtype, kTiled[1], 2);
    }
}

template <typename OnCuda>
void expect_attention_of_the_cpu(OnCuda on_cuda, DType dtype, const DocumentsCase& c) {
    SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), c.name()));
    const AttentionInputs x(dtype, c.shape());
    const TestBuffer qkv = converted(DType::F32, x.qkv), d_out = converted(DType::F32, x.d_out);
    const TestBuffer starts(c.starts());
    const AttentionResults ours(on_cuda, c.shape(), x.qkv, x.d_out, &starts);
    const AttentionResults cpu(kOnCpu, c.shape(), x.qkv, x.d_out, &starts);
    const AttentionResults truth(kOnCpu, c.shape(), qkv, d_out, &starts);
    expect_as_good_as_cpu(ours.out, cpu.out, truth.out);
    expect_as_good_as_cpu(ours.lse, cpu.lse, truth.lse);
    // The CPU rounds less on its way; rounding of probabilities and scores adds up over the keys.
    const double slack = dtype == DType::BF16 ? 8 * rounding_error(dtype, truth.d_qkv.values()) : 1e-5;
    EXPECT_LE(largest_error(ours.d_qkv.values(), truth.d_qkv.values()), slack);
}

TEST(Documents, AttentionIsThatOfTheCpu) {
    for (const DType dtype : kActivationTypes) {
        for (const DocumentsCase& c : kRagged) expect_attention_of_the_cpu(kOnCuda, dtype, c);
    }
}

TEST(HopperDocuments, AttentionIsThatOfTheCpu) {
    for (const DocumentsCase& c : {kRagged[2], kRagged[3], DocumentsCase{{{97, 40, 133, 3}}, 2, 1, 64, 12}}) {
        expect_attention_of_the_cpu(kOnHopper, DType::BF16, c);
    }
}

TEST(Documents, SameBitsUnderEverySchedule) {
    const DocumentsCase& c = kRagged[1];
    const AttentionInputs x(DType::BF16, c.shape());
    const TestBuffer starts(c.starts());
    expect_same_bits_at_every_seed([&] {
        const AttentionResults y(kOnCuda, c.shape(), x.qkv, x.d_out, &starts);
        std::vector<std::byte> bytes = y.out.bytes(), more = y.d_qkv.bytes();
        bytes.insert(bytes.end(), more.begin(), more.end());
        return bytes;
    });
}

TEST(Documents, PositionsBeginAnew) {
    for (const DType dtype : kActivationTypes) {
        for (const DocumentsCase& c : kRagged) {
            expect_rope_as_alone(kOnCuda, dtype, c);
            for (const int64_t C : {8, 33}) expect_embedding_by_position(kOnCuda, dtype, c, C);
        }
    }
}

TEST(Rows, AreGathered) {
    for (const DType dtype : kActivationTypes) {
        for (const int64_t C : {1, 5, 64, 1032}) expect_rows_gathered(kOnCuda, dtype, C);
    }
}

}  // namespace
}  // namespace llmc
