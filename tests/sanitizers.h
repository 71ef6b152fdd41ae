// What a build with a sanitizer cannot do. Nobody else asks.
#pragma once

namespace llmc {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kWithAddressSanitizer = true;
#else
constexpr bool kWithAddressSanitizer = false;
#endif

/// OpenMP has one thread there (dev/notes/sanitizers.md).
#ifdef __SANITIZE_THREAD__
constexpr bool kWithThreadSanitizer = true;
#else
constexpr bool kWithThreadSanitizer = false;
#endif

/// Of so many that are asked for.
constexpr int threads_there_are(int wanted) { return kWithThreadSanitizer ? 1 : wanted; }

}  // namespace llmc
