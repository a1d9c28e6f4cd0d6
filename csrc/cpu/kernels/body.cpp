// The kernels of one instruction set and one precision. CMake compiles this source once for each, with the set's flags and
//   PYDLN_ISA                       its namespace
//   PYDLN_SCALAR                    double or float
//   PYDLN_VECTOR_BYTES              its vector width
//   PYDLN_REGISTERS                 how many vector registers it has: 16 or 32
//   PYDLN_SQUARES                   2: a kernel of its own for each small square width; 1: for some; 0: these run like all others
#include "cpu/kernels/body.hpp"

#include "cpu/kernels/descent.hpp"
#include "cpu/kernels/flow.hpp"
#include "cpu/kernels/interleaved.hpp"
#include "cpu/kernels/rows.hpp"

namespace pydln::PYDLN_ISA {
namespace {

template <template <class, class> class Worker, class L, class G, class Op>
std::size_t measure(const Op& op) {
  Arena arena{nullptr};
  Control control;
  Worker<L, G>(op, control, arena);
  return arena.used;
}

template <template <class, class> class Worker, class L, class G, class Op>
void work(const Op& op, Control& control, char* workspace) {
  Arena arena{workspace};
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

}  // namespace

template <class T>
DescentBody<T> descent(Layout layout, bool task_per_member) {
  return body<DescentWorker, T, ops::Descent<T>>(layout, task_per_member);
}
template <class T>
FlowBody<T> flow(Layout layout, bool task_per_member) {
  return body<FlowWorker, T, ops::Flow<T>>(layout, task_per_member);
}
template DescentBody<PYDLN_SCALAR> descent(Layout, bool);
template FlowBody<PYDLN_SCALAR> flow(Layout, bool);

}  // namespace pydln::PYDLN_ISA
