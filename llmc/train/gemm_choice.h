// How a run comes to the algorithms of its matrix products (base/gemm_algorithms.h), where a library has several for
// each: the library's first; timed once on this device; our own kernel; those of a file; or, of a resumed run, those
// that it has had. They decide the last bits, so rank 0 decides for all, and run folder and checkpoints keep what was
// used.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/comm/comm.h"
#include "llmc/model/model.h"
#include "llmc/plan/step.h"
#include "llmc/train/options.h"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace llmc {

/// In a run folder, as --gemm-algorithms takes it: a JSON object of library, device and products, each with what it was
/// chosen by (GemmKey) and its algorithm in words of 64 bits.
constexpr const char* kGemmFile = "gemm-algorithms.json";

/// Before the plan is made, which depends on it: whether our own kernel may form products, alike on all ranks, which
/// all call it; tells the backend. It may where options or records name it, every rank can run it, and it agrees with
/// the library on every rank; a warning says where it does not. --gemm-algorithms=own, typed, is an Error (exit code 2)
/// where it cannot be.
void settle_own_gemms(const Options& options, const GemmAlgorithms& before, DType dtype, Backend& backend, Comm& comm);
/// For `plan`: what a run with these options would do on the device that is planned for, without running anything.
void assume_own_gemms(const Options& options, Backend& backend);

/// Decides, alike on all ranks, which all call it, and tells the backend. `before` is what the checkpoint of a resumed
/// run says; that of another library or kind of device is not used, which is said. What was timed is kept in
/// cache_folder(), and timed again with --calibrate. An Error (exit code 2) where --gemm-algorithms is a file that
/// cannot be read, or is of another library or device. Returns the choice in words; "" on a device without one.
std::string settle_gemm_algorithms(const Options& options, const GemmAlgorithms& before, const Model& model,
                                   const Plan& plan, Backend& backend, Comm& comm);

nlohmann::json to_json(const GemmAlgorithms& algorithms);
/// Throws a nlohmann::json::exception, or an Error, of what is none.
GemmAlgorithms gemm_algorithms_in(const nlohmann::json& json);
/// Reads such a file, of `option`. Fails (exit code 2) with what is wrong with it.
GemmAlgorithms read_gemm_algorithms(const std::string& path, const std::string& option);
/// Writes one, atomically.
void write_gemm_algorithms(const std::string& path, const GemmAlgorithms& algorithms);

}  // namespace llmc
