// Where matrices of the task are kept. L is the layout; G is L::Cell where members have tasks of their own, the bare scalar
// where all share one: then a group holds a single copy, and its elements are broadcast where they are read.
#pragma once

#include <cstdint>

namespace pydln::PYDLN_ISA {

// Elements of type G that a matrix of the task takes.
template <class L, class G>
inline std::int64_t task_cells(std::int64_t rows, std::int64_t cols) {
  constexpr bool shared = L::members > 1 && sizeof(G) == sizeof(typename L::Scalar);
  return shared ? rows * cols : L::cells(rows, cols);
}

}  // namespace pydln::PYDLN_ISA
