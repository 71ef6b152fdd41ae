#include "llmc/comm/secret.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/comm/link.h"

#include <sodium.h>

#include <algorithm>

namespace llmc {
namespace {

constexpr size_t kLongestSecret = 4096;

void start_sodium() {
    static const int status = sodium_init();  // Negative where the system has no randomness to give.
    if (status < 0) fail("libsodium cannot start: the system gives no random numbers");
}

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

std::string random_text(size_t bytes) {
    start_sodium();
    std::string text(bytes, '\0');
    randombytes_buf(text.data(), text.size());
    return text;
}

}  // namespace

Secret::Secret(std::string_view secret, std::string_view job) {
    start_sodium();
    std::array<unsigned char, kProofBytes> of_secret = {};
    CHECK(crypto_generichash(of_secret.data(), of_secret.size(), bytes_of(secret), secret.size(), nullptr, 0) == 0);
    const std::string purpose = pack({"train_gpt, the ranks of one job", std::string(job)});
    CHECK(crypto_generichash(key_.data(), key_.size(), bytes_of(purpose), purpose.size(), of_secret.data(),
                             of_secret.size()) == 0);
    sodium_memzero(of_secret.data(), of_secret.size());
}

std::string Secret::prove(const std::vector<std::string>& texts) const {
    const std::string whole = pack(texts);  // With lengths: no two lists are the same bytes.
    std::string proof(kProofBytes, '\0');
    CHECK(crypto_generichash(reinterpret_cast<unsigned char*>(proof.data()), proof.size(), bytes_of(whole),
                             whole.size(), key_.data(), key_.size()) == 0);
    return proof;
}

bool Secret::accepts(std::string_view proof, const std::vector<std::string>& texts) const {
    return proof.size() == kProofBytes && sodium_memcmp(proof.data(), prove(texts).data(), kProofBytes) == 0;
}

std::string random_nonce() { return random_text(kNonceBytes); }

std::string random_secret() {
    std::string digits;
    for (const char c : random_text(kNonceBytes)) digits += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return digits;
}

std::string wrong_with_secret(std::string_view text) {
    if (text.size() < kShortestSecret || text.size() > kLongestSecret) {
        return fmt::format("is {} characters long, and must have from {} to {}", text.size(), kShortestSecret,
                           kLongestSecret);
    }
    const bool is_one_word =
        std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) > ' ' && c != 127; });
    return is_one_word ? "" : "must be one word, without blanks or line ends";
}

}  // namespace llmc
