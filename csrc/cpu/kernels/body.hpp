// What every instruction set offers to the dispatcher: plain function pointers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/control.hpp"
#include "ops/descent.hpp"
#include "ops/flow.hpp"
#include "ops/modes.hpp"
#include "ops/nonlinear.hpp"

namespace pydln {

namespace ops {
struct BalancedMode;
struct GradedValues;
struct Riccati;
struct SingularValues;
struct TwoLayerMode;
}  // namespace ops

enum class Layout { interleaved, rows };

// One way to run an operation: bytes of workspace per worker, the worker itself (takes members from the control's queue
// until none is left; workspace aligned to 64 bytes), and how many members it holds at a time.
template <class Op>
struct Body {
  std::size_t (*workspace)(const Op&);
  void (*work)(const Op&, Control&, char*);
  std::int64_t members;
};
template <class T>
using DescentBody = Body<ops::Descent<T>>;
template <class T>
using FlowBody = Body<ops::Flow<T>>;
template <class T>
using NonlinearBody = Body<ops::Nonlinear<T>>;
using ModesBody = Body<ops::Modes>;
using GradedValuesBody = Body<ops::GradedValues>;
using RiccatiBody = Body<ops::Riccati>;
using SingularValuesBody = Body<ops::SingularValues>;

// The instruction sets, each a namespace; those compiled in are said by definitions PYDLN_HAVE_....
//   baseline     x86-64-v2; elsewhere what the compiler takes for granted (NEON on ARM)
//   emulated512  vectors as wide as AVX-512's on whatever there is: for tests on processors without it
// The kernels of a layout; task_per_member: whether members have matrices of their own for their tasks. And a kernel that
// takes parts of its operation from the control's queue until none is left. activate_all: phi and phi' of an array.
#define PYDLN_DECLARE_KERNELS(isa)                                                             \
  namespace isa {                                                                              \
  template <class T>                                                                           \
  DescentBody<T> descent(Layout, bool task_per_member);                                        \
  template <class T>                                                                           \
  FlowBody<T> flow(Layout, bool task_per_member);                                              \
  template <class T>                                                                           \
  NonlinearBody<T> nonlinear(Layout, bool samples_per_member);                                 \
  template <class T>                                                                           \
  void activate_all(ops::Activation, const T* x, T* value, T* derivative, std::int64_t count); \
  ModesBody modes();                                                                           \
  void balanced_mode(const ops::BalancedMode&, Control&);                                      \
  void two_layer_mode(const ops::TwoLayerMode&, Control&);                                     \
  GradedValuesBody graded_values();                                                            \
  RiccatiBody riccati();                                                                       \
  SingularValuesBody singular_values();                                                        \
  }
PYDLN_DECLARE_KERNELS(baseline)
PYDLN_DECLARE_KERNELS(emulated512)
PYDLN_DECLARE_KERNELS(avx2)
PYDLN_DECLARE_KERNELS(avx512)
#undef PYDLN_DECLARE_KERNELS

}  // namespace pydln
