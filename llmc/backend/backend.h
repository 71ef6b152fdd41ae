// The contract of a backend: what every operation computes, on which shapes, and what a caller may rely on.
// backend/cpu and backend/cuda implement it; the kernel files there say only how an operation is parallelised and why.
// It knows tensors and sizes, never layers, models or plans. Read next: run/executor.cpp, which makes all the calls.
//
// Notation (the legend is model/dims.h)
//   N = B*T tokens of a micro-batch; C channels; NH query heads; NKV key/value heads (NH % NKV == 0); HD head size;
//   QKV = (NH + 2*NKV)*HD, the columns of a fused projection: all query heads, then keys, then values;
//   V vocabulary, Vp >= V padded vocabulary. Weights are stored (out, in).
//   A is the activation type, fp32 or bf16; parameters have the same type. Statistics, losses and what an operation
//   writes of gradients of parameters are always fp32. Arithmetic inside an operation is fp32 or wider; a result is
//   rounded once, when stored. Operands of matrix products inside an operation (attention's probabilities) may be
//   rounded to A.
//
// What holds for every operation
//   Shapes.       Tensors are contiguous and row-major. Sizes need not be multiples of anything.
//   = or +=.      Outputs are overwritten unless the comment says +=. Gradients of parameters are = or +=, as the
//   caller
//                 says (`adds`); the sum that is added or stored is the same to the last bit.
//   Absent.       A gradient that nobody wants may be empty, in every backward: it is not computed, and what is has the
//                 same bits as beside it. What only an absent one would read may be empty where the comment says so.
//   Aliasing.     Operands must not overlap unless the comment allows it.
//   Determinism.  The same operands give the same bits, in every call, at every thread count: fixed reduction orders,
//                 no floating-point atomics. An operation that runs again is therefore bitwise the first run.
//   Asynchrony.   Calls are ordered as on one stream. A backend may return before the work is done; host memory may be
//                 read after copy_to_host(), synchronize() or seconds_between(). The CPU's finishes before it returns.
//   Workspace.    Operations that need scratch memory take it as their last operand; *_workspace() gives its size in
//                 bytes, a function of its arguments and the thread count only. Its content means nothing between
//                 calls.
//   Documents.    A sequence may hold several documents, one behind the other. Operations that care are told by
//                 documents (N) int32, for every row the slot of its sequence where its document begins: the slot is no
//                 smaller than that of the row before it, and at most the row's own. A row's position is then its slot
//                 minus that one, and it sees its own document alone. Results are the same bits as those of the
//                 documents in sequences of their own where each begins at a multiple of kDocumentTile slots, else
//                 equal but for rounding. Empty: a sequence is one document.
//   Alignment.    Every tensor starts at a multiple of kTensorAlignment bytes, except row ranges inside one.
#pragma once

#include "llmc/base/adapter.h"
#include "llmc/base/arithmetic.h"
#include "llmc/base/dropout.h"
#include "llmc/base/fusion.h"
#include "llmc/base/gemm_algorithms.h"
#include "llmc/base/optimizer.h"
#include "llmc/base/tensor.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// Offsets in an arena, and the sizes of its tensors, are multiples of this many bytes.
constexpr int64_t kTensorAlignment = 256;

/// Slots; see "Documents" above.
constexpr int64_t kDocumentTile = 128;

/// What is known of the device. Rates are 0 where unknown.
struct DeviceInfo {
    std::string name;              ///< e.g. "AMD EPYC 9454, 2 threads, AVX-512 bf16".
    int64_t memory_total = 0;      ///< Bytes of the device (for a CPU: of the machine, or of its control group).
    int64_t memory_available = 0;  ///< Bytes of these that could be allocated now, by whoever shares the device.
    std::string memory_limit;      ///< What binds `memory_available`, if not the device's size.
    /// Bytes that this process alone may still allocate, by limits of its own, and which these are.
    int64_t process_available = std::numeric_limits<int64_t>::max();
    std::string process_limit;
    int64_t process_reserve = 0;  ///< Bytes of what is available that every process takes besides.
    double peak_flops_fp32 = 0;   ///< FLOP/s.
    double peak_flops_bf16 = 0;
    double bandwidth = 0;              ///< Bytes/s of its memory.
    int64_t memory_held = 0;           ///< Bytes that others, and the device's own software, had taken at the start.
    bool supports_bf16 = false;        ///< Has bf16 dot products; otherwise --dtype=bf16 is refused.
    DType default_dtype = DType::F32;  ///< What --dtype=auto means.
    /// Kind of device, for what is fixed by it and decides bits (DESIGN: the contract of bits): "cpu", "sm_90".
    std::string kind = "cpu";
    int attention_backward_products = 5;  ///< Matrix products that attention_backward() really runs.
    Arithmetic arithmetic;                ///< In use.
    int workers = 1;                      ///< Threads of a CPU that share an operation; 1 on a GPU.

    /// Bytes for each of so many processes that share the device: all there are, and those that may be planned with.
    int64_t total(int64_t processes = 1) const { return std::min(memory_total / processes, process_available); }
    int64_t available(int64_t processes = 1) const {
        return std::max<int64_t>(0, std::min(memory_available / processes, process_available) - process_reserve);
    }
    /// What binds available(), in words; "" for the device's size.
    const std::string& limit(int64_t processes = 1) const {
        return process_available < memory_available / processes ? process_limit : memory_limit;
    }
};

/// Sizes of an attention call. Sequences are rows b*T .. b*T + T - 1.
struct AttentionShape {
    int64_t B = 0, T = 0, NH = 0, NKV = 0, HD = 0;
    int64_t window = 0;     ///< A query sees so many tokens, itself among them; 0: all before it.
    float scale = 0;        ///< Of the scores; 0: 1/sqrt(HD).
    Tensor documents = {};  ///< Where documents begin, or empty; see above.
    int64_t qkv_columns() const { return (NH + 2 * NKV) * HD; }
    float score_scale() const;
    /// The first position that the query at `position` sees.
    int64_t first_seen(int64_t position) const { return window == 0 || position < window ? 0 : position + 1 - window; }
    /// Behind the last of `T` positions whose query sees the key at `position`.
    int64_t end_seeing(int64_t position) const { return window == 0 || T - position < window ? T : position + window; }
    /// Key/value heads that attention_backward() has at a time where d_qkv is qkv: as few as keep a device busy, and in
    /// about equal parts.
    int64_t kv_heads_in_place() const;
};

/// A range of the flat parameter buffers, in elements, that shares one weight decay. Where anything is rounded
/// stochastically or kept in 8-bit blocks it lies in one row, from element `first` of it on.
struct ParameterRange {
    int64_t offset = 0;
    int64_t count = 0;
    bool decay = false;
    int32_t row = 0;            ///< Of the table of parameters.
    int64_t first = 0;          ///< A multiple of 8; with 8-bit blocks, of kStateBlock.
    int64_t moments_shift = 0;  ///< In the tensors of moments the range is at offset + moments_shift.
};

/// The position of the first row of an operation. In generation a part of it lies in memory of the device, so that
/// recorded calls stay valid; the host cannot check that.
struct FirstPosition {
    int64_t offset = 0;
    Tensor on_device = {};  ///< (1) int32, added to the offset; or empty: 0.
    FirstPosition(int64_t position = 0, Tensor more = {}) : offset(position), on_device(more) {}
    FirstPosition(Tensor position) : on_device(position) {}
};

/// Of rows of fused projections, which need not begin or end with a sequence: where each one's angles are, as
/// Backend::rope() has them. Sequences have shape.T rows, row n is slot (first_row + n) % shape.T of its own, and
/// `first` is the position of slot 0; shape.B does not count, documents are those of the rows at hand.
struct RopeRows {
    Tensor table;
    AttentionShape shape;
    FirstPosition first;
    int64_t first_row = 0;
};

/// What an optimiser is told once. Clipping by global norm comes before all of them.
struct OptimizerSettings {
    OptimizerKind kind = OptimizerKind::AdamW;
    float beta1 = 0.9f;
    float beta2 = 0.95f;
    float epsilon = 1e-8f;
    float weight_decay = 0;
    float grad_clip = 0;  ///< Largest global norm; 0 does not clip.
    uint64_t seed = 0;    ///< Of stochastic rounding (base/stochastic_rounding.h).
};

/// What changes from update to update lies in memory of the device, so that recorded calls stay valid: a tensor of
/// kNumControls fp64, entry by entry.
enum class UpdateControl : uint8_t {
    LearningRate,  ///< Rounded to fp32.
    Updates,       ///< Applied so far; begin_update() counts.
    MicroBatch,    ///< The first of those whose gradients are added next, among the update's of all ranks, from 0.
};
constexpr int64_t kNumControls = 3;

/// What begin_update() hands to update(): a tensor of kNumFactors fp32.
enum class Factor : uint8_t {
    Applies,           ///< 0: the norm is not finite, and nothing at all changes.
    GradientScale,     ///< min(1, grad_clip / norm).
    Keep,              ///< 1 - learning rate * weight decay: factor of decayed weights.
    Step,              ///< AdamW: learning rate / (1 - beta1^t), t = number of this update, from 1.
    InverseRootBias2,  ///< AdamW: 1 / sqrt(1 - beta2^t).
    Rate,              ///< The learning rate.
};
constexpr int64_t kNumFactors = 6;

/// The flat buffers of an update.
///   parameters  fp32; or bf16, and then they become the rounded master (fp32) where there is one, else the new weight
///               rounded stochastically
///   m, v        fp32; or bf16, rounded stochastically; or codes (uint8) of 8-bit blocks with their largest magnitudes
///               (fp32, one for kStateBlock elements) in m_scales, v_scales: signed_map() for m, unsigned_map() for v
///               (base/dynamic_map.h), dequantised before and quantised after. v is empty for an optimiser without
///   gradients   fp32 or bf16
/// `controls` are begin_update()'s, for stochastic rounding; may be empty where nothing is.
struct UpdateOperands {
    Tensor parameters, master, m, v, gradients;
    Tensor m_scales = {}, v_scales = {}, controls = {};
};

/// How sums of squares lie after they were gathered from all ranks: (ranks, buckets, stride), where a rank has
/// pieces[b] <= stride chunks of bucket b. Chunk c of bucket b is entry c % pieces[b] of rank c / pieces[b].
struct NormLayout {
    int64_t ranks = 1, buckets = 1, stride = 1;
    int64_t count() const { return ranks * buckets * stride; }
    /// Of chunk `chunk` of a bucket with `piece` chunks per rank.
    int64_t index(int64_t bucket, int64_t chunk, int64_t piece) const {
        return (chunk / piece * buckets + bucket) * stride + chunk % piece;
    }
};

/// A run of operations by what decides whether it is one: kinds, sizes and type. OC and IC are those of the matmul's
/// weight.
struct FusionQuery {
    Fusion fusion = Fusion::ActivationAndWeightGradient;
    ActivationFunction activation = ActivationFunction::Gelu;
    DType dtype = DType::F32;  ///< Of activations.
    int64_t N = 0, OC = 0, IC = 0;
};

/// Whether a backend runs it as one, and what that is like.
struct FusionAnswer {
    bool fuses = false;
    bool same_bits = false;       ///< As its operations one after the other. Forward operations are fused only then.
    bool stores_between = true;   ///< What one operation gives to the next, and nobody else reads, may be stored.
    int64_t workspace_bytes = 0;  ///< What the operation needs in all.
};

/// Operands of Backend::activation_and_weight_gradient().
struct ActivationAndWeightGradient {
    ActivationFunction activation = ActivationFunction::Gelu;
    Tensor d_pre;     ///< (N, OC)
    Tensor d_act;     ///< (N, OC), of SwiGLU (N, OC / 2). May be d_pre, but for SwiGLU.
    Tensor pre;       ///< (N, OC), what the activation was applied to.
    Tensor d_weight;  ///< (OC, IC) fp32, or empty.
    Tensor d_bias;    ///< (OC) fp32, or empty.
    bool adds = false;
    Tensor x;  ///< (N, IC)
    Tensor workspace;
};

/// n weights in NF4 (base/nf4.h). Blocks are counted from the first of them.
struct Nf4Operands {
    Tensor codes;               ///< (nf4_bytes(n)) uint8.
    Tensor absmax;              ///< (nf4_blocks(n)) fp32; or uint8, of "double" NF4, and then with the next two:
    Tensor nested_absmax = {};  ///< (nf4_nested_blocks(n)) fp32.
    Tensor offset = {};         ///< (1) fp32.
    /// Whether its types and sizes are those of out.count() weights.
    void check(Tensor out) const;
};

/// A copy that was begun; see Backend::wait_copy().
using CopyTicket = int;

/// A point in the work of a device; see Backend::mark().
struct TimeMark {
    double seconds = 0;           ///< Of a host clock, for backends that finish before they return.
    std::shared_ptr<void> event;  ///< For those that do not.
};

class Backend {
  public:
    virtual ~Backend() = default;

    // ---- Device and memory ------------------------------------------------------------------------------------

    virtual DeviceInfo info() const = 0;

    /// Why models of these sizes cannot run here, in words for a user that say what can; "" if they can.
    virtual std::string why_unsupported(const AttentionShape& shape) const;

    /// Before anything is computed, if at all: a GPU begins with the portable kernels and exact operands. A CPU's
    /// products are chosen where it is made.
    virtual void set_arithmetic(const Arithmetic&) {}
    /// Why it cannot run the kernels for compute capability 9.0, in words for a user; "" if it can.
    virtual std::string why_no_hopper() const;
    /// Whether attention on them, with heads of so many channels, gives what it gives on the portable ones but for
    /// rounding, on small cases that are run both ways. For a device that can; leaves arithmetic() as it was.
    virtual bool hopper_kernels_agree(int64_t) { return false; }
    /// The same of our own matrix products for it, beside the library's.
    virtual bool own_gemms_agree() { return false; }

    /// Zeroed, resident memory, aligned to kTensorAlignment. `what` names it in an out-of-memory Error.
    virtual void* allocate(int64_t bytes, const std::string& what) = 0;
    virtual void release(void* memory) = 0;

    /// The tensor may also lie in memory of allocate_host(); then calls made before have finished when it is touched.
    virtual void copy_to_device(Tensor destination, const void* source) = 0;
    virtual void copy_to_host(void* destination, Tensor source) = 0;
    /// The tensor's elements where the host can read them in place (after synchronize()); null where it cannot.
    virtual const void* host_view(Tensor tensor) const = 0;
    virtual void zero(Tensor out) = 0;
    /// out = x, element by element, converting the type (fp32 <-> bf16).
    virtual void convert(Tensor out, Tensor x) = 0;
    virtual void synchronize() = 0;
    /// Whether the operands live in memory of a GPU.
    virtual bool on_gpu() const { return false; }
    /// The stream calls are ordered on, a cudaStream_t, for a communicator that works beside it; null on the CPU.
    virtual void* stream() { return nullptr; }

    /// Zeroed memory of the host for copy_out() and copy_in(), aligned to kTensorAlignment: where devices have their
    /// own memory, pinned. It counts as none of the device's.
    virtual void* allocate_host(int64_t bytes, const std::string& what) = 0;
    virtual void release_host(void* memory) = 0;
    /// Copies x to, or out from, memory of allocate_host(). A copy begins after the calls made before it and runs
    /// beside those made after it; copies in one direction follow one another. x may not be written, out and host not
    /// be touched, until the copy is waited for.
    virtual CopyTicket copy_out(void* host, Tensor x);
    virtual CopyTicket copy_in(Tensor out, const void* host);
    /// Calls made after this one find the copy done; the host does not wait. Every copy is waited for once, inside the
    /// same repeat() that began it.
    virtual void wait_copy(CopyTicket copy);

    /// A mark between the calls made before and after it, and the time the device took from one mark to another; waits
    /// for the second, before which all copies that were waited for can be read then.
    virtual TimeMark mark();
    virtual double seconds_between(const TimeMark& first, const TimeMark& second);

    /// Makes the calls in `work`, which are the same with the same operands whenever they are made under this key: a
    /// backend may record them once and replay the record. `forget` ends the life of a key.
    virtual void repeat(const void* key, const std::function<void()>& work);
    virtual void forget(const void* key);

    // ---- Embedding --------------------------------------------------------------------------------------------

    /// out (N, C) = wte[token] + wpe[position]. tokens (N) int32 in [0, V); wte (Vp, C); wpe (maxT, C), or empty for
    /// models without learned positions. Row n has position first + n % T; with documents that in its own.
    virtual void embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, FirstPosition first,
                                   Tensor documents) = 0;
    /// d_wte (Vp, C) fp32 +=, always. d_wpe (maxT, C) fp32 = or +=, its first min(T, N) rows; or empty. Several rows
    /// with one token or position add in row order. Without d_wte and documents, tokens and workspace may be empty.
    virtual void embedding_backward(Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T,
                                    Tensor documents, Tensor workspace) = 0;
    virtual int64_t embedding_backward_workspace(int64_t N, int64_t C, int64_t Vp, bool has_documents) const = 0;

    // ---- Normalisation (Ba et al. 2016; Zhang & Sennrich 2019) ------------------------------------------------

    /// out (N, C) = (x - mean) * rstd * weight + bias over each row; mean, rstd (N) fp32; weight, bias (C).
    virtual void layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
                                   float epsilon) = 0;
    /// d_x (N, C) = or += (`accumulate`); d_weight, d_bias (C) fp32 = or +=. d_out (N, C).
    virtual void layernorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, Tensor d_bias, bool adds,
                                    Tensor d_out, Tensor x, Tensor mean, Tensor rstd, Tensor weight,
                                    Tensor workspace) = 0;
    /// out (N, C) = x * rstd * weight, rstd = 1/sqrt(mean(x^2) + epsilon); rstd (N) fp32.
    virtual void rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor weight, float epsilon) = 0;
    virtual void rmsnorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, bool adds, Tensor d_out, Tensor x,
                                  Tensor rstd, Tensor weight, Tensor workspace) = 0;
    /// For either norm.
    virtual int64_t norm_backward_workspace(int64_t N, int64_t C) const = 0;

    /// out (N, QKV) = qkv with RMSNorm of every query head, with q_weight (HD), and key head, with k_weight; values as
    /// they are. rstd (N, NH + NKV) fp32. (Henry et al. 2020, "QK-Norm"; the form of Dehghani et al. 2023 with
    /// RMSNorm.)
    virtual void head_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor q_weight, Tensor k_weight,
                                   const AttentionShape& shape, float epsilon) = 0;
    /// d_qkv (N, QKV); d_q_weight, d_k_weight (HD) fp32 = or +=. d_qkv may be d_out.
    virtual void head_norm_backward(Tensor d_qkv, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor d_out,
                                    Tensor qkv, Tensor rstd, Tensor q_weight, Tensor k_weight,
                                    const AttentionShape& shape, Tensor workspace) = 0;
    virtual int64_t head_norm_backward_workspace(int64_t N, int64_t HD) const = 0;

    // ---- Matrix products --------------------------------------------------------------------------------------

    /// out (N, OC) = residual + x (N, IC) * weight (OC, IC)^T + bias. bias (OC) and residual (N, OC) may be empty.
    /// The residual enters the fp32 accumulator, so the sum is rounded once. out may be the residual itself.
    virtual void matmul_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor residual,
                                Tensor workspace) = 0;
    /// d_x (N, IC) = d_out (N, OC) * weight (OC, IC).
    virtual void matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) = 0;
    /// d_weight (OC, IC) fp32 = or += d_out^T * x; d_bias (OC) fp32 = or += column sums of d_out, or empty. Without
    /// d_weight x may be empty.
    virtual void matmul_backward_weight(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                        Tensor workspace) = 0;
    /// For all three. The dimensions are those of the weight; N is the number of rows of x.
    virtual int64_t matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const = 0;

    // ---- Low-rank adapters (Hu et al. 2021; base/adapter.h has the letters) ---------------------------------------
    // Factors, z and their gradients are fp32, x and out of the activation type: products are of fp32 numbers.

    // D is dropout of the adapter's input (or nothing, where its p is 0): group g has the mask of site dropout.site +
    // g.

    /// z (N, R) = D(x) (N, IC) * a (R, IC)^T.
    virtual void adapter_down_forward(Tensor z, Tensor x, Tensor a, const AdapterShape& shape, const Dropout& dropout,
                                      Tensor workspace) = 0;
    /// d_a (R, IC) = or += d_z^T * D(x).
    virtual void adapter_down_backward_weight(Tensor d_a, bool adds, Tensor d_z, Tensor x, const AdapterShape& shape,
                                              const Dropout& dropout, Tensor workspace) = 0;
    /// d_x (N, IC) += D(d_z (N, R) * a).
    virtual void adapter_down_backward_input(Tensor d_x, Tensor d_z, Tensor a, const AdapterShape& shape,
                                             const Dropout& dropout, Tensor workspace) = 0;
    /// out (N, OC) += scale * z (N, R) * b^T, group by group, in the group's columns; others stay.
    virtual void adapter_up_forward(Tensor out, Tensor z, Tensor b, const AdapterShape& shape, Tensor workspace) = 0;
    /// d_b (rows of all groups, rank) = or += scale * d_out^T * z.
    virtual void adapter_up_backward_weight(Tensor d_b, bool adds, Tensor d_out, Tensor z, const AdapterShape& shape,
                                            Tensor workspace) = 0;
    /// d_z (N, R) = scale * d_out * b.
    virtual void adapter_up_backward_input(Tensor d_z, Tensor d_out, Tensor b, const AdapterShape& shape,
                                           Tensor workspace) = 0;
    /// For each of the six, of a factor of these dimensions.
    virtual int64_t adapter_workspace(int64_t N, int64_t rows, int64_t columns) const = 0;

    // ---- Attention (Dao et al. 2022; Ainslie et al. 2023; Su et al. 2021) --------------------------------------

    /// Rotates the first R <= HD columns of the query and key heads of qkv (N, QKV) in place: for head h, pair
    /// (i, i + R/2) turns by the angle whose cosine and sine stand in table (maxT, R) fp32: cosines of the R/2 pairs,
    /// then sines, both perhaps times a factor. Rotate-half form. Row n has position first + n % T, or that in
    /// its document. `inverse` applies the transposed map: turns back, times the factor. It is the backward operation,
    /// applied to d_qkv.
    virtual void rope(Tensor qkv, Tensor table, const AttentionShape& shape, FirstPosition first, bool inverse) = 0;

    /// rope() of the sequences that qkv has rows of.
    void rope_rows(Tensor qkv, const RopeRows& rows, bool inverse);
    /// matmul_forward() without a residual and rope_rows() of out; with the same bits.
    virtual void matmul_and_rope(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor workspace,
                                 const RopeRows& rows);

    /// Causal attention, within documents. out (N, NH*HD), lse (N, NH) fp32 = log-sum-exp of each row's scaled scores;
    /// qkv (N, QKV). Scale and window are the shape's. Query head h reads key/value head h / (NH/NKV). Never holds T x
    /// T scores.
    virtual void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                                   Tensor workspace) = 0;
    /// d_qkv (N, QKV) = gradient of all three parts; d_out and out (N, NH*HD). d_qkv may be qkv, with the workspace for
    /// that (`in_place`): some heads at a time, the gradients of keys and values wait there until nothing reads those
    /// any more. Bits are the same.
    virtual void attention_backward(Tensor d_qkv, Tensor d_out, Tensor qkv, Tensor out, Tensor lse,
                                    const AttentionShape& shape, Tensor workspace) = 0;
    virtual int64_t attention_forward_workspace(DType activations, const AttentionShape& shape) const = 0;
    virtual int64_t attention_backward_workspace(DType activations, const AttentionShape& shape,
                                                 bool in_place) const = 0;

    /// Attention of new tokens over a cache, for generation. shape.B == 1, shape.T new tokens at positions first ..;
    /// k_cache and v_cache (maxT, NKV*HD) hold the earlier positions and receive the new rows from qkv. out (T, NH*HD).
    /// first + T <= maxT. Scale and window as above.
    virtual void attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                                  FirstPosition first, Tensor workspace) = 0;
    /// For any number of new tokens up to shape.T.
    virtual int64_t attention_cached_workspace(const AttentionShape& shape, int64_t maxT) const;

    // ---- Activations ------------------------------------------------------------------------------------------

    /// out = gelu(x), the tanh form (Hendrycks & Gimpel 2016): 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    virtual void gelu_forward(Tensor out, Tensor x) = 0;
    /// d_x = d_out * gelu'(x). d_x may be d_out.
    virtual void gelu_backward(Tensor d_x, Tensor d_out, Tensor x) = 0;
    /// out = gelu(x) in its exact form, x Phi(x) = 0.5 x (1 + erf(x/sqrt(2))), and its backward as above.
    virtual void gelu_exact_forward(Tensor out, Tensor x) = 0;
    virtual void gelu_exact_backward(Tensor d_x, Tensor d_out, Tensor x) = 0;
    /// out (N, F) = silu(gate) * up (Shazeer 2020); gate_up (N, 2F): the gate's columns, then up's.
    virtual void swiglu_forward(Tensor out, Tensor gate_up) = 0;
    /// d_gate_up (N, 2F); d_out (N, F).
    virtual void swiglu_backward(Tensor d_gate_up, Tensor d_out, Tensor gate_up) = 0;

    // ---- Runs of operations that are one ----------------------------------------------------------------------

    /// Whether the backend runs these operations as one where they follow each other: where that is faster. By query,
    /// kind of device, its library's version and what offer_own_gemms() said alone, but for the bytes, which may depend
    /// on the thread count.
    virtual FusionAnswer fuses(const FusionQuery& query) const;

    /// The activation's backward, d_pre of d_act and pre, and then d_weight, d_bias = or += as matmul_backward_weight()
    /// of d_pre and x; each where it is not empty. To be called only where fuses() says so.
    virtual void activation_and_weight_gradient(const ActivationAndWeightGradient& operands);

    /// matmul_backward_input() of d_out (N, OC) and weight (OC, IC), and of that, d_act (N, IC), the activation's
    /// backward: d_pre of d_act and pre; both are (N, IC), of SwiGLU (N, 2 IC). What d_act holds afterwards is left
    /// open; where fuses() says that it is not stored it is empty, and may never be rounded. To be called only where
    /// fuses() says so.
    virtual void input_gradient_and_activation(ActivationFunction activation, Tensor d_pre, Tensor d_act, Tensor d_out,
                                               Tensor weight, Tensor pre, Tensor workspace);

    /// As matmul_backward_weight(), of which d_weight is wanted, d_bias may be empty. The sums of d_bias may be taken
    /// in another order than there. To be called only where fuses() says so.
    virtual void weight_and_bias_gradient(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                          Tensor workspace);

    /// matmul_forward() without a residual, and the activation's forward of out: act_out (N, OC), of SwiGLU (N, OC /
    /// 2). Bits are those of one after the other, which is also what runs where the product's algorithm is the
    /// library's. To be called only where fuses() says so.
    virtual void matmul_and_activation(ActivationFunction activation, Tensor act_out, Tensor out, Tensor x,
                                       Tensor weight, Tensor bias, Tensor workspace);

    // ---- Algorithms of matrix products (base/gemm_algorithms.h) -------------------------------------------------

    /// Whether our own kernel may form products: whether fuses() counts on it, time_gemms() tries it, own_gemms() names
    /// it and set_gemm_algorithms() accepts it. Before the plan is made; at first it may not.
    virtual void offer_own_gemms(bool) {}
    /// Library and device, and the algorithms of all products that were chosen or formed so far, in the order of their
    /// keys.
    virtual GemmAlgorithms gemm_algorithms() const { return {}; }
    /// From now on these products are formed with these algorithms; before any is formed. An Error where they are of
    /// another library or device, or one is refused for its product.
    virtual void set_gemm_algorithms(const GemmAlgorithms& algorithms);
    /// Of each of these products the library's first algorithm, or, of the best few that it names, the fastest, where
    /// that takes less than 97 % of the first one's time on this device; or our own kernel, where it takes less than
    /// 97 % of the time of that, either with what it takes along. Operands lie at multiples of 128 bytes. What `known`
    /// has is not timed, unless it is ours and may not be taken. Takes memory while it runs; changes nothing here.
    virtual GemmAlgorithms time_gemms(const std::vector<GemmQuery>& queries, const std::vector<GemmAlgorithm>& known);
    /// Our own kernel, for those of these products that it forms.
    virtual std::vector<GemmAlgorithm> own_gemms(const std::vector<GemmQuery>&) const { return {}; }

    // ---- Dropout (Srivastava et al. 2014; base/dropout.h has the masks) ---------------------------------------

    /// out (N, C) = residual + D(x (N, C)), rounded once. residual may be empty. The backward is the same operation on
    /// d_out, without a residual. dropout.p > 0, and dropout.rows are those of the N rows.
    virtual void dropout(Tensor out, Tensor x, Tensor residual, const Dropout& dropout) = 0;

    // ---- Rows -------------------------------------------------------------------------------------------------

    /// out (n, C)[i] = x (m, C)[rows[i]], or 0 where rows[i] is negative; rows (n) int32 below m. Of fp32 or bf16.
    virtual void gather_rows(Tensor out, Tensor x, Tensor rows) = 0;

    // ---- Loss -------------------------------------------------------------------------------------------------

    /// Cross-entropy of n rows. losses (n) fp32 = log-sum-exp(logits[0..V)) - logits[target]; logits (n, Vp); targets
    /// (n) int32 in [0, V), or negative to ignore the row (loss and gradient 0). With d_scale (1) fp32 the logits are
    /// overwritten by their gradient, (softmax - onehot) * d_scale; columns V..Vp become 0. Without, they are kept.
    virtual void cross_entropy(Tensor losses, Tensor logits, Tensor targets, int64_t V, Tensor d_scale) = 0;
    /// total (1) fp64 = or += the sum of losses (n) fp32, in double precision and a fixed order.
    virtual void accumulate_loss(Tensor total, bool adds, Tensor losses) = 0;

    // ---- Optimiser --------------------------------------------------------------------------------------------

    /// out += x, both (n) fp32.
    virtual void add(Tensor out, Tensor x) = 0;
    /// out (n) bf16 = or += x (n) fp32 inside `ranges`, rounded stochastically once: the gradients of the micro-batch
    /// that `controls` name. Ranges count elements of both.
    virtual void add_rounded(Tensor out, bool adds, Tensor x, std::span<const ParameterRange> ranges, uint64_t seed,
                             Tensor controls) = 0;
    /// sums (n / chunk) fp64: sums[i] = the sum of the squares of gradients (n) fp32 or bf16 in [i*chunk, (i+1)*chunk),
    /// a function of those elements alone. chunk is a multiple of 128 and divides n.
    virtual void square_sums(Tensor sums, Tensor gradients, int64_t chunk) = 0;
    /// norm (1) fp64 = the square root of the sum of all chunk sums; sums fp64 as NormLayout says, pieces (buckets)
    /// int32. Chunk c of bucket b enters at a place of the order that depends on b, c and the number of buckets alone:
    /// not on the ranks, nor on chunks of zeros that pad a bucket's end.
    virtual void global_norm(Tensor norm, Tensor sums, Tensor pieces, const NormLayout& layout) = 0;
    /// Begins an update: factors (kNumFactors) fp32, of controls (kNumControls) fp64 and norm (1) fp64. Counts the
    /// update in controls if it applies, that is, if the norm is finite.
    virtual void begin_update(Tensor factors, Tensor controls, Tensor norm, const OptimizerSettings& settings) = 0;
    /// One update of the flat buffers inside `ranges`, with g = the gradient times Factor::GradientScale, w = the
    /// weight:
    ///   AdamW (Loshchilov & Hutter 2019): m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    ///         w = Keep w - Step m / (sqrt(v) InverseRootBias2 + epsilon)
    ///   Lion (Chen et al. 2023): w = Keep w - Rate sign(beta1 m + (1 - beta1) g), then m = beta2 m + (1 - beta2) g
    /// where Keep is 1 in ranges without decay. All of it in fp32; what is kept in less is rounded once, afterwards.
    /// Nothing changes where Factor::Applies is 0. Gradients stay as they are.
    virtual void update(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                        const OptimizerSettings& settings, Tensor factors) = 0;

    // ---- Weights in four bits (Dettmers et al. 2023, "QLoRA") -----------------------------------------------------

    /// out (n) fp32 or bf16, of any shape: out[i] = kNf4Values[code i] * the largest magnitude of block i / kNf4Block,
    /// which is absmax, or signed_map()[absmax code] * nested_absmax + offset. Every product and sum is rounded to
    /// fp32, the result once to out's type: the bits are the same on all devices.
    virtual void dequantize_nf4(Tensor out, const Nf4Operands& x) = 0;
};

}  // namespace llmc
