// Numbers over a run's steps, as curves have them, thinned for a picture.
#pragma once

#include <cstddef>
#include <vector>

namespace llmc {

/// y over x, with x ascending. A y that is not finite is a gap.
struct Series {
    std::vector<double> x, y;

    size_t size() const { return x.size(); }
    void add(double at, double value) { x.push_back(at), y.push_back(value); }
};

/// At most about 4 * `buckets` of its points: of every bucket of x the first, the smallest, the largest and the last,
/// so that no extreme is lost. All of them where they are no more than that.
Series thinned(const Series& series, size_t buckets);

/// The means of the finite values in as many buckets of x, each at the mean of its x; a bucket without any is a gap.
Series bucket_means(const Series& series, size_t buckets);

}  // namespace llmc
