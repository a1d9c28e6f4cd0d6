// What every instruction set offers to the dispatcher: plain function pointers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/control.hpp"
#include "ops/descent.hpp"

namespace pydln {

enum class Layout { interleaved, rows };

// One way to run the descent operation: bytes of workspace per worker, the worker itself (takes members from the
// control's queue until none is left; workspace aligned to 64 bytes), and how many members it holds at a time.
template <class T>
struct DescentBody {
  std::size_t (*workspace)(const ops::Descent<T>&);
  void (*work)(const ops::Descent<T>&, Control&, char*);
  std::int64_t members;
};

struct Kernels {
  DescentBody<double> (*descent_f64)(Layout, bool task_per_member);
  DescentBody<float> (*descent_f32)(Layout, bool task_per_member);
  std::int64_t vector_bytes;
};

#define PYDLN_DECLARE_KERNELS(isa) \
  namespace isa {                  \
  Kernels kernels();               \
  }
PYDLN_DECLARE_KERNELS(baseline)
PYDLN_DECLARE_KERNELS(avx2)
#undef PYDLN_DECLARE_KERNELS

}  // namespace pydln
