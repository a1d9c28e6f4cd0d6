// Which instruction sets this computer can run, and the kernels of each.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/body.hpp"
#include "cpu/processor.hpp"

namespace pydln::cpu {

// How many numbers a vector holds, its size, and whether the processor takes it whole, not in two halves.
struct Vectors {
  std::int64_t lanes, bytes;
  bool whole;
};

template <class T>
struct Kernels {
  DescentBody<T> (*descent)(Layout, bool task_per_member);
  FlowBody<T> (*flow)(Layout, bool task_per_member);
  NonlinearBody<T> (*nonlinear)(Layout, bool samples_per_member);
  void (*activate)(ops::Activation, const T* x, T* value, T* derivative, std::int64_t count);
};

struct Isa {
  std::string name;
  Kernels<double> f64;
  Kernels<float> f32;
  ModesBody (*modes)();
  GradedValuesBody (*graded_values)();
  SingularValuesBody (*singular_values)();
  void (*balanced_mode)(const ops::BalancedMode&, Control&);
  RiccatiBody (*riccati)();
  void (*two_layer_mode)(const ops::TwoLayerMode&, Control&);

  template <class T>
  const Kernels<T>& kernels() const {
    if constexpr (sizeof(T) == sizeof(double))
      return f64;
    else
      return f32;
  }
  // The kernel of an operation.
  template <class T>
  DescentBody<T> body(const ops::Descent<T>& op, Layout layout) const {
    return kernels<T>().descent(layout, op.task_per_member);
  }
  template <class T>
  FlowBody<T> body(const ops::Flow<T>& op, Layout layout) const {
    return kernels<T>().flow(layout, op.task_per_member);
  }
  template <class T>
  NonlinearBody<T> body(const ops::Nonlinear<T>& op, Layout layout) const {
    return kernels<T>().nonlinear(layout, op.samples_per_member);
  }
  // The vectors that numbers of type T are worked on in.
  template <class T>
  Vectors vectors() const {
    const std::int64_t bytes =
        static_cast<std::int64_t>(sizeof(double)) * f64.descent(Layout::interleaved, false).members;
    return {kernels<T>().descent(Layout::interleaved, false).members, bytes, bytes < 64 || takes_64_bytes()};
  }
};

// Those compiled in and supported by processor and operating system, best last. Throws std::runtime_error if there are none.
const std::vector<Isa>& usable_isas();

// By name; throws std::invalid_argument naming those usable.
const Isa& isa_named(const std::string& name);

}  // namespace pydln::cpu
