// What one core can do at most: chains of multiply-adds that never leave the registers. Built by probe.py, which also
// holds the clock; every function here only works and tells how much it did.
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Enough independent chains to hide the latency of two pipelines (4 cycles each on current processors), few enough that
// they and the two constants fit into sixteen registers.
constexpr int kChains = 12;

using Work = double (*)(std::int64_t);

// x <- 0.999 x + 0.001 goes from a half to one, clear of overflow and of denormals. The start is volatile: the compiler
// would see through a constant one.
#define PYDLN_PROBE(name, target, T, bytes)                                \
  target __attribute__((noinline)) double name(std::int64_t n) {           \
    using Vector [[gnu::vector_size(bytes)]] = T;                          \
    constexpr int lanes = bytes / sizeof(T);                               \
    const Vector keep = Vector{} + T(0.999);                               \
    const Vector add = Vector{} + T(0.001);                                \
    volatile T start = T(0.5);                                             \
    Vector chain[kChains];                                                 \
    for (Vector& x : chain) x = Vector{} + start;                          \
    for (std::int64_t i = 0; i < n; ++i) {                                 \
      _Pragma("GCC unroll 12") for (Vector& x : chain) x = x * keep + add; \
    }                                                                      \
    Vector sum{};                                                          \
    for (const Vector& x : chain) sum += x;                                \
    volatile T sink = sum[0];                                              \
    static_cast<void>(sink);                                               \
    return 2.0 * lanes * kChains * static_cast<double>(n);                 \
  }

PYDLN_PROBE(plain_f64, , double, 16)
PYDLN_PROBE(plain_f32, , float, 16)
#if defined(__x86_64__)
PYDLN_PROBE(avx2_f64, __attribute__((target("avx2,fma"))), double, 32)
PYDLN_PROBE(avx2_f32, __attribute__((target("avx2,fma"))), float, 32)
PYDLN_PROBE(avx512_f64, __attribute__((target("avx512f,fma"))), double, 64)
PYDLN_PROBE(avx512_f32, __attribute__((target("avx512f,fma"))), float, 64)
#endif
#undef PYDLN_PROBE

struct Choice {
  const char* isa;
  Work f64, f32;
};

Choice choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {"avx512", avx512_f64, avx512_f32};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {"avx2", avx2_f64, avx2_f32};
#endif
  return {"baseline", plain_f64, plain_f32};
}

}  // namespace

extern "C" {

// The instruction set of the widest multiply-adds that this processor has.
const char* probe_isa() { return choose().isa; }

// n rounds of multiply-adds on each of `threads` threads; the floating-point operations done by all of them.
double probe_multiply_adds(std::int64_t n, int single, int threads) {
  const Choice choice = choose();
  const Work work = single ? choice.f32 : choice.f64;
  if (threads == 1) return work(n);
  std::vector<double> done(static_cast<std::size_t>(threads));
  std::vector<std::thread> running;
  for (double& d : done) running.emplace_back([work, n, &d] { d = work(n); });
  double sum = 0;
  for (std::size_t i = 0; i < running.size(); ++i) {
    running[i].join();
    sum += done[i];
  }
  return sum;
}

// n dependent additions of integers, one cycle each: what the clock really runs at.
void probe_cycles(std::int64_t n) {
  std::int64_t x = 0;
  for (std::int64_t i = 0; i < n / 16; ++i) {
#pragma GCC unroll 16
    for (int k = 0; k < 16; ++k) {
      x += 1;
      __asm__ volatile("" : "+r"(x));
    }
  }
}
}
