// What the ranks of one job know and nobody else does, and the proofs that a rank knows it: keyed BLAKE2b (RFC 7693),
// by libsodium. The secret itself never travels between ranks that have it; gate.h has the exchange of proofs, and
// dev/notes/security.md what they protect from.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

constexpr size_t kProofBytes = 32;
constexpr size_t kNonceBytes = 32;
constexpr size_t kShortestSecret = 16;

/// A key made of a job's secret and its name. Without a secret anybody can make it: it tells jobs apart, no more.
class Secret {
  public:
    Secret() : Secret("", "") {}
    Secret(std::string_view secret, std::string_view job);

    /// Of these texts, in this order: kProofBytes that only who has the key can make.
    std::string prove(const std::vector<std::string>& texts) const;
    /// Whether `proof` is that of the texts; takes the same time wherever they differ.
    bool accepts(std::string_view proof, const std::vector<std::string>& texts) const;

  private:
    std::array<unsigned char, kProofBytes> key_ = {};
};

/// A number used once: kNonceBytes from the system's source of randomness.
std::string random_nonce();
/// A secret for a new job, 64 hexadecimal digits.
std::string random_secret();
/// Why a text is no secret: "is 3 characters long; ..."; "" if it may be one. Does not repeat it.
std::string wrong_with_secret(std::string_view text);

}  // namespace llmc
