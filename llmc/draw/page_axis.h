// The axes of a page's charts, whose ends are ticks, so that no value stands outside them. The page's script makes the
// same ones for the runs that it shows.
#pragma once

#include <string>
#include <vector>

namespace llmc {

/// On a logarithmic axis all are logarithms, of base 10.
struct PageAxis {
    double low = 0, high = 1;
    std::vector<double> ticks;
};

/// From tick to tick, around `low` to `high`; where those are as good as the same, a little more.
PageAxis linear_axis(double low, double high);

/// The same for logarithms: ticks are at 1, 2 and 5 times the powers of ten, or at every, every second ... power.
PageAxis logarithmic_axis(double low, double high);

/// "3.1e-05", "0.25", "1.2M", without the noise of a binary fraction.
std::string number_words(double value);

}  // namespace llmc
