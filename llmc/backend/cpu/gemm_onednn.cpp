// gemm.h on oneDNN's matmul primitive. A primitive is created for exactly one thread and is immutable, so one cached
// copy serves all threads; what a run changes (the pointers) lives in memory objects that every thread has for itself.
// Scratch memory is the caller's (scratchpad_mode::user), except that kernels for operands with gaps between rows also
// take up to about 1 MiB from malloc while they run. Creating a kernel takes 0.1 to 0.5 ms, finding it about 50 ns.
#ifdef LLMC_WITH_ONEDNN

#include "llmc/backend/cpu/gemm.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"

#include <dnnl.hpp>
#include <omp.h>

#include <array>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

namespace llmc::cpu {

/// One oneDNN primitive with the layouts of its operands.
class Gemm {
  public:
    Gemm(const GemmSpec& spec, int64_t id);

    const int64_t id;  ///< Counts from 0, in order of creation: the index of the per-thread memory objects.
    const bool has_bias;
    dnnl::memory::desc a, b, c, bias, scratch;
    dnnl::matmul primitive;
};

namespace {

using Dims = dnnl::memory::dims;

const dnnl::engine& engine() {
    static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
}

/// oneDNN asks OpenMP for the number of threads, some primitives when created and some at every run. Inside this scope
/// the answer is 1, whether or not a parallel region is active. It is a setting of the calling thread alone.
class SingleThreadScope {
  public:
    SingleThreadScope() : threads_before_(omp_get_max_threads()) { omp_set_num_threads(1); }
    ~SingleThreadScope() { omp_set_num_threads(threads_before_); }
    SingleThreadScope(const SingleThreadScope&) = delete;
    SingleThreadScope& operator=(const SingleThreadScope&) = delete;

  private:
    int threads_before_;
};

dnnl::memory::data_type library_type(DType dtype) {
    CHECK(dtype == DType::F32 || dtype == DType::BF16, name_of(dtype));
    return dtype == DType::F32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

dnnl::memory::desc matrix(int64_t rows, int64_t cols, DType dtype, int64_t ld, bool transposed) {
    return {Dims{rows, cols}, library_type(dtype), transposed ? Dims{1, ld} : Dims{ld, 1}};
}

dnnl::matmul::primitive_desc describe(const Gemm& gemm, bool accumulate) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (accumulate) {
        dnnl::post_ops post_ops;
        post_ops.append_sum(1.0f);
        attributes.set_post_ops(post_ops);
    }
    const auto operation = gemm.has_bias ? dnnl::matmul::desc(gemm.a, gemm.b, gemm.bias, gemm.c)
                                         : dnnl::matmul::desc(gemm.a, gemm.b, gemm.c);
    return {operation, attributes, engine()};
}

struct SpecHash {
    size_t operator()(const GemmSpec& s) const {
        const auto flags = int64_t{s.transpose_a} | s.transpose_b << 1 | s.accumulate << 2 | s.bias << 3 |
                           static_cast<int64_t>(s.ab) << 4 | static_cast<int64_t>(s.c) << 12;
        uint64_t hash = 0;
        for (const int64_t value : {s.m, s.n, s.k, s.lda, s.ldb, s.ldc, flags})
            hash = (hash ^ static_cast<uint64_t>(value)) * 0x9e3779b97f4a7c15u;
        return hash ^ hash >> 32;
    }
};

/// The memory objects of one kernel in one thread.
struct Operands {
    explicit Operands(const Gemm& gemm) {
        const auto add = [this](int argument, const dnnl::memory::desc& layout) {
            memories[count] = dnnl::memory(layout, engine(), DNNL_MEMORY_NONE);
            arguments[count] = {argument, memories[count].get()};
            ++count;
        };
        add(DNNL_ARG_SRC, gemm.a);
        add(DNNL_ARG_WEIGHTS, gemm.b);
        add(DNNL_ARG_DST, gemm.c);
        add(DNNL_ARG_SCRATCHPAD, gemm.scratch);
        if (gemm.has_bias) add(DNNL_ARG_BIAS, gemm.bias);
    }

    int count = 0;
    std::array<dnnl::memory, 5> memories;
    std::array<dnnl_exec_arg_t, 5> arguments;
};

Operands& operands_of_this_thread(const Gemm& gemm) {
    thread_local std::vector<std::unique_ptr<Operands>> by_id;
    const auto index = static_cast<size_t>(gemm.id);
    if (index >= by_id.size()) by_id.resize(index + 1);
    if (!by_id[index]) by_id[index] = std::make_unique<Operands>(gemm);
    return *by_id[index];
}

dnnl_stream_t stream_of_this_thread() {
    thread_local const dnnl::stream stream(engine());
    return stream.get();
}

}  // namespace

Gemm::Gemm(const GemmSpec& spec, int64_t number)
    : id(number),
      has_bias(spec.bias),
      a(matrix(spec.m, spec.k, spec.ab, spec.lda, spec.transpose_a)),
      b(matrix(spec.k, spec.n, spec.ab, spec.ldb, spec.transpose_b)),
      c(matrix(spec.m, spec.n, spec.c, spec.ldc, false)),
      bias(matrix(1, spec.n, spec.ab, spec.n, false)) {
    const SingleThreadScope one_thread;
    const auto description = describe(*this, spec.accumulate);
    scratch = description.scratchpad_desc();
    primitive = dnnl::matmul(description);
}

bool gemm_supports_bf16() { return true; }

const Gemm* find_gemm(const GemmSpec& spec) {
    CHECK(spec.m > 0 && spec.n > 0 && spec.k > 0, spec.m, spec.n, spec.k);
    static std::shared_mutex mutex;
    static std::unordered_map<GemmSpec, std::unique_ptr<const Gemm>, SpecHash> kernels;
    {
        const std::shared_lock lock(mutex);
        if (const auto found = kernels.find(spec); found != kernels.end()) return found->second.get();
    }
    const std::unique_lock lock(mutex);
    auto& kernel = kernels[spec];
    if (kernel) return kernel.get();
    try {
        kernel = std::make_unique<const Gemm>(spec, static_cast<int64_t>(kernels.size()) - 1);
    } catch (const dnnl::error& error) {
        kernels.erase(spec);
        fail("oneDNN cannot make a {} x {} x {} matrix product of {} on this CPU ({}); try --dtype=fp32", spec.m,
             spec.n, spec.k, name_of(spec.ab), error.what());
    } catch (...) {  // No memory for it.
        kernels.erase(spec);
        throw;
    }
    return kernel.get();
}

int64_t gemm_scratch_bytes(const Gemm* gemm) { return static_cast<int64_t>(gemm->scratch.get_size()); }

void run_gemm(const Gemm* gemm, const void* a, const void* b, void* c, const void* bias, void* scratch) {
    CHECK(!gemm->has_bias || bias != nullptr);
    const SingleThreadScope one_thread;
    Operands& operands = operands_of_this_thread(*gemm);
    void* const handles[] = {const_cast<void*>(a), const_cast<void*>(b), c, scratch, const_cast<void*>(bias)};
    for (int i = 0; i < operands.count; ++i) {
        const dnnl_status_t status = dnnl_memory_set_data_handle(operands.arguments[i].memory, handles[i]);
        CHECK(status == dnnl_success, static_cast<int>(status));
    }
    const dnnl_status_t status = dnnl_primitive_execute(gemm->primitive.get(), stream_of_this_thread(), operands.count,
                                                        operands.arguments.data());
    CHECK(status == dnnl_success, static_cast<int>(status));
}

}  // namespace llmc::cpu

#endif  // LLMC_WITH_ONEDNN
