#include "llmc/train/about.h"

#include "llmc/base/version.h"

#include <CLI/Version.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sodium.h>
#include <spdlog/version.h>
#include <unicode/uversion.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include <array>
#include <hwloc.h>
#include <toml++/impl/version.h>

// The Makefile gives them to this file alone.
#ifndef LLMC_COMMIT
#define LLMC_COMMIT "unknown"
#define LLMC_COMPILER "unknown"
#define LLMC_FEATURES "unknown"
#define LLMC_CUDA "unknown"
#endif

namespace llmc {
namespace {

std::string dotted(int number, int major, int minor) {
    return fmt::format("{}.{}.{}", number / major, number % major / minor, number % minor);
}

/// Those that are linked say it themselves, where they can; the others as they were compiled.
std::string libraries() {
    UVersionInfo icu = {};
    u_getVersion(icu);
    std::array<char, U_MAX_VERSION_STRING_LENGTH> icu_text = {};
    u_versionToString(icu, icu_text.data());
    std::array<char, 64> pcre2 = {};  // "10.42 2022-12-11"
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2.data());
    const std::string_view pcre2_text = pcre2.data();
    return fmt::format(
        "{}, CLI11 {}, fmt {}, hwloc {}, ICU {}, libsodium {}, nlohmann-json {}.{}.{}, PCRE2 {}, spdlog {}.{}.{}, "
        "toml++ {}.{}.{}, xxHash {}, zlib {}, zstd {}",
        LLMC_FEATURES, CLI11_VERSION, dotted(FMT_VERSION, 10000, 100), HWLOC_VERSION, icu_text.data(),
        sodium_version_string(), NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH,
        pcre2_text.substr(0, pcre2_text.find(' ')), SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH,
        TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH, dotted(XXH_VERSION_NUMBER, 10000, 100), zlibVersion(),
        ZSTD_versionString());
}

}  // namespace

std::string about_this_program() {
    return fmt::format("train_gpt {}\ncommit     {}\ncompiler   {}\nlibraries  {}\nCUDA       {}", version(),
                       LLMC_COMMIT, LLMC_COMPILER, libraries(), LLMC_CUDA);
}

}  // namespace llmc
