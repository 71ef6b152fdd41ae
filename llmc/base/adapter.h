// Low-rank adapters of a weight (Hu et al. 2021): out = x W^T + scale (x A^T) B^T, where W stays as it is, and A and B,
// which are thin, train. A weight that several matrices are fused in has a group for each matrix that is adapted.
#pragma once

#include <cstdint>
#include <vector>

namespace llmc {

/// One of the matrices that a weight is made of.
struct AdapterGroup {
    int64_t first_column = 0, columns = 0;  ///< Of the weight's output.
    float scale = 1;
    bool operator==(const AdapterGroup&) const = default;
};

/// The adapters of one weight. A (groups * rank, IC) has the groups' factors one below the other, z = x A^T (N, groups
/// * rank) what they give, side by side; B (rows of all groups, rank) a row for every column of the output that is
/// adapted.
struct AdapterShape {
    int64_t rank = 0;
    std::vector<AdapterGroup> groups;
    bool operator==(const AdapterShape&) const = default;

    int64_t z_columns() const { return rank * static_cast<int64_t>(groups.size()); }
    int64_t b_rows() const {
        int64_t rows = 0;
        for (const AdapterGroup& group : groups) rows += group.columns;
        return rows;
    }
};

}  // namespace llmc
