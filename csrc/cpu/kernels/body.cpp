// The kernels of one instruction set and one precision. CMake compiles this source once for each, with the set's flags and
//   PYDLN_ISA                       its namespace
//   PYDLN_SCALAR                    double or float
//   PYDLN_VECTOR_BYTES              its vector width
//   PYDLN_REGISTERS                 how many vector registers it has: 16 or 32
//   PYDLN_SQUARES                   2: a kernel of its own for each small square width; 1: for some; 0: these run like all others
#include "cpu/kernels/body.hpp"

#include "cpu/kernels/descent.hpp"
#include "cpu/kernels/flow.hpp"
#include "cpu/kernels/worker.hpp"

namespace pydln::PYDLN_ISA {
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
