// What one core can do at most: chains of multiply-adds that never leave the registers, and passes over an array that no
// cache holds. Built by probe.py, which also holds the clock; every function here only works and tells how much it did.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

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

// More than last-level caches hold; where one has hundreds of megabytes the probe would flatter the memory.
constexpr std::size_t kArrayBytes = std::size_t{1} << 28;

using Line [[gnu::vector_size(64)]] = double;

// On huge pages where the system gives them: a core then writes a fifth faster (Zen 3, pages of 4 kB otherwise).
Line* array() {
  static Line* const lines = [] {
    void* const memory = std::aligned_alloc(std::size_t{1} << 21, kArrayBytes);
    if (memory == nullptr) std::abort();
#if defined(__linux__)
    madvise(memory, kArrayBytes, MADV_HUGEPAGE);
#endif
    Line* const made = static_cast<Line*>(memory);
    for (std::size_t i = 0; i < kArrayBytes / sizeof(Line); ++i) made[i] = Line{} + 0.5;
    return made;
  }();
  return lines;
}

// Four streams side by side: prefetchers follow each, and a core reaches 1.3 times what it does with one (Zen 3).
constexpr std::size_t kStreams = 4;
constexpr std::size_t kLength = kArrayBytes / sizeof(Line) / kStreams;

void read_all() {
  const Line* const lines = array();
  Line sum[kStreams] = {};
  for (std::size_t i = 0; i < kLength; ++i) {
    for (std::size_t k = 0; k < kStreams; ++k) sum[k] += lines[k * kLength + i];
  }
  for (const Line& part : sum) {
    volatile double sink = part[0];
    static_cast<void>(sink);
  }
}

void rewrite_all() {
  const Line keep = Line{} + 0.999;
  const Line add = Line{} + 0.001;
  Line* const lines = array();
  for (std::size_t i = 0; i < kLength; ++i) {
    for (std::size_t k = 0; k < kStreams; ++k) {
      Line& x = lines[k * kLength + i];
      x = x * keep + add;
    }
  }
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

// Makes the array, so that no probe is charged for it.
void probe_allocate() { array(); }

// n times a pass that reads the array; the bytes read.
double probe_read(std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) read_all();
  return static_cast<double>(kArrayBytes) * static_cast<double>(n);
}

// n times what a step of training does with weights: a pass that reads them, and a pass that reads them and writes them
// where they were. The bytes read and written: three times the array.
double probe_update(std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    read_all();
    rewrite_all();
  }
  return 3.0 * static_cast<double>(kArrayBytes) * static_cast<double>(n);
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
