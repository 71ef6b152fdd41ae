// gemm.h on OpenBLAS's sgemm, where oneDNN is absent: fp32 only. OpenBLAS keeps scratch memory of its own. It must be
// the OpenMP build: the pthread build brings a second pool of threads that fights with OpenMP's.
#if defined(LLMC_WITH_OPENBLAS) && !defined(LLMC_WITH_ONEDNN)

#include "llmc/backend/cpu/gemm.h"

#include "llmc/base/check.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <list>
#include <mutex>

namespace llmc::cpu {

/// OpenBLAS has no kernel objects: this only remembers the sizes.
class Gemm {
  public:
    GemmSpec spec;
};

namespace {

/// OpenBLAS asks OpenMP at every call how many threads to use. Inside this scope the answer is 1, whether or not a
/// parallel region is active. It is a setting of the calling thread alone.
class SingleThreadScope {
  public:
    SingleThreadScope() : threads_before_(omp_get_max_threads()) { omp_set_num_threads(1); }
    ~SingleThreadScope() { omp_set_num_threads(threads_before_); }
    SingleThreadScope(const SingleThreadScope&) = delete;
    SingleThreadScope& operator=(const SingleThreadScope&) = delete;

  private:
    int threads_before_;
};

/// C = or += the bias in every row; sgemm adds the product to it.
void put_bias(const GemmSpec& spec, float* c, const float* bias) {
    for (int64_t i = 0; i < spec.m; ++i) {
        float* const row = c + i * spec.ldc;
        if (spec.accumulate)
            for (int64_t j = 0; j < spec.n; ++j) row[j] += bias[j];
        else
            std::copy_n(bias, spec.n, row);
    }
}

}  // namespace

bool gemm_supports_bf16() { return false; }

const Gemm* find_gemm(const GemmSpec& spec) {
    CHECK(spec.m > 0 && spec.n > 0 && spec.k > 0, spec.m, spec.n, spec.k);
    CHECK(spec.ab == DType::F32 && spec.c == DType::F32, name_of(spec.ab), name_of(spec.c));
    static std::mutex mutex;
    static std::list<Gemm> known;  // A list: its elements never move. There are a few dozen at most.
    const std::lock_guard lock(mutex);
    const auto found = std::find_if(known.begin(), known.end(), [&](const Gemm& gemm) { return gemm.spec == spec; });
    return found != known.end() ? &*found : &known.emplace_back(Gemm{spec});
}

int64_t gemm_scratch_bytes(const Gemm*) { return 0; }

void run_gemm(const Gemm* gemm, const void* a, const void* b, void* c, const void* bias, void* /*scratch*/) {
    const GemmSpec& spec = gemm->spec;
    CHECK(!spec.bias || bias != nullptr);
    const SingleThreadScope one_thread;
    if (spec.bias) put_bias(spec, static_cast<float*>(c), static_cast<const float*>(bias));
    cblas_sgemm(CblasRowMajor, spec.transpose_a ? CblasTrans : CblasNoTrans,
                spec.transpose_b ? CblasTrans : CblasNoTrans, static_cast<blasint>(spec.m),
                static_cast<blasint>(spec.n), static_cast<blasint>(spec.k), 1.0f, static_cast<const float*>(a),
                static_cast<blasint>(spec.lda), static_cast<const float*>(b), static_cast<blasint>(spec.ldb),
                spec.accumulate || spec.bias ? 1.0f : 0.0f, static_cast<float*>(c), static_cast<blasint>(spec.ldc));
}

}  // namespace llmc::cpu

#endif  // LLMC_WITH_OPENBLAS
