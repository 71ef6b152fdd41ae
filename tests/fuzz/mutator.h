// Seeded changes to valid files, for tests/fuzz/test_fuzz.cpp: bits and bytes, lengths and numbers, pieces left out,
// doubled, moved or taken from another file, and words of the formats in places of their own. Half of the changes to
// JSON keep it JSON, with other values in it.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

class Mutator {
  public:
    /// The same seed makes the same changes.
    explicit Mutator(uint64_t seed) : random_(seed) {}

    /// One of `seeds`, changed in one to eight ways.
    std::string next(const std::vector<std::string>& seeds);
    /// A number below `n`.
    size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  private:
    void change_json(nlohmann::json& root);
    nlohmann::json* some_node(nlohmann::json& root);
    void change(std::string& text, const std::vector<std::string>& seeds);
    void change_bytes(std::string& text);
    void change_integer(std::string& text);
    void change_decimal(std::string& text);
    void insert_word(std::string& text);
    void move_piece(std::string& text, const std::vector<std::string>& seeds);
    std::string_view piece(std::string_view text);

    std::mt19937_64 random_;
};

}  // namespace llmc
