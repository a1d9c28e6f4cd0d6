#include "cpu/isa.hpp"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pydln::cpu {
namespace {

#if defined(__x86_64__)
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

bool bit(unsigned word, unsigned n) { return (word >> n) & 1U; }

// State that the operating system saves on a context switch: XCR0 by XGETBV.
unsigned saved_state() {
  if (!bit(cpuid(1).ecx, 27U)) return 0;  // OSXSAVE
  unsigned low = 0, high = 0;             // NOLINT(misc-const-correctness): the instruction writes them
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool runs_baseline() {  // x86-64-v2: SSE3, SSSE3, SSE4.1, SSE4.2, POPCNT
  const unsigned c = cpuid(1).ecx;
  return bit(c, 0U) && bit(c, 9U) && bit(c, 19U) && bit(c, 20U) && bit(c, 23U);
}
bool runs_avx2() {  // AVX, FMA, AVX2, with the upper halves of the registers saved
  const unsigned c = cpuid(1).ecx;
  return bit(c, 28U) && bit(c, 12U) && bit(cpuid(7).ebx, 5U) && (saved_state() & 6U) == 6U;
}
bool runs_avx512() {  // F, DQ, BW, VL, with masks and all of the 32 registers saved
  const unsigned b = cpuid(7).ebx;
  return runs_avx2() && bit(b, 16U) && bit(b, 17U) && bit(b, 30U) && bit(b, 31U) && (saved_state() & 0xE6U) == 0xE6U;
}

// AMD's with AVX-512 but Zen 5 for servers and desktops: Zen 4, and Zen 5 for notebooks.
bool halves_64_bytes() {
  if (cpuid(0).ecx != 0x444D4163U) return false;  // "cAMD", the end of AuthenticAMD
  const unsigned a = cpuid(1).eax;
  const unsigned family = ((a >> 8U) & 0xFU) + ((a >> 20U) & 0xFFU);
  const unsigned model = ((a >> 4U) & 0xFU) | ((a >> 12U) & 0xF0U);
  if (family != 0x1AU) return family < 0x1AU;
  return model >= 0x50U || (model >= 0x20U && model < 0x40U);
}
#else
bool runs_baseline() { return true; }
bool halves_64_bytes() { return false; }
#endif

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
  found.push_back(PYDLN_SET(baseline));
#if defined(PYDLN_HAVE_EMULATED512)
  found.push_back(PYDLN_SET(emulated512));
#endif
#if defined(PYDLN_HAVE_AVX2)
  if (runs_avx2()) found.push_back(PYDLN_SET(avx2));
#endif
#if defined(PYDLN_HAVE_AVX512)
  if (runs_avx512()) found.push_back(PYDLN_SET(avx512));
#endif
  return found;
}
#undef PYDLN_SET

}  // namespace

bool takes_64_bytes() {
  static const bool whole = !halves_64_bytes();
  return whole;
}

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
