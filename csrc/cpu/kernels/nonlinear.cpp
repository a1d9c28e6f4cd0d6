// Nonlinear networks, for one instruction set and one precision; compiled like body.cpp.
#include "cpu/kernels/nonlinear.hpp"

#include "cpu/kernels/worker.hpp"

namespace pydln::PYDLN_ISA {

template <class T>
NonlinearBody<T> nonlinear(Layout layout, bool samples_per_member) {
  return body<NonlinearWorker, T, ops::Nonlinear<T>>(layout, samples_per_member);
}
template <class T>
void activate_all(ops::Activation kind, const T* x, T* value, T* derivative, std::int64_t count) {
  using V = typename Vector<T>::type;
  constexpr std::int64_t lanes = lanes_of<T>;
  for (std::int64_t i = 0; i < count; i += lanes) {
    V here{}, slope;
    for (std::int64_t q = 0; q < lanes && i + q < count; ++q) here[q] = x[i + q];
    activate<T>(kind, &here, &slope, 1);
    for (std::int64_t q = 0; q < lanes && i + q < count; ++q) {
      value[i + q] = here[q];
      derivative[i + q] = slope[q];
    }
  }
}
template NonlinearBody<PYDLN_SCALAR> nonlinear(Layout, bool);
template void activate_all(ops::Activation, const PYDLN_SCALAR*, PYDLN_SCALAR*, PYDLN_SCALAR*, std::int64_t);

}  // namespace pydln::PYDLN_ISA
