// How a report writes sizes and times: rounded, in one unit for all of it, or in full (--bytes).
#pragma once

#include "llmc/draw/chart.h"

#include <cstdint>
#include <string>

namespace llmc {

class ReportUnits {
  public:
    /// The unit suits sizes up to `largest_bytes`: GiB, or less for small models.
    ReportUnits(bool in_full, int64_t largest_bytes);

    std::string bytes(int64_t count) const;          ///< "23.46", "25,187,352,576".
    std::string seconds(double seconds) const;       ///< Three digits: "1.23"; in full, in ms: "1234.567".
    std::string of_bytes(const char* what) const;    ///< "total GiB", for the head of a column.
    std::string of_seconds(const char* what) const;  ///< "step s".

  private:
    bool in_full_;
    ByteUnit unit_;
};

/// "1.23", "41,003": three digits at least.
std::string rate_text(double per_second);

}  // namespace llmc
