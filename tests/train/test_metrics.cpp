// metrics.jsonl: keys, numbers that keep their bits, and what a resume makes of the lines of the run before it.
#include "llmc/train/metrics.h"

#include "llmc/base/error.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <bit>
#include <cmath>
#include <filesystem>
#include <limits>

namespace llmc {
namespace {

StepMetrics metrics_of(int64_t step, double loss) {
    StepMetrics metrics;
    metrics.step = step;
    metrics.loss = loss;
    metrics.learning_rate = 3e-4;
    metrics.grad_norm = 1.0 / 3;
    metrics.step_ms = 12.25;
    metrics.tokens_per_second = 1e6;
    metrics.mfu = 0.5;
    metrics.memory_bytes = int64_t{1} << 40;
    return metrics;
}

std::vector<nlohmann::ordered_json> lines_of(const std::string& path) {
    std::istringstream text(slurp(path));
    std::vector<nlohmann::ordered_json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::ordered_json::parse(line));
    return lines;
}

TEST(Metrics, ALineHasTheDocumentedKeysInOrder) {
    const TempDir dir;
    MetricsFile file;
    file.open(dir / "metrics.jsonl", 0);
    file.write(metrics_of(1, 2.5));
    file.write_validation(1, 2.75);
    const auto lines = lines_of(dir / "metrics.jsonl");  // Flushed: readable while the run goes on.
    ASSERT_EQ(lines.size(), 2u);
    std::string keys;
    for (const auto& [key, value] : lines[0].items()) keys += key + " ";
    EXPECT_EQ(keys, "step loss lr grad_norm step_ms tokens_per_second mfu memory_bytes ");
    EXPECT_EQ(lines[0]["memory_bytes"], int64_t{1} << 40);
    EXPECT_EQ(lines[1].dump(), R"({"step":1,"val_loss":2.75})");
}

TEST(Metrics, AreToldFromAnotherFileOfTheirName) {
    const TempDir dir;
    const std::string path = dir / "metrics.jsonl";
    MetricsFile file;
    EXPECT_FALSE(file.is_at(path)) << "none is open";
    file.open(path, 0);
    EXPECT_TRUE(file.is_at(path));
    std::filesystem::rename(path, dir / "moved.jsonl");
    EXPECT_FALSE(file.is_at(path)) << "removed";
    EXPECT_TRUE(file.is_at(dir / "moved.jsonl"));
    dir.write("metrics.jsonl", "");
    EXPECT_FALSE(file.is_at(path)) << "another one";
}

TEST(Metrics, FloatsKeepTheirBits) {
    const TempDir dir;
    const std::vector<double> values = {0.1, 1.0 / 3, 5.546782232820988, 1e-310, 1e300, std::nextafter(2.0, 3.0), 0.0};
    {
        MetricsFile file;
        file.open(dir / "metrics.jsonl", 0);
        for (const double value : values) {
            StepMetrics metrics = metrics_of(1, value);
            metrics.grad_norm = value;
            metrics.learning_rate = value;
            file.write(metrics);
            file.write_validation(1, value);
        }
    }
    const auto lines = lines_of(dir / "metrics.jsonl");
    const auto bits = [](const nlohmann::ordered_json& value) { return std::bit_cast<uint64_t>(value.get<double>()); };
    ASSERT_EQ(lines.size(), 2 * values.size());
    for (size_t i = 0; i < values.size(); ++i) {
        const auto expected = std::bit_cast<uint64_t>(values[i]);
        for (const char* key : {"loss", "grad_norm", "lr"}) EXPECT_EQ(bits(lines[2 * i][key]), expected) << values[i];
        EXPECT_EQ(bits(lines[2 * i + 1]["val_loss"]), expected) << values[i];
    }
}

TEST(Metrics, WhatJsonCannotSayIsNull) {
    const TempDir dir;
    MetricsFile file;
    file.open(dir / "metrics.jsonl", 0);
    for (const double bad : {std::nan(""), -std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        StepMetrics metrics = metrics_of(1, bad);
        metrics.grad_norm = bad;
        metrics.mfu = 0;  // Unknown.
        metrics.skipped = true;
        file.write(metrics);
        file.write_validation(1, bad);
    }
    const auto lines = lines_of(dir / "metrics.jsonl");
    ASSERT_EQ(lines.size(), 8u);
    for (size_t i = 0; i < 8; i += 2) {
        for (const char* key : {"loss", "grad_norm", "mfu"}) EXPECT_TRUE(lines[i][key].is_null()) << key;
        EXPECT_EQ(lines[i]["skipped"], true);
        EXPECT_TRUE(lines[i + 1]["val_loss"].is_null());
    }
}

TEST(Metrics, OpeningDropsWhatCameAfterTheStep) {
    const TempDir dir;
    const std::string path = dir / "metrics.jsonl";
    {
        MetricsFile file;
        file.open(path, 0);
        for (int64_t step = 1; step <= 6; ++step) {
            file.write(metrics_of(step, 1));
            if (step % 2 == 0) file.write_validation(step, 1);
        }
    }
    const std::string before = slurp(path);
    MetricsFile file;
    file.open(path, 4);
    const std::string kept = slurp(path);
    EXPECT_EQ(kept, before.substr(0, kept.size()));
    EXPECT_EQ(lines_of(path).size(), 6u);  // Steps 1 .. 4 and the validations of 2 and 4.
    file.write(metrics_of(5, 1));
    EXPECT_EQ(lines_of(path).back()["step"], 5);
}

TEST(Metrics, WhereOpeningFailsNoFileIsOpen) {
    const TempDir dir;
    MetricsFile file;
    file.open(dir / "metrics.jsonl", 0);
    std::filesystem::create_directory(dir / "folder");
    EXPECT_THROW(file.open(dir / "folder", 0), Error);
    EXPECT_FALSE(file.is_open());
    file.write(metrics_of(1, 1));
    file.sync();
    EXPECT_EQ(slurp(dir / "metrics.jsonl"), "");
    file.open(dir / "metrics.jsonl", 0);
    file.write(metrics_of(2, 1));
    file.sync();
    file.close();
    file.write(metrics_of(3, 1));
    EXPECT_EQ(lines_of(dir / "metrics.jsonl").size(), 1u);
}

TEST(Metrics, OpeningDropsALineCutOffByACrashAndRubbish) {
    const TempDir dir;
    const std::string good = "{\"step\":1,\"loss\":1.5}\n";
    const std::string path = dir.write("metrics.jsonl", good + "rubbish\n[1]\n\n{\"step\":2,\"lo");
    MetricsFile file;
    file.open(path, 100);
    EXPECT_EQ(slurp(path), good);
}

TEST(Metrics, ValidationsAreReadBack) {
    const TempDir dir;
    const std::string path = dir / "metrics.jsonl";
    EXPECT_TRUE(validation_losses(path).empty());
    {
        MetricsFile file;
        file.open(path, 0);
        file.write_validation(0, 1.0 / 3);
        file.write(metrics_of(1, 2));
        file.write_validation(1, std::nan(""));
    }
    dir.write("with rubbish", slurp(path) + "[1]\n{\"step\":\"x\",\"val_loss\":1}\n{\"step\":2,\"val_lo");
    const auto losses = validation_losses(dir / "with rubbish");
    EXPECT_EQ(losses.at(0), 1.0 / 3);
    EXPECT_TRUE(std::isnan(losses.at(1)));
    EXPECT_FALSE(losses.contains(2));
}

/// A run's updates of `tokens` each, as fast as its steps happen to be.
void write_updates(MetricsFile* file, int64_t first, int64_t last, int64_t tokens) {
    for (int64_t step = first; step <= last; ++step) {
        StepMetrics metrics = metrics_of(step, 1);
        metrics.step_ms = 0.3 + static_cast<double>(step * 7919 % 1009) * 1.0137;
        metrics.tokens_per_second = static_cast<double>(tokens) / metrics.step_ms * 1e3;
        file->write(metrics);
    }
}

TEST(Metrics, TokensAreCountedExactly) {
    const TempDir dir;
    const std::string path = dir / "metrics.jsonl";
    MetricsFile file;
    file.open(path, 0);
    file.write_validation(0, 5);
    write_updates(&file, 1, 1000, 2048);
    EXPECT_EQ(read_history(path, 2048, 128).tokens, 1000 * 2048);
    write_updates(&file, 1001, 1500, 4096);  // Gone on with, with larger updates.
    EXPECT_EQ(read_history(path, 4096, 128).tokens, 1000 * 2048 + 500 * 4096);
    EXPECT_EQ(read_history(path, 0, 128).tokens, 1000 * 2048 + 500 * 4096) << "of a file that does not say";
    EXPECT_EQ(read_history(dir / "none", 2048, 128).tokens, 0);
}

TEST(Metrics, ANewRunStartsAnew) {
    const TempDir dir;
    const std::string path = dir.write("metrics.jsonl", "{\"step\":1,\"loss\":1.5}\n");
    MetricsFile file;
    file.open(path, 0);
    EXPECT_EQ(slurp(path), "");
}

TEST(Metrics, AnUnwritableFileIsNamed) {
    const TempDir dir;
    dir.write("file", "x");
    MetricsFile file;
    EXPECT_TRUE(
        has(error_of([&] { file.open(dir / "file/metrics.jsonl", 0); }), {"file/metrics.jsonl", "--output-dir"}));
}

TEST(Metrics, WithoutAFileNothingIsWritten) {
    MetricsFile file;
    file.write(metrics_of(1, 1));
    file.write_validation(1, 1);
}

}  // namespace
}  // namespace llmc
