// A reader of GGUF files for tests, written from the specification and sharing nothing with the writer.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include "tests/io/temp_dir.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace llmc {

struct GgufReadTensor {
    std::vector<uint64_t> dims;  ///< The fastest first.
    uint32_t type = 0;
    uint64_t offset = 0;
    std::string bytes;

    uint64_t elements() const {
        uint64_t count = 1;
        for (const uint64_t dim : dims) count *= dim;
        return count;
    }
    /// As double, whatever the type: f32, f16, bf16, q8_0.
    std::vector<double> values() const {
        std::vector<double> result;
        const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
        const auto half = [&](size_t at) {
            const int bits = data[at] | data[at + 1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
            const double size = exponent == 0    ? std::ldexp(fraction, -24)
                                : exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                                 : std::ldexp(1024 + fraction, exponent - 25);
            return (bits & 0x8000) != 0 ? -size : size;
        };
        for (uint64_t i = 0; i < elements(); ++i) {
            float wide = 0;
            switch (type) {
                case 0: std::memcpy(&wide, data + 4 * i, 4); break;
                case 30: std::memcpy(reinterpret_cast<char*>(&wide) + 2, data + 2 * i, 2); break;
                case 1: result.push_back(half(2 * i)); continue;
                case 8: {
                    const uint64_t block = i / 32 * 34;
                    result.push_back(half(block) * static_cast<signed char>(data[block + 2 + i % 32]));
                    continue;
                }
                default: throw std::runtime_error("type " + std::to_string(type));
            }
            result.push_back(wide);
        }
        return result;
    }
};

class GgufReader {
  public:
    using Value = std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>,
                               std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

    explicit GgufReader(const std::string& path) : bytes_(slurp(path)) {
        if (take(4) != "GGUF" || number<uint32_t>() != 3) throw std::runtime_error("not GGUF 3");
        const auto tensor_count = number<uint64_t>(), pair_count = number<uint64_t>();
        for (uint64_t i = 0; i < pair_count; ++i) {
            const std::string key = text();
            keys.push_back(key);
            if (!metadata.emplace(key, value(number<uint32_t>())).second) throw std::runtime_error("twice: " + key);
        }
        for (uint64_t i = 0; i < tensor_count; ++i) {
            const std::string name = text();
            GgufReadTensor tensor;
            const auto dims = number<uint32_t>();
            for (uint32_t d = 0; d < dims; ++d) tensor.dims.push_back(number<uint64_t>());
            tensor.type = number<uint32_t>();
            tensor.offset = number<uint64_t>();
            order.push_back(name);
            if (!tensors.emplace(name, tensor).second) throw std::runtime_error("twice: " + name);
        }
        const uint64_t alignment = metadata.contains("general.alignment") ? count("general.alignment") : 32;
        data_begin = (at_ + alignment - 1) / alignment * alignment;
        uint64_t end = 0;
        for (const std::string& name : order) {
            GgufReadTensor& tensor = tensors.at(name);
            if (tensor.offset % alignment != 0) throw std::runtime_error("unaligned: " + name);
            if (tensor.offset < end) throw std::runtime_error("overlaps: " + name);
            at_ = data_begin + tensor.offset;
            tensor.bytes = take(size_of(tensor));
            end = tensor.offset + tensor.bytes.size();
        }
        file_end = data_begin + (end + alignment - 1) / alignment * alignment;
        if (bytes_.size() != file_end) throw std::runtime_error("bytes at the end");
    }

    uint64_t count(const std::string& key) const { return std::get<uint64_t>(metadata.at(key)); }
    double real(const std::string& key) const { return std::get<double>(metadata.at(key)); }
    bool flag(const std::string& key) const { return std::get<bool>(metadata.at(key)); }
    std::string string(const std::string& key) const { return std::get<std::string>(metadata.at(key)); }
    std::vector<std::string> strings(const std::string& key) const {
        return std::get<std::vector<std::string>>(metadata.at(key));
    }
    std::vector<int64_t> integers(const std::string& key) const {
        return std::get<std::vector<int64_t>>(metadata.at(key));
    }
    std::vector<double> reals(const std::string& key) const { return std::get<std::vector<double>>(metadata.at(key)); }
    bool has(const std::string& key) const { return metadata.contains(key); }

    std::vector<std::string> keys, order;
    std::map<std::string, Value> metadata;
    std::map<std::string, GgufReadTensor> tensors;
    uint64_t data_begin = 0, file_end = 0;

  private:
    static uint64_t size_of(const GgufReadTensor& tensor) {
        switch (tensor.type) {
            case 0: return tensor.elements() * 4;
            case 1:
            case 30: return tensor.elements() * 2;
            case 8:
                if (tensor.dims[0] % 32 != 0) throw std::runtime_error("no whole blocks");
                return tensor.elements() / 32 * 34;
            default: throw std::runtime_error("type " + std::to_string(tensor.type));
        }
    }
    std::string take(uint64_t size) {
        if (size > bytes_.size() - at_) throw std::runtime_error("truncated");
        at_ += size;
        return bytes_.substr(at_ - size, size);
    }
    template <typename T>
    T number() {
        T result = {};
        const std::string raw = take(sizeof(T));
        std::memcpy(&result, raw.data(), sizeof(T));
        return result;
    }
    std::string text() { return take(number<uint64_t>()); }

    Value value(uint32_t type) {
        switch (type) {
            case 0: return uint64_t{number<uint8_t>()};
            case 4: return uint64_t{number<uint32_t>()};
            case 5: return int64_t{number<int32_t>()};
            case 6: return double{number<float>()};
            case 7: return number<uint8_t>() == 1;
            case 8: return text();
            case 9: break;
            default: throw std::runtime_error("value type " + std::to_string(type));
        }
        const auto inner = number<uint32_t>();
        const auto size = number<uint64_t>();
        const auto all = [&]<typename T>(T) {
            std::vector<T> list;
            for (uint64_t i = 0; i < size; ++i) list.push_back(std::get<T>(value(inner)));
            return Value(list);
        };
        if (inner == 5) return all(int64_t{});
        if (inner == 6) return all(double{});
        if (inner == 8) return all(std::string{});
        return all(uint64_t{});
    }

    std::string bytes_;
    uint64_t at_ = 0;
};

}  // namespace llmc
