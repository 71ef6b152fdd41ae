// How wide text may be.
#pragma once

namespace llmc {

/// Columns of standard output: $COLUMNS, else those of the terminal; 80 where neither is known.
int output_columns();

/// The same of standard error.
int error_columns();

}  // namespace llmc
