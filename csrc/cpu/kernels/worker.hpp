// A worker of either layout as the plain functions of Body.
#pragma once

#include "cpu/kernels/body.hpp"
#include "cpu/kernels/interleaved.hpp"
#include "cpu/kernels/rows.hpp"

namespace pydln::PYDLN_ISA {

template <template <class, class> class Worker, class L, class G, class Op>
std::size_t measure(const Op& op) {
  Arena arena{nullptr};
  Control control;
  Worker<L, G>(op, control, arena);
  return arena.used;
}

template <template <class, class> class Worker, class L, class G, class Op>
void work(const Op& op, Control& control, char* workspace) {
  Arena arena{workspace, &control};
  Worker<L, G>(op, control, arena).run();
}

template <template <class, class> class Worker, class T, class Op>
Body<Op> body(Layout layout, bool task_per_member) {
  using A = Interleaved<T>;
  using B = Rows<T>;
  if (layout == Layout::rows) return {measure<Worker, B, T, Op>, work<Worker, B, T, Op>, B::members};
  if (task_per_member)
    return {measure<Worker, A, typename A::Cell, Op>, work<Worker, A, typename A::Cell, Op>, A::members};
  return {measure<Worker, A, T, Op>, work<Worker, A, T, Op>, A::members};
}

}  // namespace pydln::PYDLN_ISA
