// All that the C++ tests need of a framework: a check that says where it failed and lets the others run.
#pragma once

#include <cstdio>

namespace check {

inline int failures = 0;

inline bool that(bool holds, const char* text, const char* file, int line) {
  if (!holds && ++failures <= 20) std::printf("%s:%d: failed: %s\n", file, line, text);
  return holds;
}

// What main returns.
inline int result() {
  if (failures > 0) std::printf("%d checks failed\n", failures);
  return failures > 0 ? 1 : 0;
}

}  // namespace check

#define CHECK(...) check::that((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
