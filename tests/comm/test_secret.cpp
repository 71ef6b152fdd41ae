#include "llmc/comm/secret.h"

#include <gtest/gtest.h>

#include <set>

namespace llmc {
namespace {

std::string hex(const std::string& bytes) {
    std::string digits;
    constexpr const char* kDigits = "0123456789abcdef";
    for (const char c : bytes) {
        digits += kDigits[static_cast<unsigned char>(c) >> 4];
        digits += kDigits[static_cast<unsigned char>(c) & 15];
    }
    return digits;
}

// Python's hashlib, another implementation of RFC 7693:
//   def pack(texts): return b"".join(len(t).to_bytes(8, "little") + t for t in texts)
//   def b2(data, key=b""): return hashlib.blake2b(data, key=key, digest_size=32)
//   key = b2(pack([b"train_gpt, the ranks of one job", b"job"]), b2(b"a secret").digest()).digest()
//   b2(pack([b"gate", b"meet"]), key).hexdigest()
TEST(Secret, ProofsAreKeyedBlake2b) {
    EXPECT_EQ(hex(Secret("a secret", "job").prove({"gate", "meet"})),
              "273f4619e52f5e4bf089b7ecaadbdb1f509ef039602e8fe0d169e3101f054453");
}

TEST(Secret, AProofIsOfItsSecretJobAndTexts) {
    const Secret secret("a secret", "job");
    const std::string proof = secret.prove({"one", "two"});
    EXPECT_TRUE(secret.accepts(proof, {"one", "two"}));
    EXPECT_TRUE(Secret("a secret", "job").accepts(proof, {"one", "two"}));
    EXPECT_FALSE(Secret("a secret", "other").accepts(proof, {"one", "two"}));
    EXPECT_FALSE(Secret("b secret", "job").accepts(proof, {"one", "two"}));
    EXPECT_FALSE(Secret().accepts(proof, {"one", "two"}));
    for (const std::vector<std::string>& texts :
         {std::vector<std::string>{"onetwo"}, {"onet", "wo"}, {"one", "two", ""}, {"two", "one"}, {}}) {
        EXPECT_FALSE(secret.accepts(proof, texts));
    }
    for (size_t i = 0; i < proof.size(); ++i) {
        std::string wrong = proof;
        wrong[i] = static_cast<char>(wrong[i] ^ 1);
        EXPECT_FALSE(secret.accepts(wrong, {"one", "two"}));
    }
    EXPECT_FALSE(secret.accepts(proof.substr(1), {"one", "two"}));
    EXPECT_FALSE(secret.accepts("", {"one", "two"}));
}

TEST(Secret, RandomTextsDiffer) {
    std::set<std::string> all;
    for (int i = 0; i < 100; ++i) {
        const std::string nonce = random_nonce(), secret = random_secret();
        EXPECT_EQ(nonce.size(), kNonceBytes);
        EXPECT_EQ(secret.size(), 64u);
        EXPECT_EQ(wrong_with_secret(secret), "");
        all.insert(nonce);
        all.insert(secret);
    }
    EXPECT_EQ(all.size(), 200u);
}

TEST(Secret, OneWordThatIsLongEnough) {
    EXPECT_NE(wrong_with_secret(""), "");
    EXPECT_NE(wrong_with_secret(std::string(15, 'x')), "");
    EXPECT_EQ(wrong_with_secret(std::string(16, 'x')), "");
    EXPECT_NE(wrong_with_secret(std::string(5000, 'x')), "");
    EXPECT_NE(wrong_with_secret("two words that are long enough"), "");
    EXPECT_NE(wrong_with_secret("a-line-that-ends-with-its-end\n"), "");
}

}  // namespace
}  // namespace llmc
