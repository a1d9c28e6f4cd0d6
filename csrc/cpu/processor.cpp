#include "cpu/processor.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pydln::cpu {

#if defined(__x86_64__)
namespace {

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

}  // namespace

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

namespace {

// AMD's with AVX-512 but Zen 5 for servers and desktops: Zen 4, and Zen 5 for notebooks.
bool halves_64_bytes() {
  if (cpuid(0).ecx != 0x444D4163U) return false;  // "cAMD", the end of AuthenticAMD
  const unsigned a = cpuid(1).eax;
  const unsigned family = ((a >> 8U) & 0xFU) + ((a >> 20U) & 0xFFU);
  const unsigned model = ((a >> 4U) & 0xFU) | ((a >> 12U) & 0xF0U);
  if (family != 0x1AU) return family < 0x1AU;
  return model >= 0x50U || (model >= 0x20U && model < 0x40U);
}

}  // namespace

bool takes_64_bytes() {
  static const bool whole = !halves_64_bytes();
  return whole;
}
#else
bool runs_baseline() { return true; }
bool runs_avx2() { return false; }
bool runs_avx512() { return false; }
bool takes_64_bytes() { return true; }
#endif

const char* best_isa() {
  if (runs_avx512()) return "avx512";
  return runs_avx2() ? "avx2" : "baseline";
}

}  // namespace pydln::cpu
