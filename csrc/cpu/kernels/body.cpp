// The kernels of one instruction set and one precision. CMake compiles this source once for each, with the set's flags and
//   PYDLN_ISA                       its namespace
//   PYDLN_SCALAR                    double or float
//   PYDLN_VECTOR_BYTES              its vector width
//   PYDLN_REGISTERS                 how many vector registers it has: 16 or 32
//   PYDLN_SQUARES                   1: a kernel of its own for each square width up to 8; 0: these run like all others
#include "cpu/kernels/body.hpp"

#include "cpu/kernels/descent.hpp"
#include "cpu/kernels/interleaved.hpp"
#include "cpu/kernels/rows.hpp"

namespace pydln::PYDLN_ISA {
namespace {

template <class L, class G, class T>
std::size_t measure(const ops::Descent<T>& op) {
  Arena arena{nullptr};
  Control control;
  DescentWorker<L, G>(op, control, arena);
  return arena.used;
}

template <class L, class G, class T>
void work(const ops::Descent<T>& op, Control& control, char* workspace) {
  Arena arena{workspace};
  DescentWorker<L, G>(op, control, arena).run();
}

}  // namespace

template <class T>
DescentBody<T> kernel(Layout layout, bool task_per_member) {
  using A = Interleaved<T>;
  using B = Rows<T>;
  if (layout == Layout::rows) return {measure<B, T, T>, work<B, T, T>, B::members};
  if (task_per_member) return {measure<A, typename A::Cell, T>, work<A, typename A::Cell, T>, A::members};
  return {measure<A, T, T>, work<A, T, T>, A::members};
}
template DescentBody<PYDLN_SCALAR> kernel(Layout, bool);

}  // namespace pydln::PYDLN_ISA
