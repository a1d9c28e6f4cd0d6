#include "cpu/isa.hpp"

#include <stdexcept>

namespace pydln::cpu {
namespace {

#define PYDLN_SET(isa)                                                                           \
  {#isa,                                                                                         \
   {isa::descent<double>, isa::flow<double>, isa::nonlinear<double>, isa::activate_all<double>}, \
   {isa::descent<float>, isa::flow<float>, isa::nonlinear<float>, isa::activate_all<float>},     \
   isa::modes,                                                                                   \
   isa::graded_values,                                                                           \
   isa::singular_values,                                                                         \
   isa::balanced_mode,                                                                           \
   isa::riccati,                                                                                 \
   isa::two_layer_mode}

std::vector<Isa> find() {
  if (!runs_baseline()) throw std::runtime_error("this processor lacks x86-64-v2 (SSE4.2), the least that pydln needs");
  std::vector<Isa> found;
#if defined(PYDLN_HAVE_BASELINE)
  found.push_back(PYDLN_SET(baseline));
#endif
#if defined(PYDLN_HAVE_EMULATED512)
  found.push_back(PYDLN_SET(emulated512));
#endif
#if defined(PYDLN_HAVE_AVX2)
  if (runs_avx2()) found.push_back(PYDLN_SET(avx2));
#endif
#if defined(PYDLN_HAVE_AVX512)
  if (runs_avx512()) found.push_back(PYDLN_SET(avx512));
#endif
  if (found.empty()) {
    const std::string compiled = PYDLN_COMPILED_SETS, here = best_isa();
    throw std::runtime_error("it was compiled for computers with " + compiled + ", and this one has " + here +
                             ": install it here, or with pip install -C cmake.define.PYDLN_KERNELS=all");
  }
  return found;
}
#undef PYDLN_SET

}  // namespace

const std::vector<Isa>& usable_isas() {
  static const std::vector<Isa> found = find();
  return found;
}

const Isa& isa_named(const std::string& name) {
  std::string known;
  for (const Isa& isa : usable_isas()) {
    if (isa.name == name) return isa;
    known += (known.empty() ? "" : ", ") + isa.name;
  }
  throw std::invalid_argument("instruction set: expected one of " + known + ", got " + name);
}

}  // namespace pydln::cpu
